//! A day leaves its table, and comes back to it.

use sqlx::{Executor, PgConnection};

use super::DayPartition;
use crate::partitions::{self, State};
use crate::{Dataset, catalogue};

/// Keeps everybody else from changing which days a dataset has, until [`unlock`] or the end of the session.
///
/// # Errors
/// Where somebody else holds the lock for longer than the session waits.
pub async fn lock(connection: &mut PgConnection, dataset: Dataset) -> crate::Result<()> {
    partitions::lock(connection, dataset.table()).await
}

/// Ends [`lock`].
///
/// # Errors
/// Where the database does not answer; the lock is gone then.
pub async fn unlock(connection: &mut PgConnection, dataset: Dataset) -> crate::Result<()> {
    partitions::unlock(connection, dataset.table()).await
}

/// How a day stands now.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn state(connection: &mut PgConnection, day: &DayPartition) -> crate::Result<State> {
    partitions::state(connection, day.dataset, &day.name).await
}

/// Takes a day out of its table, from whatever state it is in. Writers and readers go on meanwhile: new ones do not see
/// the day any more, and those who read it already are waited for. Outside of a transaction, under [`lock`].
///
/// # Errors
/// Where somebody reads the table for longer than the session waits. The day may be on its way out then: try again.
pub async fn detach(connection: &mut PgConnection, day: &DayPartition) -> crate::Result<()> {
    let (table, name) = (day.dataset.table(), &day.name);
    // Postgres lets one day at a time be on its way out, and one that was left so is in the way of all others.
    if let Some(pending) = pending(connection, table).await? {
        execute(connection, &format!("ALTER TABLE {table} DETACH PARTITION {pending} FINALIZE")).await?;
    }
    if state(connection, day).await? == State::Detached {
        return Ok(());
    }
    execute(connection, &format!("COMMENT ON TABLE {name} IS '{}'", catalogue::mark(day.dataset, day.time()))).await?;
    // Postgres refuses to do it concurrently where somebody added a partition for everything else.
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

/// By itself and without a transaction around it, which detaching concurrently asks for: in the simple protocol.
async fn execute(connection: &mut PgConnection, statement: &str) -> crate::Result<()> {
    connection.execute(statement).await?;
    Ok(())
}

/// Puts a day back that was taken out, under [`lock`].
///
/// # Errors
/// Where a statement fails; the next run tries again.
pub async fn reattach(connection: &mut PgConnection, day: &DayPartition) -> crate::Result<()> {
    match state(connection, day).await? {
        State::Attached => Ok(()),
        State::Detaching | State::Detached => partitions::attach(connection, day.dataset, &day.name, day.time()).await,
    }
}
