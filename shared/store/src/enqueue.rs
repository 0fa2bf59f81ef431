//! Filling the outbox. What happens to its rows then stands in `outbox`.

use std::time::Duration;

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

/// The group of a digest: ordered with every other group of its receiver.
pub const DIGEST: &str = "*";
/// What is looked back on to tell a storm.
const STORM_SECONDS: f64 = 60.0;

/// A notification for the outbox.
#[derive(Debug, Clone, PartialEq)]
pub struct NewNotification {
    /// Stable over all tries.
    pub id: Uuid,
    /// For whom.
    pub receiver: String,
    /// Rows with the same key go out in their order.
    pub group_key: String,
    /// What is told.
    pub notification: Value,
    /// Not before so long from now, by the database's clock.
    pub wait: Duration,
}

/// A row that nobody has tried to deliver yet, and to which more can be added.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenRow {
    /// Its id.
    pub id: Uuid,
    /// What it tells so far.
    pub notification: Value,
}

/// Adds a notification.
///
/// # Errors
/// Where the statement fails.
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

/// The row of a group that is not due yet and that nobody has touched, locked so that nobody will. None where a
/// digest waits behind it: what is added now must not overtake what that holds.
///
/// # Errors
/// Where the database cannot be asked.
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

/// Whether a notification of a group has not been delivered yet, nor given up.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn is_underway(transaction: &mut PgConnection, receiver: &str, group_key: &str) -> crate::Result<bool> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM watchbook.outbox
                         WHERE receiver = $1 AND group_key = $2 AND delivered_at IS NULL AND failed_at IS NULL)",
    )
    .bind(receiver)
    .bind(group_key)
    .fetch_one(transaction)
    .await
}

/// Replaces what an open row tells.
///
/// # Errors
/// Where the statement fails.
pub async fn replace(transaction: &mut PgConnection, row: &OpenRow) -> crate::Result<()> {
    sqlx::query("UPDATE watchbook.outbox SET notification = $2 WHERE id = $1")
        .bind(row.id)
        .bind(&row.notification)
        .execute(transaction)
        .await?;
    Ok(())
}

/// How many notifications were made for a receiver within the last minute, up to `limit`.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn recent(transaction: &mut PgConnection, receiver: &str, limit: u32) -> crate::Result<u32> {
    let count: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT FROM watchbook.outbox WHERE receiver = $1 AND created_at > now() - make_interval(secs => $2) LIMIT $3) AS recent",
    )
    .bind(receiver)
    .bind(STORM_SECONDS)
    .bind(i64::from(limit))
    .fetch_one(transaction)
    .await?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// How a test or a heartbeat fares: delivered, given up with a problem, or still on its way with the last one.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn fate(connection: &mut PgConnection, id: Uuid) -> crate::Result<Option<Fate>> {
    let found: Option<(bool, bool, Option<String>)> = sqlx::query_as(
        "SELECT delivered_at IS NOT NULL, failed_at IS NOT NULL, problem FROM watchbook.outbox WHERE id = $1",
    )
    .bind(id)
    .fetch_optional(connection)
    .await?;
    Ok(found.map(|(delivered, failed, problem)| match (delivered, failed) {
        (true, _) => Fate::Delivered,
        (_, true) => Fate::GivenUp(problem.unwrap_or_default()),
        _ => Fate::Underway(problem),
    }))
}

/// How a notification fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The receiver has it.
    Delivered,
    /// It will not be tried again.
    GivenUp(String),
    /// It is tried, again with the problem of the last try.
    Underway(Option<String>),
}

/// For how long a digest gathers: half the time by which a storm is told, so two go out a minute.
pub const DIGEST_WAIT: Duration = Duration::from_secs(30);
