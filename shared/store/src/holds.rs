//! Holds: selections of records that retention and erasure must keep.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use crate::Dataset;

/// A hold.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, Serialize, utoipa::ToSchema)]
pub struct Hold {
    /// Id.
    pub id: Uuid,
    /// Organization of the held records; null for all, `_` for records without one.
    pub organization_id: Option<String>,
    /// Record kind or `dead_letters`; null for all.
    pub kind: Option<String>,
    /// Start of the held time range, inclusive; null for no bound.
    pub starts_at: Option<DateTime<Utc>>,
    /// End of the held time range, exclusive; null for no bound.
    pub ends_at: Option<DateTime<Utc>>,
    /// Reason for the hold.
    pub reason: String,
    /// Who added it.
    pub created_by: String,
    /// When it was added.
    pub created_at: DateTime<Utc>,
    /// When it expires; null if it stays until it is released.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was released.
    pub released_at: Option<DateTime<Utc>>,
    /// Who released it.
    pub released_by: Option<String>,
}

impl Hold {
    /// Returns whether it holds anything of a dataset between two times.
    pub fn covers(&self, dataset: Dataset, from: DateTime<Utc>, until: DateTime<Utc>) -> bool {
        self.kind.as_deref().is_none_or(|kind| kind == dataset.counts_as())
            && self.starts_at.is_none_or(|starts_at| starts_at < until)
            && self.ends_at.is_none_or(|ends_at| ends_at > from)
    }

    /// Returns the range of rows that it holds.
    pub fn range(&self) -> HeldRange {
        HeldRange { organization_id: self.organization_id.clone(), from: self.starts_at, until: self.ends_at }
    }
}

impl Dataset {
    /// Returns the kind that a hold names for this dataset. Hourly aggregates count as `metrics`.
    const fn counts_as(self) -> &'static str {
        match self {
            Self::MetricHours => "metrics",
            other => other.name(),
        }
    }
}

/// A range of rows that must stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRange {
    /// Organization; `None` for all, `_` for rows without one.
    pub organization_id: Option<String>,
    /// Start, inclusive; `None` for no bound.
    pub from: Option<DateTime<Utc>>,
    /// End, exclusive; `None` for no bound.
    pub until: Option<DateTime<Utc>>,
}

/// Ranges as the three columns to bind for [`is_held`].
#[derive(Debug, Clone, Default)]
pub(crate) struct HeldColumns {
    pub(crate) organizations: Vec<Option<String>>,
    pub(crate) from: Vec<Option<DateTime<Utc>>>,
    pub(crate) until: Vec<Option<DateTime<Utc>>>,
}

impl HeldColumns {
    pub(crate) fn of(ranges: &[HeldRange]) -> Self {
        Self {
            organizations: ranges.iter().map(|range| range.organization_id.clone()).collect(),
            from: ranges.iter().map(|range| range.from).collect(),
            until: ranges.iter().map(|range| range.until).collect(),
        }
    }
}

/// Returns the SQL condition that a row of `dataset` is in one of the ranges bound from parameter `first` on. A row
/// whose organization is unknown matches every organization.
pub(crate) fn is_held(dataset: Dataset, first: usize) -> String {
    let (organization, time) = (dataset.organization(), dataset.time_column());
    let (second, third) = (first + 1, first + 2);
    format!(
        "EXISTS (SELECT FROM unnest(${first}::text[], ${second}::timestamptz[], ${third}::timestamptz[])
                          AS hold (organization, since, until)
                  WHERE (hold.organization IS NULL OR hold.organization = coalesce({organization}, hold.organization))
                    AND (hold.since IS NULL OR {time} >= hold.since) AND (hold.until IS NULL OR {time} < hold.until))"
    )
}

const IS_OPEN: &str = "released_at IS NULL AND (expires_at IS NULL OR expires_at > now())";

/// Returns holds in force, oldest first.
///
/// # Errors
/// If the query fails.
pub async fn in_force(connection: &mut PgConnection) -> crate::Result<Vec<Hold>> {
    sqlx::query_as(&format!("SELECT * FROM watchbook.holds WHERE {IS_OPEN} ORDER BY created_at, id"))
        .fetch_all(connection)
        .await
}

