//! Removes days: counts, copies, detaches and drops them. A day is a partition, or a month if the table is partitioned
//! by month. It is recognized by its bounds: its name and its creator do not matter.
//!
//! Every function is one step that leaves the database consistent. The order of the steps, and the recovery from a
//! crash between two of them, is in `workers/retention`.
//!
//! - here: lists days, counts their rows, and rolls up what outlives them
//! - [`detach`]: detaches a day and reattaches it
//! - [`copy_held`]: copies the held rows of a day, and replaces the day by the copy
//! - [`delete_before`]: deletes the expired part of a day, row by row
//! - [`unmanaged`]: lists partitions that are not days
//! - [`as_json`]: converts a day to JSON for an archive, and back

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

/// A day of a dataset. From [`tables`], a table with any time range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayPartition {
    /// The dataset.
    pub dataset: Dataset,
    /// The name of its table.
    pub name: TableName,
    /// Its start.
    pub starts_at: DateTime<Utc>,
    /// Its exclusive end.
    pub ends_at: DateTime<Utc>,
    /// Whether it is attached, or was left behind while being detached.
    pub state: State,
    /// Its size on disk in bytes, with indexes.
    pub bytes: u64,
}

impl DayPartition {
    /// Returns the date on which it starts, which identifies it in plans, archives and records.
    pub fn first_day(&self) -> NaiveDate {
        self.starts_at.date_naive()
    }

    /// Returns whether it covers all of a date in UTC.
    pub fn covers(&self, date: NaiveDate) -> bool {
        let day = Partition::starting(Dataset::DeadLetters, date);
        self.starts_at <= day.starts_at() && day.ends_at() <= self.ends_at
    }

    /// Returns whether it is one day, or one month if the table is partitioned by month: the partition that Watchbook
    /// itself would create.
    fn is_whole(&self) -> bool {
        let is_first = !self.dataset.is_monthly() || self.starts_at.day() == 1;
        is_first && Partition::starting(self.dataset, self.first_day()).time() == self.time()
    }

    fn time(&self) -> TimeRange {
        (self.starts_at, self.ends_at)
    }
}

/// The `lock_timeout`. DDL locks queue: every statement behind a waiting one waits too.
const LOCK_WITHIN: Duration = Duration::from_secs(2);

/// Opens a session for removing days, with a short `lock_timeout` and the time zone UTC.
///
/// # Errors
/// If the server is unavailable.
pub async fn session(database: &Database) -> crate::Result<PgConnection> {
    let mut connection = database.connect("retention").await?;
    // A partition that somebody else created may have its own policies. Rows that they hide must not be dropped as if
    // there were none, so Postgres reports an error instead.
    let settings =
        format!("SET lock_timeout = {}; SET TimeZone = 'UTC'; SET row_security = off", LOCK_WITHIN.as_millis());
    connection.execute(settings.as_str()).await?;
    Ok(connection)
}

/// Returns every day of a dataset, oldest first, including those that a run left detached. Partitions that are not
/// whole days are in [`unmanaged`].
///
/// # Errors
/// If a query fails.
pub async fn list(connection: &mut PgConnection, dataset: Dataset) -> crate::Result<Vec<DayPartition>> {
    let children = catalogue::children(connection, dataset, Sizes::Known).await?;
    let tables = children.iter().filter(|child| child.shape == Shape::Table && !child.is_default);
    let mut days: Vec<_> = tables.filter_map(|child| attached(dataset, child)).collect();
    days.extend(left_behind(connection, dataset).await?);
    days.retain(DayPartition::is_whole);
    // If a day was created again before its leftover was found, the leftover sorts second.
    days.sort_by_key(|day| (day.starts_at, day.state == State::Detached));
    Ok(days)
}

/// Returns every table that holds rows of a dataset, whatever its bounds are, oldest first, including those that a run
/// left detached. For changes to single rows wherever they are. Foreign tables are left out.
///
/// # Errors
/// If a query fails.
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

/// Returns a child as a day; `None` if somebody else is detaching it or has just dropped it.
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

/// Returns the number of rows of a day, and how many of them are held. With `before`, counts only rows before that
/// time.
///
/// # Errors
/// If the query fails.
pub async fn count(
    connection: &mut PgConnection,
    day: &DayPartition,
    holds: &[HeldRange],
    before: Option<DateTime<Utc>>,
) -> crate::Result<(u64, u64)> {
    let (name, time) = (&day.name, day.dataset.time_column());
    let earlier = if before.is_some() { format!("{time} < $1") } else { "$1::timestamptz IS NULL".to_owned() };
    if holds.is_empty() {
        // Without the hold condition, an index-only scan is enough.
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

/// Returns the number of replayed and of discarded dead letters of a day, which are the only changes that people make
/// to rows. Rows of other datasets do not change except by erasures, which run under the same lease.
///
/// # Errors
/// If the query fails.
pub async fn marks(connection: &mut PgConnection, day: &DayPartition) -> crate::Result<(i64, i64)> {
    if day.dataset != Dataset::DeadLetters {
        return Ok((0, 0));
    }
    sqlx::query_as(&format!("SELECT count(replayed_at), count(discarded_at) FROM {}", day.name))
        .fetch_one(connection)
        .await
}

/// Creates the partitions for what outlives a day. Call it before [`roll_up`], outside of a transaction.
///
/// # Errors
/// If a statement fails.
pub async fn ensure_rollup_partitions(connection: &mut PgConnection, day: &DayPartition) -> crate::Result<()> {
    if day.dataset.has_hours() {
        metric_hours::ensure_hour_partitions(connection, &Partitions::default(), &day.name.to_string()).await?;
    }
    Ok(())
}

/// Stores what outlives a day, without its held rows: hourly values if the dataset has them.
///
/// # Errors
/// If a statement fails.
pub async fn roll_up(transaction: &mut PgConnection, day: &DayPartition, held: &[HeldRange]) -> crate::Result<()> {
    if day.dataset.has_hours() {
        metric_hours::roll_up_hours(transaction, &day.name.to_string(), held).await?;
    }
    Ok(())
}

/// Drops a detached day.
///
/// # Errors
/// If a statement fails.
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
