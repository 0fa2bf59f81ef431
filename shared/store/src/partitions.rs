//! Partitions: made ahead, and on demand for whatever time a record has.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveTime, Utc};
use records::{Kind, Partitioning};
use sqlx::{Connection, PgConnection};

use crate::Dataset;

/// One partition: the table and its first day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    table: &'static str,
    monthly: bool,
    first_day: NaiveDate,
}

impl Partition {
    /// The partition that takes a record of `kind` at `time`; `None` for a plain table.
    pub fn of(kind: Kind, time: DateTime<Utc>) -> Option<Self> {
        let table = kind.spec().table;
        let day = time.date_naive();
        match kind.spec().partitioning {
            Partitioning::Daily => Some(Self { table, monthly: false, first_day: day }),
            Partitioning::Monthly => Some(Self::of_month(table, day)),
            Partitioning::None => None,
        }
    }

    /// The partition that takes a dead letter that failed at `time`.
    pub fn of_dead_letters(time: DateTime<Utc>) -> Self {
        Self::starting(Dataset::DeadLetters, time.date_naive())
    }

    /// The partition of a dataset that starts with a day.
    pub fn starting(dataset: Dataset, first_day: NaiveDate) -> Self {
        Self { table: dataset.table(), monthly: dataset.is_monthly(), first_day }
    }

    /// The table that it is a part of, with its schema.
    pub fn table(&self) -> &'static str {
        self.table
    }

    /// Its first day.
    pub fn first_day(&self) -> NaiveDate {
        self.first_day
    }

    /// When it begins.
    pub fn starts_at(&self) -> DateTime<Utc> {
        self.first_day.and_time(NaiveTime::MIN).and_utc()
    }

    /// When the next one begins.
    pub fn ends_at(&self) -> DateTime<Utc> {
        self.end().and_time(NaiveTime::MIN).and_utc()
    }

    /// The partition that takes the hour of a container's metrics that begins at `time`.
    pub fn of_metric_hours(time: DateTime<Utc>) -> Self {
        Self::of_month(Dataset::MetricHours.table(), time.date_naive())
    }

    fn of_month(table: &'static str, day: NaiveDate) -> Self {
        Self { table, monthly: true, first_day: day.with_day(1).unwrap_or(day) }
    }

    /// Its name, with the schema: the table's and the day.
    pub fn name(&self) -> String {
        format!("{}_{}", self.table, self.first_day.format(if self.monthly { "%Y%m" } else { "%Y%m%d" }))
    }

    fn end(&self) -> NaiveDate {
        let end = if self.monthly {
            self.first_day.checked_add_months(Months::new(1))
        } else {
            self.first_day.checked_add_days(Days::new(1))
        };
        // Past the last day that the calendar knows nothing comes.
        end.unwrap_or(NaiveDate::MAX)
    }
}

/// The partitions that this process knows to exist, so that it asks the database once for each.
#[derive(Debug, Default)]
pub struct Partitions {
    known: Mutex<HashSet<Partition>>,
}

impl Partitions {
    /// Makes sure that `partition` is there. Never makes a writer of the table wait: a partition is
    /// made beside the table and then attached, which conflicts with no INSERT or COPY.
    ///
    /// # Errors
    /// Where the database cannot be asked, or somebody holds the table's lock for longer than 2 s.
    pub async fn ensure(&self, connection: &mut PgConnection, partition: Partition) -> crate::Result<()> {
        if self.lock().contains(&partition) {
            return Ok(());
        }
        create(connection, partition).await?;
        self.lock().insert(partition);
        Ok(())
    }

    /// Forgets what is known: a row found no partition, so somebody dropped one.
    pub fn forget(&self) {
        self.lock().clear();
    }

