//! Days as they are removed: counted, copied, detached, dropped. A day is a partition, a month where a table is cut so. It
//! is known by its bounds: what its name is, and who made it, is no matter.
//!
//! Every function is one step that leaves the database whole. In which order they are taken, and what happens after a
//! crash between two of them, stands in `workers/retention`.
//!
//! - here: which days there are, what is in them, and what is left of them
//! - [`detach`]: a day leaves its table, and comes back
//! - [`copy_held`]: what is held of one, copied until it takes its place
//! - [`delete_before`]: the expired part of one, row by row
//! - [`unmanaged`]: partitions that are no days
//! - [`as_json`]: one on its way into an archive, and back

mod copy;
mod delete;
mod detach;
mod json;
mod unmanaged;

use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveDate, Utc};
use sqlx::{Executor, PgConnection};

pub use self::copy::{copy_held, drop_copies, freeze, replace_by_copy};
pub use self::delete::delete_before;
pub use self::detach::{detach, lock, reattach, state, unlock};
pub use self::json::{as_json, insert_json};
pub use self::unmanaged::{UnmanagedPartition, UnmanagedReason, unmanaged};
use crate::catalogue::{self, Child, Shape, Sizes, TableName, TimeRange};
use crate::holds::{HeldColumns, HeldRange, is_held};
use crate::partitions::{Partition, Partitions, State};
use crate::{Database, Dataset, log_volumes, metric_hours};

/// A day of a dataset; from [`tables`] any stretch of time that a table has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayPartition {
    /// Of what.
    pub dataset: Dataset,
    /// The table that it is.
    pub name: TableName,
    /// When it begins.
    pub starts_at: DateTime<Utc>,
    /// When the next one begins.
    pub ends_at: DateTime<Utc>,
    /// Whether it is one, or was left behind on its way out.
    pub state: State,
    /// Its size on disk, with indexes.
    pub bytes: u64,
}

impl DayPartition {
    /// The date on which it begins, which is its name in plans, archives and records.
    pub fn first_day(&self) -> NaiveDate {
        self.starts_at.date_naive()
    }

    /// Whether its time covers all of a date in UTC.
    pub fn covers(&self, date: NaiveDate) -> bool {
        let day = Partition::starting(Dataset::DeadLetters, date);
        self.starts_at <= day.starts_at() && day.ends_at() <= self.ends_at
    }

    /// Whether it is one day, or one month where its table is cut so: the partition that Watchbook itself would make.
    fn is_whole(&self) -> bool {
        let is_first = !self.dataset.is_monthly() || self.starts_at.day() == 1;
        is_first && Partition::starting(self.dataset, self.first_day()).time() == self.time()
    }

    fn time(&self) -> TimeRange {
        (self.starts_at, self.ends_at)
    }
}

/// For how long a lock on a table is waited for. Locks on shape queue: whoever comes behind one that waits, waits too.
const LOCK_WITHIN: Duration = Duration::from_secs(2);

/// A session for removing days: it waits for no lock for long, and tells times in UTC.
///
/// # Errors
/// Where the server is away.
pub async fn session(database: &Database) -> crate::Result<PgConnection> {
    let mut connection = database.connect("retention").await?;
    // A partition of somebody else may have policies of its own: rows that are not seen must not go as if there were none.
    let settings =
        format!("SET lock_timeout = {}; SET TimeZone = 'UTC'; SET row_security = off", LOCK_WITHIN.as_millis());
    connection.execute(settings.as_str()).await?;
    Ok(connection)
}

/// Every day of a dataset, the oldest first, those that a run left behind as well. What is no whole day is in
/// [`unmanaged`].
///
/// # Errors
/// Where the database cannot be asked.
pub async fn list(connection: &mut PgConnection, dataset: Dataset) -> crate::Result<Vec<DayPartition>> {
    let children = catalogue::children(connection, dataset, Sizes::Known).await?;
    let tables = children.iter().filter(|child| child.shape == Shape::Table && !child.is_default);
    let mut days: Vec<_> = tables.filter_map(|child| attached(dataset, child)).collect();
    days.extend(left_behind(connection, dataset).await?);
    days.retain(DayPartition::is_whole);
    // Where a day was made anew before the one that was left behind was found, that one comes second.
    days.sort_by_key(|day| (day.starts_at, day.state == State::Detached));
    Ok(days)
}

