//! The plan: the items to remove and to keep, as data. `watchbook retention plan` shows it, a run executes it.

use chrono::{DateTime, NaiveDate, Utc};
use records::Kind;
use serde::{Deserialize, Serialize};
use store::holds::{self, HeldRange, Hold};
use store::log_volumes::{self, Excess};
use store::partition_removal::{self, DayPartition, UnmanagedPartition};
use store::partitions::State;
use store::{Dataset, PgConnection, outcomes};
use uuid::Uuid;

use crate::Settings;

/// The action of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Drop the whole day.
    Drop,
    /// Remove the day except for its held rows.
    Rewrite,
    /// Do nothing: all rows are held, or the partition is not one that Watchbook manages.
    Keep,
    /// Delete the expired rows of a day.
    Delete,
    /// Delete the oldest lines of a container whose logs exceed the limit.
    Trim,
    /// Merge minutes of outcomes into hours, or remove expired hours.
    Thin,
}

impl Action {
    /// Returns the name, as in plans, metrics and `watchbook.retention_actions`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Rewrite => "rewrite",
            Self::Keep => "keep",
            Self::Delete => "delete",
            Self::Trim => "trim",
            Self::Thin => "thin",
        }
    }
}

/// The rows of an item that one hold keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRows {
    /// The id of the hold.
    pub hold: Uuid,
    /// The reason of the hold.
    pub reason: String,
    /// Rows that it keeps; several holds may keep the same rows.
    pub rows: u64,
}

/// A container whose logs are trimmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The organization of the records; `None` for records without one.
    pub organization_id: Option<String>,
    /// The id of the container.
    pub container_id: String,
}

/// One item of a plan: what a run removes, or keeps although it is expired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// A kind, or `dead_letters`, `metric_hours`, `outcomes` or `outcome_hours`.
    pub kind: String,
    /// The day, or the first day of the month if the kind is partitioned by month.
    pub day: Option<NaiveDate>,
    /// Rows to remove.
    pub rows: u64,
    /// Bytes of these rows, including their part of the indexes; an estimate if only a part of a day is removed. For a
    /// trim, the bytes of the messages.
    pub bytes: u64,
    /// The action.
    pub action: Action,
    /// Rows that stay because they are held.
    pub kept_rows: u64,
    /// The holds that keep them.
    pub held: Vec<HeldRows>,
    /// The container, for a trim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// The time before which rows are deleted or merged; `None` for whole days and trims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<DateTime<Utc>>,
    /// The reason, for people.
    pub why: String,
}

impl Item {
    /// Returns the dataset; `None` if the item concerns outcomes, which are not partitioned by time.
    pub(crate) fn dataset(&self) -> Option<Dataset> {
        Dataset::named(&self.kind)
    }
}

/// The items of a run, in the order of their execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Plan {
    /// The items.
    pub items: Vec<Item>,
}

impl Plan {
    /// Returns the items that change something.
    pub fn changes(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| item.action != Action::Keep)
    }
}

/// Returns the current time for decisions about removal: the earlier of this machine's clock and that of Postgres, so
/// that one clock that is ahead removes nothing.
///
/// # Errors
/// If the query fails.
pub async fn now(connection: &mut PgConnection) -> store::Result<DateTime<Utc>> {
    Ok(store::clock(connection).await?.min(Utc::now()))
}

/// Makes the plan for `now`. Changes nothing. Calls `on_progress` with what is being counted.
///
/// # Errors
/// If a query fails.
pub async fn make(
    connection: &mut PgConnection,
    settings: &Settings,
    now: DateTime<Utc>,
    on_progress: &mut (dyn FnMut(&str) + Send),
) -> store::Result<Plan> {
    let holds = holds::in_force(connection).await?;
    let mut items = Vec::new();
    for dataset in Dataset::all() {
        let Some(cutoff) = settings.cutoff(dataset, now) else { continue };
        for day in partition_removal::list(connection, dataset).await? {
            if day.ends_at <= cutoff {
                on_progress(&format!("{dataset} {}", day.first_day()));
                items.push(expired(connection, &day, &holds, cutoff).await?);
            } else if settings.is_exact(dataset) && day.starts_at < cutoff && day.state == State::Attached {
                on_progress(&format!("{dataset} {}", day.first_day()));
                items.extend(boundary(connection, &day, &holds, cutoff).await?);
            }
        }
        let unmanaged = partition_removal::unmanaged(connection, dataset).await?.into_iter();
        items.extend(unmanaged.filter(|unmanaged| is_left(unmanaged, cutoff)).map(left));
    }
    on_progress("containers");
    let trims = trims(connection, settings, &items).await?;
    items.extend(trims);
    on_progress("outcomes");
    items.extend(thinning(connection, settings, now).await?);
    Ok(Plan { items })
}