    /// Makes the partitions of `kind`, and those of dead letters, for today and some days ahead.
    ///
    /// # Errors
    /// As [`Partitions::ensure`].
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
                self.ensure(connection, partition).await?;
            }
            self.ensure(connection, Partition::of_dead_letters(day)).await?;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<Partition>> {
        // A panic while holding this lock left a whole set behind.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a partition is there.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn exists(connection: &mut PgConnection, partition: Partition) -> crate::Result<bool> {
    Ok(state(connection, partition).await? == State::Attached)
}

/// The advisory lock of a table's partitions: whoever makes, attaches or detaches one holds it.
const ONE_AT_A_TIME: &str = "hashtextextended('watchbook partitions of ' || $1, 0)";

/// Keeps everybody else from making, attaching or detaching partitions of a table, until [`unlock`] or the end of the
/// session. For detaching, which cannot be done in a transaction.
///
/// # Errors
/// Where the database cannot be asked, or somebody else holds it for longer than the session's `lock_timeout`.
pub(crate) async fn lock(connection: &mut PgConnection, table: &str) -> crate::Result<()> {
    sqlx::query(&format!("SELECT pg_advisory_lock({ONE_AT_A_TIME})")).bind(table).execute(connection).await?;
    Ok(())
}

/// Ends [`lock`].
///
/// # Errors
/// Where the database cannot be asked; the lock ends with the session then.
pub(crate) async fn unlock(connection: &mut PgConnection, table: &str) -> crate::Result<()> {
    sqlx::query(&format!("SELECT pg_advisory_unlock({ONE_AT_A_TIME})")).bind(table).execute(connection).await?;
    Ok(())
}

async fn create(connection: &mut PgConnection, partition: Partition) -> crate::Result<()> {
    let (table, name) = (partition.table, partition.name());
    // Without the lock, which whoever takes a day out may hold for a while.
    if exists(connection, partition).await? {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    // Whoever holds the table for longer than this is waited for in the caller's retry, where others
    // are not queued up behind us.
    sqlx::query("SET LOCAL lock_timeout = '2s'").execute(&mut *transaction).await?;
    // One at a time for each table: two processes that make the same partition would fail each other.
    sqlx::query(&format!("SELECT pg_advisory_xact_lock({ONE_AT_A_TIME})"))
        .bind(table)
        .execute(&mut *transaction)
        .await?;
    let attached = exists(&mut transaction, partition).await?;
    if !attached {
        // Names are ours and dates are digits: nothing from outside stands in these statements.
        let create =
            format!("CREATE TABLE IF NOT EXISTS {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)");
        sqlx::query(&create).execute(&mut *transaction).await?;
        attach(&mut transaction, partition).await?;
    }
    transaction.commit().await
}

/// Attaches a table of the partition's name, under the lock on the table's partitions. One that was being detached
/// when whoever did it died is detached first: the rows that arrive for it must not wait for the next clean-up.
pub(crate) async fn attach(connection: &mut PgConnection, partition: Partition) -> crate::Result<()> {
    let (table, name) = (partition.table, partition.name());
    if state(connection, partition).await? == State::Detaching {
        sqlx::query(&format!("ALTER TABLE {table} DETACH PARTITION {name} FINALIZE")).execute(&mut *connection).await?;
    }
    sqlx::query(&format!("COMMENT ON TABLE {name} IS NULL")).execute(&mut *connection).await?;
    let statement = format!(
        "ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{} 00:00:00+00') TO ('{} 00:00:00+00')",
        partition.first_day,
        partition.end()
    );
    sqlx::query(&statement).execute(connection).await?;
    Ok(())
}

/// How a table stands to the one that it is, or was, a partition of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is a partition.
    Attached,
    /// It takes no rows and shows none, and those who read it before may still do so.
    Detaching,
    /// It is a table by itself, or there is none.
    Detached,
}

pub(crate) async fn state(connection: &mut PgConnection, partition: Partition) -> crate::Result<State> {
    let pending: Option<bool> = sqlx::query_scalar(
        "SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = to_regclass($1) AND inhparent = to_regclass($2)",
    )
    .bind(partition.name())
    .bind(partition.table)
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
