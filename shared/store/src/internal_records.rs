//! Internal records: records that Watchbook itself publishes. Stored in the transaction of the change that they
//! describe, and removed once the stream has acknowledged them.

use chrono::{DateTime, Utc};
use records::Kind;
use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

/// An internal record that is not published yet.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct InternalRecord {
    /// Id, which is also in the record, so that publishing it twice stores it once.
    pub id: Uuid,
    /// Kind of the record.
    pub kind: String,
    /// Organization; `None` for none.
    pub organization_id: Option<String>,
    /// The record.
    pub record: Value,
    /// When the change that it describes was made.
    pub created_at: DateTime<Utc>,
}

/// Stores a record to publish. Call it in the transaction of the change that it describes.
///
/// # Errors
/// If the statement fails.
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

/// Returns unpublished records after `after`, oldest first, at most `limit`.
///
/// # Errors
/// If the query fails.
pub async fn oldest(
    connection: &mut PgConnection,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: u32,
) -> crate::Result<Vec<InternalRecord>> {
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

/// Removes a record that the stream has acknowledged.
///
/// # Errors
/// If the statement fails; the record is then published again, and stored once.
pub async fn remove(connection: &mut PgConnection, id: Uuid) -> crate::Result<()> {
    sqlx::query("DELETE FROM watchbook.own_records WHERE id = $1").bind(id).execute(connection).await?;
    Ok(())
}