/// The `kind` of items that merge minutes of outcomes into hours.
pub(crate) const OUTCOMES: &str = "outcomes";
/// The `kind` of items that remove expired hours of outcomes.
pub(crate) const OUTCOME_HOURS: &str = "outcome_hours";
/// The maximum number of trims in a plan, each of a day of a container. The next plan, minutes later, has the rest.
const MAX_TRIMS: usize = 1_000;
/// The maximum number of candidates that a plan examines: finding their held lines requires reading all lines.
const MAX_EXAMINED: usize = 10_000;

/// Returns by how much containers exceed the limit, by day.
pub(crate) async fn excess(
    connection: &mut PgConnection,
    settings: &Settings,
    kind: Kind,
) -> store::Result<Vec<Excess>> {
    let volumes = log_volumes::load(connection, kind).await?;
    Ok(log_volumes::excess(&volumes, settings.retention.log_bytes_per_container.as_u64()))
}

/// Returns the trims of containers whose logs exceed the limit, their oldest day first, except for days that `items`
/// already drop.
pub(crate) async fn trims(
    connection: &mut PgConnection,
    settings: &Settings,
    items: &[Item],
) -> store::Result<Vec<Item>> {
    let holds = holds::in_force(connection).await?;
    let mut trims = Vec::new();
    for kind in bounded_kinds() {
        let dataset = Dataset::Records(kind);
        let goes = |day: NaiveDate| {
            let is_gone =
                |item: &Item| item.action == Action::Drop && item.dataset() == Some(dataset) && item.day == Some(day);
            items.iter().any(is_gone)
        };
        let mut excess = excess(connection, settings, kind).await?;
        excess.retain(|excess| !goes(excess.day));
        if excess.is_empty() {
            continue;
        }
        let tables = partition_removal::tables(connection, dataset).await?;
        for excess in excess.into_iter().take(MAX_EXAMINED) {
            if trims.len() == MAX_TRIMS {
                break;
            }
            let is_its = |day: &&DayPartition| day.covers(excess.day) && day.state == State::Attached;
            let Some(day) = tables.iter().find(is_its) else { continue };
            let name = day.name.to_string();
            let would = log_volumes::plan_trim(connection, kind, &name, &excess, &ranges(&holds, day)).await?;
            // All lines are held.
            if would.lines == 0 {
                continue;
            }
            trims.push(Item {
                kind: dataset.name().to_owned(),
                day: Some(excess.day),
                rows: would.lines,
                bytes: would.bytes,
                action: Action::Trim,
                kept_rows: 0,
                held: Vec::new(),
                why: format!(
                    "container {} has more than {}",
                    excess.container_id, settings.retention.log_bytes_per_container
                ),
                container: Some(Container {
                    organization_id: excess.organization_id,
                    container_id: excess.container_id,
                }),
                before: None,
            });
        }
    }
    Ok(trims)
}

/// Returns the kinds with a limit on their volume.
fn bounded_kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(|kind| kind.spec().volume.is_some())
}

/// Returns the items that merge minutes of outcomes into hours, and remove expired hours.
async fn thinning(connection: &mut PgConnection, settings: &Settings, now: DateTime<Utc>) -> store::Result<Vec<Item>> {
    let minutes = settings.minutes_cutoff(now);
    let mut items = Vec::new();
    let rows = outcomes::count_minutes(connection, minutes).await?;
    items.extend((rows > 0).then(|| thin(OUTCOMES, rows, minutes, "minutes become hours when they are older than")));
    if let Some(hours) = settings.hours_cutoff(now) {
        let rows = outcomes::count_hours(connection, hours).await?;
        items.extend((rows > 0).then(|| thin(OUTCOME_HOURS, rows, hours, "hours that are older than")));
    }
    Ok(items)
}

fn thin(kind: &str, rows: u64, before: DateTime<Utc>, why: &str) -> Item {
    Item {
        kind: kind.to_owned(),
        day: None,
        rows,
        bytes: 0,
        action: Action::Thin,
        kept_rows: 0,
        held: Vec::new(),
        container: None,
        before: Some(before),
        why: format!("{why} {}", short(before)),
    }
}

/// Returns the holds that may keep rows of a day.
pub(crate) fn relevant<'h>(holds: &'h [Hold], day: &DayPartition) -> impl Iterator<Item = &'h Hold> + use<'h> {
    let (dataset, from, until) = (day.dataset, day.starts_at, day.ends_at);
    holds.iter().filter(move |hold| hold.covers(dataset, from, until))
}

/// Returns the ranges of the holds that may keep rows of a day.
pub(crate) fn ranges(holds: &[Hold], day: &DayPartition) -> Vec<HeldRange> {
    relevant(holds, day).map(Hold::range).collect()
}

/// Returns whether an unmanaged partition may have expired rows, which no run removes.
fn is_left(unmanaged: &UnmanagedPartition, cutoff: DateTime<Utc>) -> bool {
    unmanaged.stays() && unmanaged.starts_at.is_none_or(|starts_at| starts_at < cutoff)
}

