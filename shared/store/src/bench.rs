//! Statements that only benchmarks need.

use chrono::{DateTime, Utc};
use records::{Kind, row};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::batch::copy_statement;

/// Copies pieces of rows into a kind's table with one COPY: what Postgres can take when nothing else is asked of it.
///
/// # Errors
/// Where the COPY fails.
pub async fn copy_pieces(connection: &mut PgConnection, kind: Kind, pieces: &[Vec<u8>]) -> crate::Result<()> {
    let mut copy = connection.copy_in_raw(copy_statement(kind)).await?;
    copy.send(row::HEADER).await?;
    for piece in pieces {
        copy.send(piece.as_slice()).await?;
    }
    copy.send(row::TRAILER).await?;
    copy.finish().await?;
    Ok(())
}

/// Empties a kind's table and forgets its counts and its position.
///
/// # Errors
/// Where a statement fails.
pub async fn empty_kind(connection: &mut PgConnection, kind: Kind) -> crate::Result<()> {
    sqlx::query(&format!("TRUNCATE {}", kind.spec().table)).execute(&mut *connection).await?;
    sqlx::query("DELETE FROM watchbook.outcome_minutes WHERE kind = $1")
        .bind(kind.name())
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM watchbook.positions WHERE kind = $1").bind(kind.name()).execute(connection).await?;
    Ok(())
}

/// Writes out what is dirty, so that the next measurement does not pay for the last one.
///
/// # Errors
/// Where the user may not.
pub async fn checkpoint(connection: &mut PgConnection) -> crate::Result<()> {
    sqlx::query("CHECKPOINT").execute(connection).await?;
    Ok(())
}

/// Whether a record is in its table.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn has_row(
    connection: &mut PgConnection,
    kind: Kind,
    created_at: DateTime<Utc>,
    id: Uuid,
) -> crate::Result<bool> {
    let statement = format!("SELECT EXISTS (SELECT FROM {} WHERE created_at = $1 AND id = $2)", kind.spec().table);
    sqlx::query_scalar(&statement).bind(created_at).bind(id).fetch_one(connection).await
}
