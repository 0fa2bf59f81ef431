//! Adding notifications to the outbox. The module `outbox` delivers them.

use std::time::Duration;

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

/// The group key of a digest, which is ordered with every other group of its receiver.
pub const DIGEST: &str = "*";
/// Time window in which notifications are counted to detect a storm.
const DIGEST_WINDOW_SECONDS: f64 = 60.0;

/// A notification for the outbox.
#[derive(Debug, Clone, PartialEq)]
pub struct NewNotification {
    /// Id, the same for all attempts.
    pub id: Uuid,
    /// Name of the receiver.
    pub receiver: String,
    /// Group key. Notifications with the same key are delivered in order.
    pub group_key: String,
    /// The notification.
    pub notification: Value,
    /// Delay before the first attempt, by the database's clock.
    pub wait: Duration,
}

/// A notification without a delivery attempt, which can still be extended.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenRow {
    /// Id.
    pub id: Uuid,
    /// Its content so far.
    pub notification: Value,
}

/// Adds a notification.
///
/// # Errors
/// If the statement fails.
pub async fn insert(transaction: &mut PgConnection, new: &NewNotification) -> crate::Result<()> {
    sqlx::query(
        "INSERT INTO watchbook.outbox (id, receiver, group_key, notification, created_at, due_at)
         VALUES ($1, $2, $3, $4, now(), now() + make_interval(secs => $5))",
    )
    .bind(new.id)
    .bind(&new.receiver)
    .bind(&new.group_key)
    .bind(&new.notification)
    .bind(new.wait.as_secs_f64())
    .execute(transaction)
    .await?;
    Ok(())
}

/// Returns and locks the notification of a group that is not due yet and has no attempt. `None` if a digest follows it:
/// an addition must not overtake the content of the digest.
///
/// # Errors
/// If the query fails.
pub async fn open_row(
    transaction: &mut PgConnection,
    receiver: &str,
    group_key: &str,
) -> crate::Result<Option<OpenRow>> {
    let found: Option<(Uuid, Value)> = sqlx::query_as(
        "SELECT id, notification FROM watchbook.outbox AS open
          WHERE receiver = $1 AND group_key = $2 AND delivered_at IS NULL AND failed_at IS NULL
            AND attempts = 0 AND claimed_until IS NULL AND due_at > now()
            AND NOT EXISTS (SELECT FROM watchbook.outbox AS later
                             WHERE later.receiver = $1 AND later.group_key = '*' AND later.position > open.position
                               AND later.delivered_at IS NULL AND later.failed_at IS NULL)
          ORDER BY position DESC LIMIT 1 FOR UPDATE SKIP LOCKED",
    )
    .bind(receiver)
    .bind(group_key)
    .fetch_optional(transaction)
    .await?;
    Ok(found.map(|(id, notification)| OpenRow { id, notification }))
}

/// Returns whether a group has a notification that is neither delivered nor given up.
///
/// # Errors
/// If the query fails.
pub async fn is_pending(transaction: &mut PgConnection, receiver: &str, group_key: &str) -> crate::Result<bool> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM watchbook.outbox
                         WHERE receiver = $1 AND group_key = $2 AND delivered_at IS NULL AND failed_at IS NULL)",
    )
    .bind(receiver)
    .bind(group_key)
    .fetch_one(transaction)
    .await
}

/// Replaces the content of an open notification.
///
/// # Errors
/// If the statement fails.
pub async fn replace(transaction: &mut PgConnection, row: &OpenRow) -> crate::Result<()> {
    sqlx::query("UPDATE watchbook.outbox SET notification = $2 WHERE id = $1")
        .bind(row.id)
        .bind(&row.notification)
        .execute(transaction)
        .await?;
    Ok(())
}

/// Returns how many notifications were created for a receiver within the last minute, up to `limit`.
///
/// # Errors
/// If the query fails.
pub async fn recent(transaction: &mut PgConnection, receiver: &str, limit: u32) -> crate::Result<u32> {
    let count: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT FROM watchbook.outbox WHERE receiver = $1 AND created_at > now() - make_interval(secs => $2) LIMIT $3) AS recent",
    )
    .bind(receiver)
    .bind(DIGEST_WINDOW_SECONDS)
    .bind(i64::from(limit))
    .fetch_one(transaction)
    .await?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Returns the delivery state of a notification; `None` if it is not in the outbox.
///
/// # Errors
/// If the query fails.
pub async fn delivery_status(connection: &mut PgConnection, id: Uuid) -> crate::Result<Option<DeliveryStatus>> {
    let found: Option<(bool, bool, Option<String>)> = sqlx::query_as(
        "SELECT delivered_at IS NOT NULL, failed_at IS NOT NULL, problem FROM watchbook.outbox WHERE id = $1",
    )
    .bind(id)
    .fetch_optional(connection)
    .await?;
    Ok(found.map(|(delivered, failed, problem)| match (delivered, failed) {
        (true, _) => DeliveryStatus::Delivered,
        (_, true) => DeliveryStatus::Failed(problem.unwrap_or_default()),
        _ => DeliveryStatus::Pending(problem),
    }))
}

/// The delivery state of a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryStatus {
    /// The receiver accepted it.
    Delivered,
    /// It was given up, with the problem of the last attempt.
    Failed(String),
    /// It is pending, with the problem of the last attempt, if any.
    Pending(Option<String>),
}

/// How long a digest collects alerts: half of the storm window, so that two digests per minute are sent.
pub const DIGEST_WAIT: Duration = Duration::from_secs(30);
