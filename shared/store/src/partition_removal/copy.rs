//! What is held of a day, copied beside it until it takes its place.

use std::time::Duration;

use sqlx::{Connection, PgConnection};

use super::DayPartition;
use crate::catalogue::TableName;
use crate::holds::{HeldColumns, HeldRange, is_held};
use crate::partitions::{self, Partition};
use crate::{Dataset, log_volumes};

const COPY_SUFFIX: &str = "_held";
const COPY_BOUNDS: &str = "bounds_of_the_day";

/// Where the day is, under the name that Watchbook gives such a day: one that somebody else gave may be too long for a
/// suffix.
fn copy_name(day: &DayPartition) -> TableName {
    let ours = TableName::ours(&Partition::starting(day.dataset, day.first_day()).name());
    day.name.beside(&format!("{}{COPY_SUFFIX}", ours.relation()))
}

/// The comment of a copy, by which it is found in whatever schema it is.
fn copy_mark(dataset: Dataset) -> String {
    format!("copied by retention: what is held of a day of {}", dataset.table())
}

/// Copies the rows of a day that are held into a table beside it, which can take its place at once: with the same
/// indexes, and with its bounds as a constraint, by which Postgres need not look at the rows. Says how many there are. A
/// copy that was left behind is made anew: the day itself is there until its copy takes its place.
///
/// # Errors
/// Where a statement fails; there is no copy then.
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

/// Removes copies that were left behind. The day that each was made of is there.
///
/// # Errors
/// Where a statement fails.
pub async fn drop_copies(connection: &mut PgConnection, dataset: Dataset) -> crate::Result<()> {
    let (schema, table) = dataset.table().split_once('.').unwrap_or(("public", dataset.table()));
    let copies: Vec<String> = sqlx::query_scalar(
        // Those of releases that made no mark have names of ours.
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

/// Keeps everybody from changing the rows of a day until the transaction ends; they can be read.
///
/// # Errors
/// Where somebody writes to it for longer than the session waits.
pub async fn freeze(transaction: &mut PgConnection, day: &DayPartition) -> crate::Result<()> {
    sqlx::query(&format!("LOCK TABLE {} IN SHARE MODE", day.name)).execute(transaction).await?;
    Ok(())
}

/// How long the lock on a whole table may be waited for: whoever comes behind waits as long. Well below the second
/// after which Postgres looks for deadlocks.
const SWAP_WITHIN: Duration = Duration::from_millis(200);

/// Lets the copy of what is held take the place of a frozen day, in one moment: whoever reads finds the one or the
/// other.
///
/// # Errors
/// Where a statement fails, and where somebody uses the table: the transaction is to be given up, and tried again.
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
