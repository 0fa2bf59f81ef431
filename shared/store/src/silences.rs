//! Silences of alerts.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

/// A silence: while it matches an alert, no firing notification is sent.
#[derive(Debug, Clone, PartialEq, FromRow, Serialize, utoipa::ToSchema)]
#[schema(as = Silence)]
pub struct SilenceRow {
    /// Id.
    pub id: Uuid,
    /// Matchers; all must match.
    pub matchers: Value,
    /// Start.
    pub starts_at: DateTime<Utc>,
    /// End.
    pub ends_at: DateTime<Utc>,
    /// Days and hours between start and end; null for always.
    pub recurrence: Option<Value>,
    /// Who added it.
    pub created_by: String,
    /// Reason.
    pub reason: String,
    /// When it was added.
    pub created_at: DateTime<Utc>,
    /// When it was ended early.
    pub ended_at: Option<DateTime<Utc>>,
}

const COLUMNS: &str = "id, matchers, starts_at, ends_at, recurrence, created_by, reason, created_at, ended_at";

/// Returns silences that have not ended at `now`, including future ones.
///
/// # Errors
/// If the query fails.
pub async fn current(connection: &mut PgConnection, now: DateTime<Utc>) -> crate::Result<Vec<SilenceRow>> {
    let statement = format!(
        "SELECT {COLUMNS} FROM watchbook.silences WHERE ends_at > $1 AND ended_at IS NULL ORDER BY starts_at, id"
    );
    sqlx::query_as(&statement).bind(now).fetch_all(connection).await
}

/// Returns all silences, newest first, at most `limit`.
///
/// # Errors
/// If the query fails.
pub async fn all(connection: &mut PgConnection, limit: i64) -> crate::Result<Vec<SilenceRow>> {
    let statement = format!("SELECT {COLUMNS} FROM watchbook.silences ORDER BY created_at DESC, id LIMIT $1");
    sqlx::query_as(&statement).bind(limit).fetch_all(connection).await
}

/// Adds a silence.
///
/// # Errors
/// If the statement fails.
pub async fn insert(connection: &mut PgConnection, silence: &SilenceRow) -> crate::Result<()> {
    sqlx::query(
        "INSERT INTO watchbook.silences (id, matchers, starts_at, ends_at, recurrence, created_by, reason, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(silence.id)
    .bind(&silence.matchers)
    .bind(silence.starts_at)
    .bind(silence.ends_at)
    .bind(&silence.recurrence)
    .bind(&silence.created_by)
    .bind(&silence.reason)
    .bind(silence.created_at)
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends a silence early. Returns `false` if it does not exist or has ended.
///
/// # Errors
/// If the statement fails.
pub async fn end(connection: &mut PgConnection, id: Uuid, by: &str, now: DateTime<Utc>) -> crate::Result<bool> {
    let ended = sqlx::query(
        "UPDATE watchbook.silences SET ended_at = $3, ended_by = $2 WHERE id = $1 AND ended_at IS NULL AND ends_at > $3",
    )
    .bind(id)
    .bind(by)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(ended.rows_affected() > 0)
}

/// Removes silences whose `ends_at` is before `before`. Returns how many.
///
/// # Errors
/// If the statement fails.
pub async fn remove_ended(connection: &mut PgConnection, before: DateTime<Utc>) -> crate::Result<u64> {
    let removed =
        sqlx::query("DELETE FROM watchbook.silences WHERE ends_at < $1").bind(before).execute(connection).await?;
    Ok(removed.rows_affected())
}
