//! Creates partitions: ahead of time, and on demand for the time of any record.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveTime, Utc};
use records::{Kind, Partitioning};
use sqlx::{Connection, PgConnection};

use crate::Dataset;
use crate::catalogue::{self, Sizes, TableName, TimeRange, gaps};

/// One partition, identified by its dataset and its first day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    dataset: Dataset,
    first_day: NaiveDate,
}

impl Partition {
    /// Returns the partition for a record of `kind` at `time`; `None` if the table is not partitioned.
    pub fn of(kind: Kind, time: DateTime<Utc>) -> Option<Self> {
        let is_cut = !matches!(kind.spec().partitioning, Partitioning::None);
        is_cut.then(|| Self::holding(Dataset::Records(kind), time.date_naive()))
    }

    /// Returns the partition for a dead letter that failed at `time`.
    pub fn of_dead_letters(time: DateTime<Utc>) -> Self {
        Self::holding(Dataset::DeadLetters, time.date_naive())
    }

    /// Returns the partition of a dataset that starts on a day.
    pub fn starting(dataset: Dataset, first_day: NaiveDate) -> Self {
        Self { dataset, first_day }
    }

    /// Returns the name of the parent table, with its schema.
    pub fn table(&self) -> &'static str {
        self.dataset.table()
    }

    /// Returns its first day.
    pub fn first_day(&self) -> NaiveDate {
        self.first_day
    }

    /// Returns its start.
    pub fn starts_at(&self) -> DateTime<Utc> {
        self.first_day.and_time(NaiveTime::MIN).and_utc()
    }

    /// Returns its exclusive end, which is the start of the next partition.
    pub fn ends_at(&self) -> DateTime<Utc> {
        self.end().and_time(NaiveTime::MIN).and_utc()
    }

    /// Returns the partition for the hour of a container's metrics that starts at `time`.
    pub fn of_metric_hours(time: DateTime<Utc>) -> Self {
        Self::holding(Dataset::MetricHours, time.date_naive())
    }

    fn holding(dataset: Dataset, day: NaiveDate) -> Self {
        let first_day = if dataset.is_monthly() { day.with_day(1).unwrap_or(day) } else { day };
        Self { dataset, first_day }
    }

    /// Returns the name that Watchbook gives it, with the schema: the table's name and the day or month. Partitions
    /// that somebody else created may have other names.
    pub fn name(&self) -> String {
        format!("{}_{}", self.table(), self.first_day.format(if self.dataset.is_monthly() { "%Y%m" } else { "%Y%m%d" }))
    }

    pub(crate) fn time(&self) -> TimeRange {
        (self.starts_at(), self.ends_at())
    }

    fn end(&self) -> NaiveDate {
        let end = if self.dataset.is_monthly() {
            self.first_day.checked_add_months(Months::new(1))
        } else {
            self.first_day.checked_add_days(Days::new(1))
        };
        // There is nothing after the last day that the calendar supports.
        end.unwrap_or(NaiveDate::MAX)
    }
}

/// The partitions that this process knows to exist, so that it queries the database once for each.
#[derive(Debug, Default)]
pub struct Partitions {
    known: Mutex<HashSet<Partition>>,
}

impl Partitions {
    /// Ensures that partitions cover the whole time of `partition`, whatever their names and bounds are: if somebody
    /// created one for a part of it, others are created for the rest. Never blocks writers of the table: a partition
    /// is created beside the table and then attached, which conflicts with neither INSERT nor COPY.
    ///
    /// # Errors
    /// If a statement fails, or if the table is locked for longer than 2 s.
    pub async fn ensure(&self, connection: &mut PgConnection, partition: Partition) -> crate::Result<()> {
        self.ensure_with(connection, partition, Cut::Filled).await
    }

    async fn ensure_with(&self, connection: &mut PgConnection, partition: Partition, cut: Cut) -> crate::Result<()> {
        if self.lock().contains(&partition) {
            return Ok(());
        }
        create(connection, partition, cut).await?;
        self.lock().insert(partition);
        Ok(())
    }

    /// Clears the cache: a row found no partition, so somebody dropped one.
    pub fn forget(&self) {
        self.lock().clear();
    }