/// Returns holds in force and locks the table until the transaction ends, so that holds cannot be added or released.
///
/// # Errors
/// If the query fails or the lock times out.
pub async fn frozen(transaction: &mut PgConnection) -> crate::Result<Vec<Hold>> {
    sqlx::query("LOCK TABLE watchbook.holds IN SHARE MODE").execute(&mut *transaction).await?;
    in_force(transaction).await
}

/// Returns all holds, including released and expired ones, newest first, at most `limit`.
///
/// # Errors
/// If the query fails.
pub async fn all(connection: &mut PgConnection, limit: u32) -> crate::Result<Vec<Hold>> {
    sqlx::query_as("SELECT * FROM watchbook.holds ORDER BY created_at DESC, id LIMIT $1")
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await
}

/// Adds a hold.
///
/// # Errors
/// If the statement fails.
pub async fn insert(connection: &mut PgConnection, hold: &Hold) -> crate::Result<()> {
    sqlx::query(
        "INSERT INTO watchbook.holds
                (id, organization_id, kind, starts_at, ends_at, reason, created_by, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(hold.id)
    .bind(&hold.organization_id)
    .bind(&hold.kind)
    .bind(hold.starts_at)
    .bind(hold.ends_at)
    .bind(&hold.reason)
    .bind(&hold.created_by)
    .bind(hold.created_at)
    .bind(hold.expires_at)
    .execute(connection)
    .await?;
    Ok(())
}

/// Releases a hold in force and returns it. Sets erasures that wait for a hold back to `pending`.
///
/// # Errors
/// If a statement fails.
pub async fn release(transaction: &mut PgConnection, id: Uuid, by: &str) -> crate::Result<Option<Hold>> {
    let released = sqlx::query_as(&format!(
        "UPDATE watchbook.holds SET released_at = now(), released_by = $2 WHERE id = $1 AND {IS_OPEN} RETURNING *"
    ))
    .bind(id)
    .bind(by)
    .fetch_optional(&mut *transaction)
    .await?;
    if released.is_some() {
        sqlx::query("UPDATE watchbook.erasures SET state = 'pending' WHERE state = 'held'")
            .execute(transaction)
            .await?;
    }
    Ok(released)
}

#[cfg(test)]
mod tests {
    use records::Kind;

    use super::*;

    fn hold(kind: Option<&str>, starts_at: Option<i64>, ends_at: Option<i64>) -> Hold {
        let time = |day: i64| DateTime::UNIX_EPOCH + chrono::TimeDelta::days(day);
        Hold {
            id: Uuid::nil(),
            organization_id: None,
            kind: kind.map(str::to_owned),
            starts_at: starts_at.map(time),
            ends_at: ends_at.map(time),
            reason: String::new(),
            created_by: String::new(),
            created_at: DateTime::UNIX_EPOCH,
            expires_at: None,
            released_at: None,
            released_by: None,
        }
    }

    #[test]
    fn a_hold_covers_what_it_names_and_touches() {
        let (events, hours) = (Dataset::Records(Kind::Events), Dataset::MetricHours);
        let day = |day: i64| DateTime::UNIX_EPOCH + chrono::TimeDelta::days(day);
        for (hold, dataset, covers) in [
            (hold(None, None, None), events, true),
            (hold(Some("events"), None, None), events, true),
            (hold(Some("errors"), None, None), events, false),
            (hold(Some("metrics"), None, None), hours, true),
            (hold(Some("dead_letters"), None, None), Dataset::DeadLetters, true),
            (hold(None, Some(10), Some(11)), events, true),
            (hold(None, Some(11), None), events, false), // the day ends where the hold begins
            (hold(None, None, Some(10)), events, false), // and begins where it ends
            (hold(None, Some(9), Some(12)), events, true),
        ] {
            assert_eq!(hold.covers(dataset, day(10), day(11)), covers, "{hold:?}");
        }
    }
}
