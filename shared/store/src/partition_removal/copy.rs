//! Copies the held rows of a day into a table that then replaces the day.

use std::time::Duration;

use sqlx::{Connection, PgConnection};

use super::DayPartition;
use crate::catalogue::TableName;
use crate::holds::{HeldColumns, HeldRange, is_held};
use crate::partitions::{self, Partition};
use crate::{Dataset, log_volumes};

const COPY_SUFFIX: &str = "_held";
const COPY_BOUNDS: &str = "bounds_of_the_day";

/// Returns the name of the copy. It is built from the name that Watchbook gives such a day: a name that somebody else
/// chose may be too long for a suffix.
fn copy_name(day: &DayPartition) -> TableName {
    let ours = TableName::ours(&Partition::starting(day.dataset, day.first_day()).name());
    day.name.beside(&format!("{}{COPY_SUFFIX}", ours.relation()))
}

/// Returns the comment that marks a copy, by which it is found in any schema.
fn copy_mark(dataset: Dataset) -> String {
    format!("copied by retention: what is held of a day of {}", dataset.table())
}

/// Copies the held rows of a day into a table beside it, and returns their number. The copy is ready to replace the
/// day: it has the same indexes, and the bounds as a constraint, so that Postgres need not scan the rows when it is
/// attached. A leftover copy is replaced: the day itself exists until its copy replaces it.
///
/// # Errors
/// If a statement fails; there is no copy then.
pub async fn copy_held(connection: &mut PgConnection, day: &DayPartition, holds: &[HeldRange]) -> crate::Result<u64> {
    let (name, copy, time) = (&day.name, copy_name(day), day.dataset.time_column());
    let held = is_held(day.dataset, 1);
    let columns = HeldColumns::of(holds);
    let mut transaction = connection.begin().await?;
    sqlx::query(&format!("DROP TABLE IF EXISTS {copy}")).execute(&mut *transaction).await?;
    let create = format!(
        "CREATE TABLE {copy} (LIKE {name} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES,
             CONSTRAINT {COPY_BOUNDS} CHECK ({time} IS NOT NULL AND {time} >= '{}' AND {time} < '{}'))",
        day.starts_at, day.ends_at
    );
    sqlx::query(&create).execute(&mut *transaction).await?;
    let mark = format!("COMMENT ON TABLE {copy} IS '{}'", copy_mark(day.dataset));
    sqlx::query(&mark).execute(&mut *transaction).await?;
    let copied = sqlx::query(&format!("INSERT INTO {copy} SELECT * FROM {name} WHERE {held}"))
        .bind(columns.organizations)
        .bind(columns.from)
        .bind(columns.until)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(copied.rows_affected())
}

/// Drops leftover copies. The day that each was copied from still exists.
///
/// # Errors
/// If a statement fails.
pub async fn drop_copies(connection: &mut PgConnection, dataset: Dataset) -> crate::Result<()> {
    let (schema, table) = dataset.table().split_once('.').unwrap_or(("public", dataset.table()));
    let copies: Vec<String> = sqlx::query_scalar(
        // Releases that did not mark copies named them after Watchbook's partitions.
        "SELECT format('%I.%I', nspname, relname)
           FROM pg_class AS class JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
          WHERE relkind = 'r' AND NOT relispartition
            AND (nspname = $1 AND relname ~ ('^' || $2 || '_[0-9]+' || $3 || '$') OR obj_description(class.oid, 'pg_class') = $4)",
    )
    .bind(schema)
    .bind(table)
    .bind(COPY_SUFFIX)
    .bind(copy_mark(dataset))
    .fetch_all(&mut *connection)
    .await?;
    for copy in copies {
        sqlx::query(&format!("DROP TABLE {copy}")).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Locks the rows of a day against changes until the transaction ends. They can still be read.
///
/// # Errors
/// If somebody writes to the day for longer than the session's `lock_timeout`.
pub async fn freeze(transaction: &mut PgConnection, day: &DayPartition) -> crate::Result<()> {
    sqlx::query(&format!("LOCK TABLE {} IN SHARE MODE", day.name)).execute(transaction).await?;
    Ok(())
}

/// How long to wait for the lock on the whole table: everybody who queues behind it waits as long. Well below the
/// second after which Postgres checks for deadlocks.
const SWAP_WITHIN: Duration = Duration::from_millis(200);

/// Replaces a frozen day by the copy of its held rows, atomically: readers see one or the other.
///
/// # Errors
/// If a statement fails, or if the table is in use: roll the transaction back and try again.
pub async fn replace_by_copy(transaction: &mut PgConnection, day: &DayPartition) -> crate::Result<()> {
    let (table, name) = (day.dataset.table(), &day.name);
    sqlx::query(&format!("SET LOCAL lock_timeout = {}", SWAP_WITHIN.as_millis())).execute(&mut *transaction).await?;
    sqlx::query(&format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")).execute(&mut *transaction).await?;
    sqlx::query(&format!("DROP TABLE {name}")).execute(&mut *transaction).await?;
    sqlx::query(&format!("ALTER TABLE {} RENAME TO {}", copy_name(day), name.relation()))
        .execute(&mut *transaction)
        .await?;
    partitions::attach(&mut *transaction, day.dataset, name, day.time()).await?;
    sqlx::query(&format!("ALTER TABLE {name} DROP CONSTRAINT {COPY_BOUNDS}")).execute(&mut *transaction).await?;
    if let Dataset::Records(kind) = day.dataset {
        log_volumes::recount_day(transaction, kind, &name.to_string(), day.first_day()).await?;
    }
    Ok(())
}
