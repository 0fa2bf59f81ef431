//! Days as they are removed: counted, copied, detached, dropped. A day is a partition, a month where a table is cut so.
//!
//! Every function is one step that leaves the database whole. In which order they are taken, and what happens after a
//! crash between two of them, stands in `workers/retention`.
//!
//! - here: which days there are, what is in them, and what is left of them
//! - [`detach`]: a day leaves its table, and comes back
//! - [`copy_held`]: what is held of one, copied until it takes its place
//! - [`delete_before`]: the expired part of one, row by row
//! - [`as_json`]: one on its way into an archive, and back

mod copy;
mod delete;
mod detach;
mod json;

use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::{Executor, PgConnection};

pub use self::copy::{copy_held, drop_copies, freeze, replace_by_copy};
pub use self::delete::delete_before;
pub use self::detach::{detach, lock, reattach, state, unlock};
pub use self::json::{as_json, insert_json};
use crate::holds::{HeldColumns, HeldRange, is_held};
use crate::partitions::{Partition, Partitions, State};
use crate::{Database, Dataset, log_volumes, metric_hours};

/// A day of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// Of what.
    pub dataset: Dataset,
    /// The partition.
    pub partition: Partition,
    /// Whether it is one, or was left behind on its way out.
    pub state: State,
    /// Its size on disk, with indexes.
    pub bytes: u64,
}

/// For how long a lock on a table is waited for. Locks on shape queue: whoever comes behind one that waits, waits too.
const LOCK_WITHIN: Duration = Duration::from_secs(2);

/// A session for removing days: it waits for no lock for long, and tells times in UTC.
///
/// # Errors
/// Where the server is away.
pub async fn session(database: &Database) -> crate::Result<PgConnection> {
    let mut connection = database.connect("retention").await?;
    let settings = format!("SET lock_timeout = {}; SET TimeZone = 'UTC'", LOCK_WITHIN.as_millis());
    connection.execute(settings.as_str()).await?;
    Ok(connection)
}

/// What a table's comment says while retention takes it out: so a table that somebody else detached, to keep it, is left
/// alone whatever its name is.
pub(crate) const TAKEN_OUT: &str = "taken out by retention";

/// Every day of a dataset, the oldest first, those that a run left behind as well.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn list(connection: &mut PgConnection, dataset: Dataset) -> crate::Result<Vec<Day>> {
    let (schema, table) = dataset.table().split_once('.').unwrap_or(("public", dataset.table()));
    let digits = if dataset.is_monthly() { 6 } else { 8 };
    let found: Vec<(String, Option<bool>, Option<i64>)> = sqlx::query_as(
        "SELECT class.relname::text, inherits.inhdetachpending, pg_total_relation_size(class.oid)
           FROM pg_class AS class JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
           LEFT JOIN pg_inherits AS inherits ON inherits.inhrelid = class.oid AND inherits.inhparent = to_regclass($1)
          WHERE namespace.nspname = $2 AND class.relkind = 'r' AND class.relname ~ ('^' || $3 || '_[0-9]{' || $4 || '}$')
            AND (inherits.inhdetachpending IS FALSE OR obj_description(class.oid, 'pg_class') = $5)
          ORDER BY class.relname",
    )
    .bind(dataset.table())
    .bind(schema)
    .bind(table)
    .bind(digits)
    .bind(TAKEN_OUT)
    .fetch_all(connection)
    .await?;
    let day = |(name, detaching, bytes): (String, Option<bool>, Option<i64>)| {
        let digits = name.rsplit_once('_')?.1;
        let text = if dataset.is_monthly() { format!("{digits}01") } else { digits.to_owned() };
        Some(Day {
            dataset,
            partition: Partition::starting(dataset, NaiveDate::parse_from_str(&text, "%Y%m%d").ok()?),
            state: match detaching {
                Some(false) => State::Attached,
                Some(true) => State::Detaching,
                None => State::Detached,
            },
            // There is none where somebody has just dropped it.
            bytes: unsigned(bytes?),
        })
    };
    Ok(found.into_iter().filter_map(day).collect())
}

/// How many rows a day has, and how many of them are held. With `before`, only those of an earlier time count.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn count(
    connection: &mut PgConnection,
    day: &Day,
    holds: &[HeldRange],
    before: Option<DateTime<Utc>>,
) -> crate::Result<(u64, u64)> {
    let (name, time) = (day.partition.name(), day.dataset.time_column());
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
pub async fn marks(connection: &mut PgConnection, day: &Day) -> crate::Result<(i64, i64)> {
    if day.dataset != Dataset::DeadLetters {
        return Ok((0, 0));
    }
    sqlx::query_as(&format!("SELECT count(replayed_at), count(discarded_at) FROM {}", day.partition.name()))
        .fetch_one(connection)
        .await
}

/// Makes sure that what is left of a day when it goes finds its place; before [`keep_levels`], outside of a transaction.
///
/// # Errors
/// Where a statement fails.
pub async fn make_room_for_levels(connection: &mut PgConnection, day: &Day) -> crate::Result<()> {
    if day.dataset.has_hours() {
        metric_hours::make_room_for_hours_of(connection, &Partitions::default(), &day.partition.name()).await?;
    }
    Ok(())
}

/// Keeps what is left of a day that goes, but for what is held of it: hourly figures where the dataset has them.
///
/// # Errors
/// Where a statement fails.
pub async fn keep_levels(transaction: &mut PgConnection, day: &Day, held: &[HeldRange]) -> crate::Result<()> {
    if day.dataset.has_hours() {
        metric_hours::keep_hours_of(transaction, &day.partition.name(), held).await?;
    }
    Ok(())
}

/// Drops a day that was taken out.
///
/// # Errors
/// Where a statement fails.
pub async fn drop(transaction: &mut PgConnection, day: &Day) -> crate::Result<()> {
    sqlx::query(&format!("DROP TABLE {}", day.partition.name())).execute(&mut *transaction).await?;
    if let Dataset::Records(kind) = day.dataset {
        log_volumes::remove_day(transaction, kind, day.partition.first_day()).await?;
    }
    Ok(())
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
