//! Detaches a day from its table, and reattaches it.

use sqlx::{Executor, PgConnection};

use super::DayPartition;
use crate::partitions::{self, State};
use crate::{Dataset, catalogue};

/// Prevents every other session from changing the partitions of a dataset, until [`unlock`] or the end of the session.
///
/// # Errors
/// If another session holds the lock for longer than this session's `lock_timeout`.
pub async fn lock(connection: &mut PgConnection, dataset: Dataset) -> crate::Result<()> {
    partitions::lock(connection, dataset.table()).await
}

/// Releases [`lock`].
///
/// # Errors
/// If the database is unavailable; the lock is then released.
pub async fn unlock(connection: &mut PgConnection, dataset: Dataset) -> crate::Result<()> {
    partitions::unlock(connection, dataset.table()).await
}

/// Returns the current state of a day.
///
/// # Errors
/// If the query fails.
pub async fn state(connection: &mut PgConnection, day: &DayPartition) -> crate::Result<State> {
    partitions::state(connection, day.dataset, &day.name).await
}

/// Detaches a day from its table, whatever its state is. Writers and readers are not blocked: new statements do not
/// see the day, and the detach waits for those that already read it. Call it outside of a transaction, under [`lock`].
///
/// # Errors
/// If somebody reads the table for longer than the session's `lock_timeout`. The detach may then be pending: try
/// again.
pub async fn detach(connection: &mut PgConnection, day: &DayPartition) -> crate::Result<()> {
    let (table, name) = (day.dataset.table(), &day.name);
    // Postgres allows one pending detach for each table. An interrupted one would block all others.
    if let Some(pending) = pending(connection, table).await? {
        execute(connection, &format!("ALTER TABLE {table} DETACH PARTITION {pending} FINALIZE")).await?;
    }
    if state(connection, day).await? == State::Detached {
        return Ok(());
    }
    execute(connection, &format!("COMMENT ON TABLE {name} IS '{}'", catalogue::mark(day.dataset, day.time()))).await?;
    // Postgres does not detach concurrently if there is a DEFAULT partition.
    let concurrently = if has_default(connection, table).await? { "" } else { "CONCURRENTLY" };
    execute(connection, &format!("ALTER TABLE {table} DETACH PARTITION {name} {concurrently}")).await
}

async fn pending(connection: &mut PgConnection, table: &str) -> crate::Result<Option<String>> {
    sqlx::query_scalar(
        "SELECT format('%I.%I', namespace.nspname, class.relname)
           FROM pg_inherits JOIN pg_class AS class ON class.oid = inhrelid JOIN pg_namespace AS namespace ON namespace.oid = relnamespace
          WHERE inhparent = to_regclass($1) AND inhdetachpending",
    )
    .bind(table)
    .fetch_optional(connection)
    .await
}

async fn has_default(connection: &mut PgConnection, table: &str) -> crate::Result<bool> {
    sqlx::query_scalar("SELECT partdefid <> 0 FROM pg_partitioned_table WHERE partrelid = to_regclass($1)")
        .bind(table)
        .fetch_one(connection)
        .await
}

/// Runs one statement in the simple protocol, without a transaction around it, as a concurrent detach requires.
async fn execute(connection: &mut PgConnection, statement: &str) -> crate::Result<()> {
    connection.execute(statement).await?;
    Ok(())
}

/// Reattaches a detached day, under [`lock`].
///
/// # Errors
/// If a statement fails; the next run tries again.
pub async fn reattach(connection: &mut PgConnection, day: &DayPartition) -> crate::Result<()> {
    match state(connection, day).await? {
        State::Attached => Ok(()),
        State::Detaching | State::Detached => partitions::attach(connection, day.dataset, &day.name, day.time()).await,
    }
}