/// Every table that holds rows of a dataset, whatever its bounds are, those that a run left behind as well, the oldest
/// first: for what is done to single rows wherever they are. Foreign tables are not among them.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn tables(connection: &mut PgConnection, dataset: Dataset) -> crate::Result<Vec<DayPartition>> {
    let mut tables = Vec::new();
    for child in catalogue::children(connection, dataset, Sizes::Known).await? {
        match child.shape {
            Shape::Table => tables.extend(attached(dataset, &child)),
            Shape::Partitioned => {
                for (name, bytes) in catalogue::leaves(connection, &child.name).await? {
                    tables.extend(attached(dataset, &Child { name, bytes, ..child.clone() }));
                }
            }
            Shape::Foreign => {}
        }
    }
    tables.extend(left_behind(connection, dataset).await?);
    tables.sort_by_key(|table| (table.starts_at, table.state == State::Detached));
    Ok(tables)
}

/// A child as a day; `None` for one that somebody else is taking out, or has just dropped.
fn attached(dataset: Dataset, child: &Child) -> Option<DayPartition> {
    let state = match (child.is_detaching, child.is_marked) {
        (false, _) => State::Attached,
        (true, true) => State::Detaching,
        (true, false) => return None,
    };
    let (name, (starts_at, ends_at), bytes) = (child.name.clone(), child.time, unsigned(child.bytes?));
    Some(DayPartition { dataset, name, starts_at, ends_at, state, bytes })
}

async fn left_behind(connection: &mut PgConnection, dataset: Dataset) -> crate::Result<Vec<DayPartition>> {
    let leftovers = catalogue::leftovers(connection, dataset).await?.into_iter();
    let day = |leftover: catalogue::Leftover| {
        let (starts_at, ends_at) = leftover.time;
        let bytes = unsigned(leftover.bytes?);
        Some(DayPartition { dataset, name: leftover.name, starts_at, ends_at, state: State::Detached, bytes })
    };
    Ok(leftovers.filter_map(day).collect())
}

/// How many rows a day has, and how many of them are held. With `before`, only those of an earlier time count.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn count(
    connection: &mut PgConnection,
    day: &DayPartition,
    holds: &[HeldRange],
    before: Option<DateTime<Utc>>,
) -> crate::Result<(u64, u64)> {
    let (name, time) = (&day.name, day.dataset.time_column());
    let earlier = if before.is_some() { format!("{time} < $1") } else { "$1::timestamptz IS NULL".to_owned() };
    if holds.is_empty() {
        // Without a look at the rows themselves: an index is enough.
        let rows: i64 = sqlx::query_scalar(&format!("SELECT count(*) FROM {name} WHERE {earlier}"))
            .bind(before)
            .fetch_one(connection)
            .await?;
        return Ok((unsigned(rows), 0));
    }
    let held = is_held(day.dataset, 2);
    let columns = HeldColumns::of(holds);
    let (rows, held): (i64, i64) =
        sqlx::query_as(&format!("SELECT count(*), count(*) FILTER (WHERE {held}) FROM {name} WHERE {earlier}"))
            .bind(before)
            .bind(columns.organizations)
            .bind(columns.from)
            .bind(columns.until)
            .fetch_one(connection)
            .await?;
    Ok((unsigned(rows), unsigned(held)))
}

/// What people change of the rows of a day: of dead letters how many are replayed and how many discarded. Rows of
/// everything else stay as they are, but for erasures, and whoever erases has the right to act.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn marks(connection: &mut PgConnection, day: &DayPartition) -> crate::Result<(i64, i64)> {
    if day.dataset != Dataset::DeadLetters {
        return Ok((0, 0));
    }
    sqlx::query_as(&format!("SELECT count(replayed_at), count(discarded_at) FROM {}", day.name))
        .fetch_one(connection)
        .await
}

/// Makes sure that what is left of a day when it goes finds its place; before [`roll_up`], outside of a transaction.
///
/// # Errors
/// Where a statement fails.
pub async fn ensure_rollup_partitions(connection: &mut PgConnection, day: &DayPartition) -> crate::Result<()> {
    if day.dataset.has_hours() {
        metric_hours::ensure_hour_partitions(connection, &Partitions::default(), &day.name.to_string()).await?;
    }
    Ok(())
}

/// Keeps what is left of a day that goes, but for what is held of it: hourly figures where the dataset has them.
///
/// # Errors
/// Where a statement fails.
pub async fn roll_up(transaction: &mut PgConnection, day: &DayPartition, held: &[HeldRange]) -> crate::Result<()> {
    if day.dataset.has_hours() {
        metric_hours::roll_up_hours(transaction, &day.name.to_string(), held).await?;
    }
    Ok(())
}

/// Drops a day that was taken out.
///
/// # Errors
/// Where a statement fails.
pub async fn drop(transaction: &mut PgConnection, day: &DayPartition) -> crate::Result<()> {
    sqlx::query(&format!("DROP TABLE {}", day.name)).execute(&mut *transaction).await?;
    if let Dataset::Records(kind) = day.dataset {
        log_volumes::remove_day(transaction, kind, day.first_day()).await?;
    }
    Ok(())
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
