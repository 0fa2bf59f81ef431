//! Roll-ups: how many records of a kind happened in a minute, and how many of them failed.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use records::Kind;
use records::rollup::{CANARY_EVENT, MinuteGroups};
use records::subject::NO_ORGANIZATION;
use sqlx::PgConnection;

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