    /// Creates the partitions of `kind` and of dead letters for today and the next `days` days.
    ///
    /// # Errors
    /// As [`Partitions::ensure`], and if there is a partition for only a part of such a day: somebody can still
    /// correct that before the first record needs the rest.
    pub async fn ensure_ahead(
        &self,
        connection: &mut PgConnection,
        kind: Kind,
        now: DateTime<Utc>,
        days: u32,
    ) -> crate::Result<()> {
        for ahead in 0..=u64::from(days) {
            let Some(day) = now.checked_add_days(Days::new(ahead)) else { break };
            if let Some(partition) = Partition::of(kind, day) {
                self.ensure_with(connection, partition, Cut::Refused).await?;
            }
            self.ensure_with(connection, Partition::of_dead_letters(day), Cut::Refused).await?;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<Partition>> {
        // No panic can leave the set half changed, so a poisoned lock can be used.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether partitions cover the whole time of `partition`, whatever their names and bounds are. A DEFAULT
/// partition does not count.
///
/// # Errors
/// If the query fails.
pub async fn exists(connection: &mut PgConnection, partition: Partition) -> crate::Result<bool> {
    Ok(uncovered(connection, partition).await?.is_empty())
}

/// Returns the parts of a partition's time that no partition covers.
async fn uncovered(connection: &mut PgConnection, partition: Partition) -> crate::Result<Vec<TimeRange>> {
    let children = catalogue::children(connection, partition.dataset, Sizes::Unasked).await?;
    let takes_rows = children.iter().filter(|child| !child.is_default && !child.is_detaching);
    Ok(gaps(partition.time(), takes_rows.map(|child| child.time)))
}

/// The key of the advisory lock on a table's partitions, held while one is created, attached or detached.
const ONE_AT_A_TIME: &str = "hashtextextended('watchbook partitions of ' || $1, 0)";

/// Prevents every other session from creating, attaching or detaching partitions of a table, until [`unlock`] or the
/// end of the session. For detaching, which cannot run in a transaction.
///
/// # Errors
/// If the statement fails, or if another session holds the lock for longer than this session's `lock_timeout`.
pub(crate) async fn lock(connection: &mut PgConnection, table: &str) -> crate::Result<()> {
    sqlx::query(&format!("SELECT pg_advisory_lock({ONE_AT_A_TIME})")).bind(table).execute(connection).await?;
    Ok(())
}

/// Releases [`lock`].
///
/// # Errors
/// If the statement fails; the lock then ends with the session.
pub(crate) async fn unlock(connection: &mut PgConnection, table: &str) -> crate::Result<()> {
    sqlx::query(&format!("SELECT pg_advisory_unlock({ONE_AT_A_TIME})")).bind(table).execute(connection).await?;
    Ok(())
}

/// What to do if there is a partition for only a part of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Create partitions for the rest.
    Filled,
    /// Fail with the error of Postgres, which names the conflicting partition.
    Refused,
}

async fn create(connection: &mut PgConnection, partition: Partition, cut: Cut) -> crate::Result<()> {
    // First without the lock, which the removal of a day may hold for a while.
    if exists(connection, partition).await? {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    // A longer wait for the table's lock happens in the caller's retries, where others do not queue up behind this
    // session.
    sqlx::query("SET LOCAL lock_timeout = '2s'").execute(&mut *transaction).await?;
    // One session at a time for each table: two that create the same partition would make each other fail.
    sqlx::query(&format!("SELECT pg_advisory_xact_lock({ONE_AT_A_TIME})"))
        .bind(partition.table())
        .execute(&mut *transaction)
        .await?;
    if !exists(&mut transaction, partition).await? {
        reattach_leftover(&mut transaction, partition).await?;
        let mut gaps = uncovered(&mut transaction, partition).await?;
        if cut == Cut::Refused && !gaps.is_empty() {
            gaps = vec![partition.time()];
        }
        for gap in gaps {
            if !default_has(&mut transaction, partition.dataset, gap).await? {
                make(&mut transaction, partition, gap).await?;
            }
        }
    }
    transaction.commit().await
}

/// Reattaches tables that retention has detached or is detaching from a partition's time: arriving rows must not wait
/// for the next retention run. What somebody else is detaching is only waited for, and stays detached.
async fn reattach_leftover(transaction: &mut PgConnection, partition: Partition) -> crate::Result<()> {
    let (dataset, (from, until)) = (partition.dataset, partition.time());
    for child in catalogue::children(transaction, dataset, Sizes::Unasked).await? {
        if child.is_detaching && child.time.0 < until && child.time.1 > from {
            finalize(transaction, dataset, &child.name).await?;
        }
    }
    for leftover in catalogue::leftovers(transaction, dataset).await? {
        let children = catalogue::children(transaction, dataset, Sizes::Unasked).await?;
        let is_free = gaps(leftover.time, children.into_iter().map(|child| child.time)) == [leftover.time];
        if leftover.time.0 < until && leftover.time.1 > from && is_free {
            attach(transaction, dataset, &leftover.name, leftover.time).await?;
        }
    }
    Ok(())
}

/// Returns whether the DEFAULT partition has rows of a time range. Postgres then accepts no partition for that range,
/// so its rows go to the DEFAULT partition too.
async fn default_has(
    transaction: &mut PgConnection,
    dataset: Dataset,
    (from, until): TimeRange,
) -> crate::Result<bool> {
    let children = catalogue::children(transaction, dataset, Sizes::Unasked).await?;
    let Some(default) = children.into_iter().find(|child| child.is_default) else { return Ok(false) };
    let (name, time) = (default.name, dataset.time_column());
    sqlx::query_scalar(&format!("SELECT EXISTS (SELECT FROM {name} WHERE {time} >= $1 AND {time} < $2)"))
        .bind(from)
        .bind(until)
        .fetch_one(transaction)
        .await
}

/// The number of names that are tried for a partition. Another one is used only if the usual name is taken by
/// something else.
const NAMES: u8 = 9;

/// Creates a partition for a gap, which is the whole time of the partition unless somebody created one for the rest.
async fn make(transaction: &mut PgConnection, partition: Partition, gap: TimeRange) -> crate::Result<()> {
    let (table, is_whole) = (partition.table(), gap == partition.time());
    let name =
        if is_whole { partition.name() } else { format!("{}_{}", partition.name(), gap.0.format("%d%H%M%S%6f")) };
    let names = std::iter::once(name.clone()).chain((2..=NAMES).map(|number| format!("{name}_{number}")));
    for name in names {
        // A plain table with this name was detached by somebody, and is reattached to take its rows.
        let in_use: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass($1) AND (relispartition OR relkind <> 'r' OR NOT $2))",
        )
        .bind(&name)
        .bind(is_whole)
        .fetch_one(&mut *transaction)
        .await?;
        if in_use {
            continue;
        }
        // Names come from the code and dates are digits: nothing in these statements comes from outside.
        let create =
            format!("CREATE TABLE IF NOT EXISTS {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)");
        sqlx::query(&create).execute(&mut *transaction).await?;
        return attach(transaction, partition.dataset, &TableName::ours(&name), gap).await;
    }
    let problem =
        format!("{name}, and {name}_2 to {name}_{NAMES}, are all taken by something else: rename one of them");
    Err(sqlx::Error::Configuration(problem.into()))
}

/// Attaches a table, under the lock on the table's partitions. If a detach was interrupted, it is finished first.
pub(crate) async fn attach(
    connection: &mut PgConnection,
    dataset: Dataset,
    name: &TableName,
    (from, until): TimeRange,
) -> crate::Result<()> {
    if state(connection, dataset, name).await? == State::Detaching {
        finalize(connection, dataset, name).await?;
    }
    sqlx::query(&format!("COMMENT ON TABLE {name} IS NULL")).execute(&mut *connection).await?;
    let statement =
        format!("ALTER TABLE {} ATTACH PARTITION {name} FOR VALUES FROM ('{from}') TO ('{until}')", dataset.table());
    sqlx::query(&statement).execute(connection).await?;
    Ok(())
}

/// Finishes a pending detach.
pub(crate) async fn finalize(connection: &mut PgConnection, dataset: Dataset, name: &TableName) -> crate::Result<()> {
    let statement = format!("ALTER TABLE {} DETACH PARTITION {name} FINALIZE", dataset.table());
    sqlx::query(&statement).execute(connection).await?;
    Ok(())
}

/// The relation of a table to its current or former parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is a partition.
    Attached,
    /// A detach is pending: it accepts no rows and shows none, but queries that were already reading it may continue.
    Detaching,
    /// It is a plain table, or does not exist.
    Detached,
}

pub(crate) async fn state(connection: &mut PgConnection, dataset: Dataset, name: &TableName) -> crate::Result<State> {
    let pending: Option<bool> = sqlx::query_scalar(
        "SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = to_regclass($1) AND inhparent = to_regclass($2)",
    )
    .bind(name.to_string())
    .bind(dataset.table())
    .fetch_optional(connection)
    .await?;
    Ok(match pending {
        Some(false) => State::Attached,
        Some(true) => State::Detaching,
        None => State::Detached,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_named_after_their_first_day() {
        let time = DateTime::parse_from_rfc3339("2026-12-31T23:59:59.999999+00:00").unwrap().to_utc();
        let daily = Partition::of(Kind::Events, time).unwrap();
        assert_eq!(daily.name(), "watchbook.event_logs_20261231");
        assert_eq!(daily.end().to_string(), "2027-01-01");
        let monthly = Partition::of(Kind::Audit, time).unwrap();
        assert_eq!(monthly.name(), "control_plane.audit_logs_202612");
        assert_eq!(monthly.end().to_string(), "2027-01-01");
        assert_eq!(Partition::of(Kind::Directory, time), None);
        assert_eq!(Partition::of_dead_letters(time).name(), "watchbook.dead_letters_20261231");
        assert_eq!(Partition::of_metric_hours(time).name(), "watchbook.container_metric_hours_202612");
    }
}
