//! Roll-ups: how many records of a kind happened in a minute, and how many of them failed. What is old is kept by
//! the hour; a count is at one of the two levels, so whoever sums over both is always right.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use records::Kind;
use records::rollup::{CANARY_EVENT, MinuteGroups};
use records::subject::NO_ORGANIZATION;
use sqlx::PgConnection;

use crate::Steps;

/// Records of one minute and organization, as the roll-ups count them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutcomeMinute {
    /// The minute.
    pub minute: DateTime<Utc>,
    /// The organization, `_` for none.
    pub organization_id: String,
    /// New records.
    pub total: u64,
    /// Those of them that are failures.
    pub failed: u64,
}

/// The counts of each minute and organization, of all groups but the canary: nobody's traffic is in it.
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

/// Adds to the roll-ups, in the rows of `lane`.
///
/// # Errors
/// Where the statement fails.
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

/// New records a second, over the last minute and what has passed of this one.
///
/// # Errors
/// Where the database cannot be asked.
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

/// Makes hours of minutes that are before the hour of `before`: `limit` rows of one kind at the most, in one statement.
/// Returns how many rows of minutes went; none where nothing is left to do. Two at once do not disturb each
/// other, and what comes late for an hour is added to it the next time.
///
/// # Errors
/// Where the statement fails; nothing is changed then.
pub async fn thin(connection: &mut PgConnection, before: DateTime<Utc>, limit: u32) -> crate::Result<u64> {
    for kind in Kind::ALL {
        let taken = thin_kind(connection, *kind, before, limit).await?;
        if taken > 0 {
            return Ok(taken);
        }
    }
    Ok(0)
}

/// Kind by kind, because the primary key begins with it: the oldest minutes are its first entries.
async fn thin_kind(connection: &mut PgConnection, kind: Kind, before: DateTime<Utc>, limit: u32) -> crate::Result<u64> {
    // What is added to a row meanwhile is not seen by this statement, and the row is left for the next one.
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

/// How many rows of minutes [`thin`] would take.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn count_minutes(connection: &mut PgConnection, before: DateTime<Utc>) -> crate::Result<u64> {
    count(connection, "outcome_minutes", "minute", before).await
}

/// How many hours [`remove_hours`] would remove.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn count_hours(connection: &mut PgConnection, before: DateTime<Utc>) -> crate::Result<u64> {
    count(connection, "outcome_hours", "hour", before).await
}

/// Kind by kind, as the primary keys begin.
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

/// Removes hours that are before the hour of `before`, `limit` at the most. Returns how many went.
///
/// # Errors
/// Where the statement fails.
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

/// Records of a step, as the roll-ups count them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutcomePoint {
    /// Where it begins: of what is kept by the hour, the hour, which may begin before the first step.
    pub at: DateTime<Utc>,
    /// For how long it counts: a step, and at least as long as the level that it comes from.
    pub width: TimeDelta,
    /// New records.
    pub total: u64,
    /// Those of them that are failures.
    pub failed: u64,
}

/// The counts of a kind in steps, of all organizations or of these (`_` for none), in their order. Steps in which
/// nothing was counted are left out. An hour that was thinned out is one point where steps are shorter.
///
/// # Errors
/// Where the database cannot be asked.
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
