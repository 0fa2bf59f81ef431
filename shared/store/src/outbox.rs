//! The outbox: notifications from the moment they are due until they are delivered or given up.
//!
//! Any number of notifiers take from it. A claim is a lease: whoever claimed a row may try it until `claimed_until`,
//! by the database's clock. Each claim counts `attempts` up, and an outcome is written only by the claim that is
//! still the row's last, so a notifier that comes back late changes nothing.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use sqlx::postgres::types::PgInterval;
use uuid::Uuid;

use crate::dead_letters::storable;

/// A notification that is ours to try until the lease is over.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Claimed {
    /// The notification's, stable over all tries.
    pub id: Uuid,
    /// Whom it is for.
    pub receiver: String,
    /// What it says, as `alerting::notification::Notification`.
    pub notification: serde_json::Value,
    /// When it was written.
    pub created_at: DateTime<Utc>,
    /// Which try this is, from 1. Together with the claimant's name it tells this claim from all others.
    pub attempts: i32,
    /// How long ago it was written, in seconds by the database's clock. Not below 0.
    pub age_seconds: f64,
}

/// How much a notifier takes at once.
#[derive(Debug, Clone, Copy)]
pub struct Bounds<'r> {
    /// Rows at the most.
    pub rows: u32,
    /// Rows of one receiver that may be under way at the same time.
    pub per_receiver: u32,
    /// The receivers of what this notifier has under way already, each as often as it has.
    pub under_way: &'r [String],
    /// How long the claim holds. Must be longer than a try may take.
    pub lease: Duration,
}

/// Claims what is due, in order: of each group of a receiver only the first row that is not finished, and around a
/// digest (`*`) one row of that receiver at a time.
///
/// # Errors
/// Where the statement fails.
pub async fn claim(connection: &mut PgConnection, claimant: &str, bounds: Bounds<'_>) -> crate::Result<Vec<Claimed>> {
    // One pass over the partial index says which rows are first, and they are taken in turn, so that the backlog of
    // one receiver does not keep all others waiting. Between that snapshot and the lock another notifier may have
    // claimed, finished or postponed a row, so what makes it free is asked again of the locked version.
    // Materialized and by arrays, because the table's statistics are of yesterday when a storm begins: by a join the
    // planner then computes the whole backlog anew for each of its rows, and takes minutes.
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

/// What became of a claim when its outcome was to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is written.
    Done,
    /// It is to be tried again, at this time.
    Later(DateTime<Utc>),
    /// Its time was over: it is given up.
    GivenUp,
    /// The claim was over and somebody else has the row, or had it: nothing was written.
    NotOurs,
}

impl Written {
    fn of(rows: u64) -> Self {
        if rows > 0 { Self::Done } else { Self::NotOurs }
    }
}

/// Marks a notification as delivered.
///
/// # Errors
/// Where the statement fails.
pub async fn delivered(connection: &mut PgConnection, claimant: &str, claim: &Claimed) -> crate::Result<Written> {
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
    Ok(Written::of(done.rows_affected()))
}

/// Postpones a notification by `wait`, or gives it up where it is older than `deliver_within`. The last try falls
/// on the end of that time, however long `wait` is.
///
/// # Errors
/// Where the statement fails.
pub async fn retry_at(
    connection: &mut PgConnection,
    claimant: &str,
    claim: &Claimed,
    wait: Duration,
    deliver_within: Duration,
    problem: &str,
) -> crate::Result<Written> {
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
        None => Written::NotOurs,
        Some((_, true)) => Written::GivenUp,
        Some((due_at, false)) => Written::Later(due_at),
    })
}

/// Gives a notification up: it is kept and shown, and what comes after it goes on.
///
/// # Errors
/// Where the statement fails.
pub async fn give_up(
    connection: &mut PgConnection,
    claimant: &str,
    claim: &Claimed,
    problem: &str,
) -> crate::Result<Written> {
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
    Ok(Written::of(done.rows_affected()))
}

/// Lets go of claims whose tries were broken off, so that another notifier need not wait for the lease. Whether they
/// arrived is not known: they are tried again under the same id.
///
/// # Errors
/// Where the statement fails.
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

/// How the notifications of a receiver stand.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow, serde::Serialize)]
pub struct ReceiverSummary {
    /// Its name.
    pub receiver: String,
    /// Neither delivered nor given up.
    pub pending: i64,
    /// How old the oldest of these is, in seconds.
    pub oldest_pending_seconds: Option<f64>,
    /// Given up, of those that are still kept.
    pub failed: i64,
    /// What the newest pending or failed one met last.
    pub problem: Option<String>,
}

/// Each receiver that has something pending or given up.
///
/// # Errors
/// Where the database cannot be asked.
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

/// Removes what was delivered or given up so long ago, `limit` rows at the most, and says how many.
///
/// # Errors
/// Where the statement fails.
pub async fn remove_old(
    connection: &mut PgConnection,
    keep_delivered: Duration,
    keep_failed: Duration,
    limit: u32,
) -> crate::Result<u64> {
    // Nothing is finished before it is created, so the index on that finds what is old enough.
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

/// Whole microseconds, which is what Postgres keeps.
fn interval(duration: Duration) -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX) }
}
