//! The outbox: notifications from when they are due until they are delivered or given up.
//!
//! Any number of notifiers take from it. A claim is a lease on a row until `claimed_until`, by the database's clock.
//! Each claim increments `attempts`, and only the latest claim of a row may write its outcome, so a notifier that
//! returns late changes nothing.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use sqlx::postgres::types::PgInterval;
use uuid::Uuid;

use crate::dead_letters::storable;

/// A notification claimed by this notifier until the lease ends.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Claimed {
    /// Id of the notification, the same for all attempts.
    pub id: Uuid,
    /// Name of the receiver.
    pub receiver: String,
    /// Content, as `alerting::notification::Notification`.
    pub notification: serde_json::Value,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// Number of this attempt, from 1. Identifies the claim together with the claimant's name.
    pub attempts: i32,
    /// Age in seconds by the database's clock, at least 0.
    pub age_seconds: f64,
}

/// Limits of a claim.
#[derive(Debug, Clone, Copy)]
pub struct Bounds<'r> {
    /// Maximum rows.
    pub rows: u32,
    /// Maximum rows of one receiver in flight.
    pub per_receiver: u32,
    /// Receivers of the notifications that this notifier has in flight already, once per notification.
    pub under_way: &'r [String],
    /// Duration of the claim. Must be longer than an attempt can take.
    pub lease: Duration,
}

/// Claims due notifications in order: per group of a receiver only the first unfinished row; and a digest (`*`) is
/// ordered with all rows of its receiver.
///
/// # Errors
/// If the statement fails.
pub async fn claim(connection: &mut PgConnection, claimant: &str, bounds: Bounds<'_>) -> crate::Result<Vec<Claimed>> {
    // One pass over the partial index finds the first rows. Receivers take turns, so that the backlog of one does not
    // delay the others. Between that snapshot and the lock another notifier may have claimed, finished or postponed a
    // row, so the conditions are checked again on the locked version.
    // CTEs are materialized and matched by arrays, because the statistics are outdated when a storm begins: with a join
    // the planner would recompute the whole backlog for each of its rows, which takes minutes.
    sqlx::query_as(
        "WITH unfinished AS MATERIALIZED (
             SELECT id, receiver, position, due_at, claimed_until, group_key,
                    min(position) OVER of_group AS first_of_group,
                    min(position) OVER of_receiver AS first_of_receiver,
                    min(position) FILTER (WHERE group_key = '*') OVER of_receiver AS first_digest
               FROM watchbook.outbox
              WHERE delivered_at IS NULL AND failed_at IS NULL
             WINDOW of_group AS (PARTITION BY receiver, group_key), of_receiver AS (PARTITION BY receiver)
         ), free AS MATERIALIZED (
             SELECT id, receiver, position, row_number() OVER (PARTITION BY receiver ORDER BY position) AS place
               FROM unfinished
              WHERE due_at <= now() AND (claimed_until IS NULL OR claimed_until <= now())
                AND position = first_of_group
                AND CASE WHEN group_key = '*' THEN position = first_of_receiver
                         ELSE first_digest IS NULL OR position < first_digest END
         ), chosen AS MATERIALIZED (
             SELECT id FROM free
              WHERE place <= $4 - cardinality(array_positions($5::text[], receiver))
              ORDER BY place, position LIMIT $3
         ), taken AS MATERIALIZED (
             SELECT id FROM watchbook.outbox
              WHERE id = ANY (ARRAY(SELECT id FROM chosen))
                AND delivered_at IS NULL AND failed_at IS NULL AND due_at <= now()
                AND (claimed_until IS NULL OR claimed_until <= now())
                FOR UPDATE SKIP LOCKED
         )
         UPDATE watchbook.outbox
            SET claimed_by = $1, claimed_until = now() + $2, attempts = attempts + 1
          WHERE id = ANY (ARRAY(SELECT id FROM taken))
         RETURNING id, receiver, notification, created_at, attempts,
                   greatest(0, extract(epoch FROM now() - created_at))::float8 AS age_seconds",
    )
    .bind(claimant)
    .bind(interval(bounds.lease))
    .bind(i64::from(bounds.rows))
    .bind(i64::from(bounds.per_receiver))
    .bind(bounds.under_way)
    .fetch_all(connection)
    .await
}

/// The result of writing the outcome of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimUpdate {
    /// The outcome was written.
    Done,
    /// The notification will be retried at this time.
    Later(DateTime<Utc>),
    /// The delivery period was over, so the notification was given up.
    Failed,
    /// The claim had expired and another notifier claimed the row; nothing was written.
    NotOurs,
}

impl ClaimUpdate {
    fn of(rows: u64) -> Self {
        if rows > 0 { Self::Done } else { Self::NotOurs }
    }
}

/// Marks a notification as delivered.
///
/// # Errors
/// If the statement fails.
pub async fn delivered(connection: &mut PgConnection, claimant: &str, claim: &Claimed) -> crate::Result<ClaimUpdate> {
    let done = sqlx::query(
        "UPDATE watchbook.outbox
            SET delivered_at = now(), problem = NULL, claimed_by = NULL, claimed_until = NULL
          WHERE id = $1 AND claimed_by = $2 AND attempts = $3 AND delivered_at IS NULL AND failed_at IS NULL",
    )
    .bind(claim.id)
    .bind(claimant)
    .bind(claim.attempts)
    .execute(connection)
    .await?;
    Ok(ClaimUpdate::of(done.rows_affected()))
}

