//! Outcome roll-ups: records and failed records per kind, organization and minute. Old minutes are merged into hours.
//! Each record is counted at one of the two levels, so the sum over both is always exact.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use records::Kind;
use records::rollup::{CANARY_EVENT, MinuteGroups};
use records::subject::NO_ORGANIZATION;
use sqlx::PgConnection;

use crate::Steps;

/// Counts of one minute and organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutcomeMinute {
    /// The minute.
    pub minute: DateTime<Utc>,
    /// The organization; `_` for none.
    pub organization_id: String,
    /// Number of new records.
    pub total: u64,
    /// Number of failed records among them.
    pub failed: u64,
}

/// Returns the counts per minute and organization over all groups except the canary, which is not user traffic.
pub fn of(kind: Kind, minutes: &[(DateTime<Utc>, MinuteGroups<'_>)]) -> Vec<OutcomeMinute> {
    let labels = kind.spec().labels.len() + 1;
    let event_type = kind.spec().labels.iter().position(|label| label.name() == "event_type");
    let mut counts: BTreeMap<(DateTime<Utc>, &str), (u64, u64)> = BTreeMap::new();
    for (minute, groups) in minutes {
        for group in 0..groups.len() {
            let organization = groups.organization(group, labels);
            let is_canary = organization == NO_ORGANIZATION
                && event_type.is_some_and(|label| groups.label(group, label + 1, labels) == Some(CANARY_EVENT));
            if is_canary {
                continue;
            }
            let count = |counts: &[u32]| counts.get(group).copied().map_or(0, u64::from);
            let (total, failed) = counts.entry((*minute, organization)).or_default();
            *total += count(&groups.total);
            *failed += count(&groups.failed);
        }
    }
    counts
        .into_iter()
        .map(|((minute, organization), (total, failed))| OutcomeMinute {
            minute,
            organization_id: organization.to_owned(),
            total,
            failed,
        })
        .collect()
}

/// Adds to the roll-ups. Each lane has its own rows.
///
/// # Errors
/// If the statement fails.
pub async fn add(
    connection: &mut PgConnection,
    kind: Kind,
    lane: u16,
    outcomes: &[OutcomeMinute],
) -> crate::Result<()> {
    if outcomes.is_empty() {
        return Ok(());
    }
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    sqlx::query(
        "INSERT INTO watchbook.outcome_minutes AS known (kind, minute, organization_id, lane, total, failed)
         SELECT $1, minute, organization_id, $2, total, failed
           FROM unnest($3::timestamptz[], $4::text[], $5::bigint[], $6::bigint[]) AS new (minute, organization_id, total, failed)
          ORDER BY minute, organization_id
             ON CONFLICT (kind, minute, organization_id, lane)
             DO UPDATE SET total = known.total + excluded.total, failed = known.failed + excluded.failed",
    )
    .bind(kind.name())
    .bind(i16::try_from(lane).unwrap_or(i16::MAX))
    .bind(outcomes.iter().map(|outcome| outcome.minute).collect::<Vec<_>>())
    .bind(outcomes.iter().map(|outcome| outcome.organization_id.as_str()).collect::<Vec<_>>())
    .bind(outcomes.iter().map(|outcome| count(outcome.total)).collect::<Vec<_>>())
    .bind(outcomes.iter().map(|outcome| count(outcome.failed)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns new records per second over the last full minute and the current one.
///
/// # Errors
/// If the query fails.
pub async fn rate(connection: &mut PgConnection, kind: Kind, now: DateTime<Utc>) -> crate::Result<f64> {
    let into_minute = TimeDelta::microseconds(now.timestamp_micros().rem_euclid(60_000_000));
    let since = now - into_minute - TimeDelta::minutes(1);
    let total: i64 = sqlx::query_scalar(
        "SELECT coalesce(sum(total), 0)::bigint FROM watchbook.outcome_minutes WHERE kind = $1 AND minute >= $2",
    )
    .bind(kind.name())
    .bind(since)
    .fetch_one(connection)
    .await?;
    Ok(total as f64 / (now - since).as_seconds_f64())
}

/// Merges minutes before the hour of `before` into hours, at most `limit` rows of one kind, in one statement. Returns
/// how many minute rows were merged; 0 if none is left. Concurrent calls are safe, and minutes that arrive late are
/// added to their hour by a later call.
///
/// # Errors
/// If the statement fails; nothing is changed then.
pub async fn thin(connection: &mut PgConnection, before: DateTime<Utc>, limit: u32) -> crate::Result<u64> {
    for kind in Kind::ALL {
        let taken = thin_kind(connection, *kind, before, limit).await?;
        if taken > 0 {
            return Ok(taken);
        }
    }
    Ok(0)
}

/// Merges minutes of one kind. The primary key starts with the kind, so its oldest minutes come first.
async fn thin_kind(connection: &mut PgConnection, kind: Kind, before: DateTime<Utc>, limit: u32) -> crate::Result<u64> {
    // A row that is updated concurrently is skipped and left for a later call.
    let taken: i64 = sqlx::query_scalar(
        "WITH old AS (
             SELECT ctid FROM watchbook.outcome_minutes
              WHERE kind = $1 AND minute < date_trunc('hour', $2, 'UTC')
              ORDER BY minute LIMIT $3 FOR UPDATE SKIP LOCKED
         ), taken AS (
             DELETE FROM watchbook.outcome_minutes WHERE ctid = ANY (ARRAY(SELECT ctid FROM old))
             RETURNING date_trunc('hour', minute, 'UTC') AS hour, organization_id, total, failed
         ), kept AS (
             INSERT INTO watchbook.outcome_hours AS known (kind, hour, organization_id, total, failed)
             SELECT $1, hour, organization_id, sum(total), sum(failed) FROM taken
              GROUP BY hour, organization_id ORDER BY hour, organization_id
                 ON CONFLICT (kind, hour, organization_id)
                 DO UPDATE SET total = known.total + excluded.total, failed = known.failed + excluded.failed
         )
         SELECT count(*) FROM taken",
    )
    .bind(kind.name())
    .bind(before)
    .bind(i64::from(limit))
    .fetch_one(connection)
    .await?;
    Ok(taken.unsigned_abs())
}

/// Returns how many minute rows [`thin`] would merge.
///
/// # Errors
/// If the query fails.
pub async fn count_minutes(connection: &mut PgConnection, before: DateTime<Utc>) -> crate::Result<u64> {
    count(connection, "outcome_minutes", "minute", before).await
}

/// Returns how many hours [`remove_hours`] would remove.
///
/// # Errors
/// If the query fails.
pub async fn count_hours(connection: &mut PgConnection, before: DateTime<Utc>) -> crate::Result<u64> {
    count(connection, "outcome_hours", "hour", before).await
}

/// Counts rows before a time. Names all kinds, because the primary keys start with the kind.
async fn count(connection: &mut PgConnection, table: &str, column: &str, before: DateTime<Utc>) -> crate::Result<u64> {
    let kinds: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    let rows: i64 = sqlx::query_scalar(&format!(
        "SELECT count(*) FROM watchbook.{table} WHERE kind = ANY ($1) AND {column} < date_trunc('hour', $2, 'UTC')"
    ))
    .bind(kinds)
    .bind(before)
    .fetch_one(connection)
    .await?;
    Ok(rows.unsigned_abs())
}

/// Removes hours before the hour of `before`, at most `limit`. Returns how many.
///
/// # Errors
/// If the statement fails.
pub async fn remove_hours(connection: &mut PgConnection, before: DateTime<Utc>, limit: u32) -> crate::Result<u64> {
    let kinds: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    let removed = sqlx::query(
        "DELETE FROM watchbook.outcome_hours WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM watchbook.outcome_hours WHERE kind = ANY ($1) AND hour < date_trunc('hour', $2, 'UTC') LIMIT $3))",
    )
    .bind(kinds)
    .bind(before)
    .bind(i64::from(limit))
    .execute(connection)
    .await?;
    Ok(removed.rows_affected())
}

/// Counts of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutcomePoint {
    /// Start of the step. For hourly counts the start of the hour, which may be before the first step.
    pub at: DateTime<Utc>,
    /// Length of time that it covers: a step, or the length of its level if that is longer.
    pub width: TimeDelta,
    /// Number of new records.
    pub total: u64,
    /// Number of failed records among them.
    pub failed: u64,
}

/// Returns the counts of a kind per step, in order, for all or these organizations (`_` for none). Omits steps without
/// records. If steps are shorter than an hour, each hourly count is one point.
///
/// # Errors
/// If the query fails.
pub async fn series(
    connection: &mut PgConnection,
    kind: Kind,
    organizations: Option<&[String]>,
    steps: &Steps,
) -> crate::Result<Vec<OutcomePoint>> {
    let points: Vec<(DateTime<Utc>, i64, i64, i64)> = sqlx::query_as(
        "SELECT date_bin($3, at, $4), extract(epoch FROM max(greatest(width, $3)))::bigint,
                sum(total)::bigint, sum(failed)::bigint
           FROM watchbook.outcomes
          WHERE kind = $1 AND ($2::text[] IS NULL OR organization_id = ANY ($2))
            AND at >= $5 AND at < $6 AND at + width > $7
          GROUP BY 1 ORDER BY 1",
    )
    .bind(kind.name())
    .bind(organizations)
    .bind(steps.step())
    .bind(Steps::origin())
    .bind(steps.first_hour())
    .bind(steps.to())
    .bind(steps.from())
    .fetch_all(connection)
    .await?;
    let points = points.into_iter().map(|(at, seconds, total, failed)| OutcomePoint {
        at,
        width: TimeDelta::seconds(seconds),
        total: total.unsigned_abs(),
        failed: failed.unsigned_abs(),
    });
    Ok(points.collect())
}
