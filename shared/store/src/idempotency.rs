//! Keys of requests that were sent with an `Idempotency-Key`.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

/// How long a key is kept. Afterwards the same key counts as new.
const HOURS: i32 = 24;
/// Keys removed per statement, which takes some milliseconds.
const FORGOTTEN_AT_ONCE: i64 = 10_000;

/// The first use of a key.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct StoredKey {
    /// Digest of the body of the first request.
    pub body: Vec<u8>,
    /// Time of the first request.
    pub first_at: DateTime<Utc>,
}

/// Stores a key and returns its first use: this one, or an earlier one within 24 hours.
///
/// # Errors
/// If the statement fails.
pub async fn remember(pool: &PgPool, key: &[u8], body: &[u8]) -> crate::Result<StoredKey> {
    sqlx::query_as(
        "INSERT INTO watchbook.idempotency_keys AS known (key, body, first_at) VALUES ($1, $2, clock_timestamp())
         ON CONFLICT (key) DO UPDATE SET
            body = CASE WHEN known.first_at < now() - make_interval(hours => $3) THEN excluded.body ELSE known.body END,
            first_at = CASE WHEN known.first_at < now() - make_interval(hours => $3)
                            THEN excluded.first_at ELSE known.first_at END
         RETURNING body, first_at",
    )
    .bind(key)
    .bind(body)
    .bind(HOURS)
    .fetch_one(pool)
    .await
}

/// Removes the key of a request that had no effect, unless the key has been used anew since.
///
/// # Errors
/// If the statement fails.
pub async fn take_back(pool: &PgPool, key: &[u8], known: &StoredKey) -> crate::Result<()> {
    sqlx::query("DELETE FROM watchbook.idempotency_keys WHERE key = $1 AND body = $2 AND first_at = $3")
        .bind(key)
        .bind(&known.body)
        .bind(known.first_at)
        .execute(pool)
        .await
        .map(drop)
}

/// Removes keys older than 24 hours, a limited number per call. Returns whether more may be left.
///
/// # Errors
/// If the statement fails.
pub async fn forget(connection: &mut PgConnection) -> crate::Result<bool> {
    let forgotten = sqlx::query(
        "DELETE FROM watchbook.idempotency_keys WHERE key IN (
            SELECT key FROM watchbook.idempotency_keys WHERE first_at < now() - make_interval(hours => $1)
             ORDER BY first_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
    )
    .bind(HOURS)
    .bind(FORGOTTEN_AT_ONCE)
    .execute(connection)
    .await?;
    Ok(forgotten.rows_affected() >= FORGOTTEN_AT_ONCE.unsigned_abs())
}