/// Postpones a notification by `wait`, or gives it up if it is older than `deliver_within`. The last attempt is at the
/// end of that period, however long `wait` is.
///
/// # Errors
/// If the statement fails.
pub async fn retry_at(
    connection: &mut PgConnection,
    claimant: &str,
    claim: &Claimed,
    wait: Duration,
    deliver_within: Duration,
    problem: &str,
) -> crate::Result<ClaimUpdate> {
    let row: Option<(DateTime<Utc>, bool)> = sqlx::query_as(
        "UPDATE watchbook.outbox
            SET failed_at = CASE WHEN now() >= created_at + $5 THEN now() END,
                due_at = CASE WHEN now() >= created_at + $5 THEN due_at ELSE least(now() + $4, created_at + $5) END,
                problem = $6, claimed_by = NULL, claimed_until = NULL
          WHERE id = $1 AND claimed_by = $2 AND attempts = $3 AND delivered_at IS NULL AND failed_at IS NULL
         RETURNING due_at, failed_at IS NOT NULL",
    )
    .bind(claim.id)
    .bind(claimant)
    .bind(claim.attempts)
    .bind(interval(wait))
    .bind(interval(deliver_within))
    .bind(storable(problem))
    .fetch_optional(connection)
    .await?;
    Ok(match row {
        None => ClaimUpdate::NotOurs,
        Some((_, true)) => ClaimUpdate::Failed,
        Some((due_at, false)) => ClaimUpdate::Later(due_at),
    })
}

/// Gives a notification up. It is kept and shown, and later notifications of its group continue.
///
/// # Errors
/// If the statement fails.
pub async fn give_up(
    connection: &mut PgConnection,
    claimant: &str,
    claim: &Claimed,
    problem: &str,
) -> crate::Result<ClaimUpdate> {
    let done = sqlx::query(
        "UPDATE watchbook.outbox
            SET failed_at = now(), problem = $4, claimed_by = NULL, claimed_until = NULL
          WHERE id = $1 AND claimed_by = $2 AND attempts = $3 AND delivered_at IS NULL AND failed_at IS NULL",
    )
    .bind(claim.id)
    .bind(claimant)
    .bind(claim.attempts)
    .bind(storable(problem))
    .execute(connection)
    .await?;
    Ok(ClaimUpdate::of(done.rows_affected()))
}

/// Releases claims whose attempts were aborted, so that another notifier need not wait for the lease to end. It is
/// unknown whether they arrived, so they are retried with the same id. Returns how many.
///
/// # Errors
/// If the statement fails.
pub async fn release(connection: &mut PgConnection, claimant: &str) -> crate::Result<u64> {
    let released = sqlx::query(
        "UPDATE watchbook.outbox SET claimed_by = NULL, claimed_until = NULL
          WHERE claimed_by = $1 AND delivered_at IS NULL AND failed_at IS NULL",
    )
    .bind(claimant)
    .execute(connection)
    .await?;
    Ok(released.rows_affected())
}

/// Undelivered notifications of a receiver.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow, serde::Serialize)]
pub struct ReceiverSummary {
    /// Name of the receiver.
    pub receiver: String,
    /// Number of notifications neither delivered nor given up.
    pub pending: i64,
    /// Age of the oldest pending notification, in seconds.
    pub oldest_pending_seconds: Option<f64>,
    /// Number of notifications given up and still kept.
    pub failed: i64,
    /// Last problem of the newest pending or failed notification that has one.
    pub problem: Option<String>,
}

/// Returns each receiver with pending or failed notifications.
///
/// # Errors
/// If the query fails.
pub async fn summary(connection: &mut PgConnection) -> crate::Result<Vec<ReceiverSummary>> {
    sqlx::query_as(
        "SELECT receiver, count(*) FILTER (WHERE failed_at IS NULL) AS pending,
                extract(epoch FROM now() - min(created_at) FILTER (WHERE failed_at IS NULL))::float8
                    AS oldest_pending_seconds,
                count(failed_at) AS failed,
                (array_agg(problem ORDER BY position DESC) FILTER (WHERE problem IS NOT NULL))[1] AS problem
           FROM watchbook.outbox WHERE delivered_at IS NULL GROUP BY receiver ORDER BY receiver",
    )
    .fetch_all(connection)
    .await
}

/// Removes notifications delivered or given up longer ago than these periods, at most `limit`. Returns how many.
///
/// # Errors
/// If the statement fails.
pub async fn remove_old(
    connection: &mut PgConnection,
    keep_delivered: Duration,
    keep_failed: Duration,
    limit: u32,
) -> crate::Result<u64> {
    // Rows finish after they are created, so the index on `created_at` finds old ones.
    let removed = sqlx::query(
        "DELETE FROM watchbook.outbox WHERE id IN (
             SELECT id FROM watchbook.outbox
              WHERE created_at < now() - least($1, $2, interval '1 hour')
                AND (delivered_at < now() - $1 OR failed_at < now() - $2
                     -- What is said again every minute is nothing to look up.
                     OR (delivered_at < now() - interval '1 hour' AND notification->>'why' IN ('repeated', 'heartbeat')))
              ORDER BY created_at LIMIT $3 FOR UPDATE SKIP LOCKED)",
    )
    .bind(interval(keep_delivered))
    .bind(interval(keep_failed))
    .bind(i64::from(limit))
    .execute(connection)
    .await?;
    Ok(removed.rows_affected())
}

/// Converts to an interval of whole microseconds, the resolution of Postgres.
fn interval(duration: Duration) -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX) }
}
