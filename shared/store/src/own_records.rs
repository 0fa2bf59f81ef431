//! Records that Watchbook itself has to publish: written with what they tell of, removed once the stream has them.

use chrono::{DateTime, Utc};
use records::Kind;
use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

/// A record on its way to its stream.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct OwnRecord {
    /// Its id, which is in the record as well: published twice it is stored once.
    pub id: Uuid,
    /// Its kind.
    pub kind: String,
    /// Whose; `None` for nobody's.
    pub organization_id: Option<String>,
    /// The record.
    pub record: Value,
    /// When what it tells of was done.
    pub created_at: DateTime<Utc>,
}

/// Writes a record that has to be published, in the transaction of what it tells of.
///
/// # Errors
/// Where the statement fails.
pub async fn insert(
    transaction: &mut PgConnection,
    id: Uuid,
    kind: Kind,
    organization_id: Option<&str>,
    record: &Value,
    created_at: DateTime<Utc>,
) -> crate::Result<()> {
    sqlx::query(
        "INSERT INTO watchbook.own_records (id, kind, organization_id, record, created_at) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(id)
    .bind(kind.name())
    .bind(organization_id)
    .bind(record)
    .bind(created_at)
    .execute(transaction)
    .await?;
    Ok(())
}

/// The oldest records that are still to be published, of those behind `after`, `limit` at the most.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn oldest(
    connection: &mut PgConnection,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: u32,
) -> crate::Result<Vec<OwnRecord>> {
    let (after_time, after_id) = after.unwrap_or((DateTime::UNIX_EPOCH, Uuid::nil()));
    sqlx::query_as(
        "SELECT id, kind, organization_id, record, created_at FROM watchbook.own_records
          WHERE created_at >= $1 AND (created_at, id) > ($1, $2) ORDER BY created_at, id LIMIT $3",
    )
    .bind(after_time)
    .bind(after_id)
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await
}

/// Forgets a record that the stream has.
///
/// # Errors
/// Where the statement fails; it is published again then, and stored once.
pub async fn remove(connection: &mut PgConnection, id: Uuid) -> crate::Result<()> {
    sqlx::query("DELETE FROM watchbook.own_records WHERE id = $1").bind(id).execute(connection).await?;
    Ok(())
}