/// Returns the item of an unmanaged partition, which stays however old its rows are.
fn left(unmanaged: UnmanagedPartition) -> Item {
    Item {
        kind: unmanaged.dataset.name().to_owned(),
        day: unmanaged.starts_at.map(|starts_at| starts_at.date_naive()),
        rows: 0,
        bytes: 0,
        action: Action::Keep,
        kept_rows: 0,
        held: Vec::new(),
        container: None,
        before: None,
        why: format!("{unmanaged}; see `watchbook doctor`"),
    }
}

/// Returns the item of a day that is expired as a whole.
async fn expired(
    connection: &mut PgConnection,
    day: &DayPartition,
    holds: &[Hold],
    cutoff: DateTime<Utc>,
) -> store::Result<Item> {
    let (all, kept_rows) = count(connection, day, holds, None).await?;
    let action = decide(all, kept_rows);
    let gone = all - kept_rows;
    let why = match action {
        Action::Keep => "all of it is held".to_owned(),
        _ if day.state != State::Attached => {
            format!("older than {}, and taken out by a run that did not end", short(cutoff))
        }
        _ => format!("older than {}", short(cutoff)),
    };
    Ok(Item {
        kind: day.dataset.name().to_owned(),
        day: Some(day.first_day()),
        rows: if action == Action::Keep { 0 } else { gone },
        bytes: match action {
            Action::Keep => 0,
            // An empty day takes disk space too.
            Action::Drop => day.bytes,
            _ => proportion(day.bytes, gone, all),
        },
        action,
        kept_rows,
        held: held(connection, day, holds, None).await?,
        container: None,
        before: None,
        why,
    })
}

/// Returns the item of the day that contains the cutoff; `None` if none of its rows are expired.
async fn boundary(
    connection: &mut PgConnection,
    day: &DayPartition,
    holds: &[Hold],
    cutoff: DateTime<Utc>,
) -> store::Result<Option<Item>> {
    let (old, kept_rows) = count(connection, day, holds, Some(cutoff)).await?;
    if old == 0 {
        return Ok(None);
    }
    let (all, _) = partition_removal::count(connection, day, &[], None).await?;
    Ok(Some(Item {
        kind: day.dataset.name().to_owned(),
        day: Some(day.first_day()),
        rows: old - kept_rows,
        bytes: proportion(day.bytes, old - kept_rows, all),
        action: if old == kept_rows { Action::Keep } else { Action::Delete },
        kept_rows,
        held: held(connection, day, holds, Some(cutoff)).await?,
        container: None,
        before: Some(cutoff),
        why: format!("the part that is older than {}", short(cutoff)),
    }))
}

/// Returns the number of rows of a day, and how many of them are held; with `before`, only of older rows. A day of
/// hourly aggregates is held as a whole, because its rows are not distinguished by organization.
pub(crate) async fn count(
    connection: &mut PgConnection,
    day: &DayPartition,
    holds: &[Hold],
    before: Option<DateTime<Utc>>,
) -> store::Result<(u64, u64)> {
    let ranges = ranges(holds, day);
    if day.dataset.has_records() {
        return partition_removal::count(connection, day, &ranges, before).await;
    }
    let (rows, _) = partition_removal::count(connection, day, &[], before).await?;
    Ok((rows, if ranges.is_empty() { 0 } else { rows }))
}

async fn held(
    connection: &mut PgConnection,
    day: &DayPartition,
    holds: &[Hold],
    before: Option<DateTime<Utc>>,
) -> store::Result<Vec<HeldRows>> {
    let mut found = Vec::new();
    let relevant: Vec<_> = relevant(holds, day).collect();
    for hold in relevant {
        let (_, rows) = count(connection, day, std::slice::from_ref(hold), before).await?;
        if rows > 0 {
            found.push(HeldRows { hold: hold.id, reason: hold.reason.clone(), rows });
        }
    }
    Ok(found)
}

/// Returns the action for an expired day with `all` rows of which `held` are held.
pub(crate) fn decide(all: u64, held: u64) -> Action {
    match held {
        0 => Action::Drop,
        _ if held == all => Action::Keep,
        _ => Action::Rewrite,
    }
}

/// Returns the bytes of `part` out of `all` rows that together take `bytes`.
pub(crate) fn proportion(bytes: u64, part: u64, all: u64) -> u64 {
    let whole = u128::from(all.max(1));
    u64::try_from(u128::from(bytes) * u128::from(part) / whole).unwrap_or(u64::MAX)
}

fn short(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_goes_but_for_what_is_held() {
        assert_eq!(decide(0, 0), Action::Drop);
        assert_eq!(decide(100, 0), Action::Drop);
        assert_eq!(decide(100, 1), Action::Rewrite);
        assert_eq!(decide(100, 99), Action::Rewrite);
        assert_eq!(decide(100, 100), Action::Keep);
    }

    #[test]
    fn bytes_are_shared_by_rows() {
        assert_eq!(proportion(1_000, 25, 100), 250);
        assert_eq!(proportion(8_192, 0, 0), 0);
        assert_eq!(proportion(u64::MAX, u64::MAX, u64::MAX), u64::MAX);
    }
}
