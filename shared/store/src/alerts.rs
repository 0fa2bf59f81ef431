//! Alerts: their states, transitions and acknowledgements, and the rules in force.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

/// Maximum rows per statement.
const AT_ONCE: usize = 1_000;

/// The state of an alert. `condition` and `data` hold the values that the migration allows.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct AlertRow {
    /// Id, derived from rule and group.
    pub id: Uuid,
    /// Name of the rule.
    pub rule: String,
    /// Organization; `_` if the group has none.
    pub organization_id: String,
    /// All labels.
    pub labels: Value,
    /// Annotations.
    pub annotations: Value,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// Version, starting at 1 and incremented with every change.
    pub version: i64,
    /// `inactive`, `pending`, `firing` or `recovering`.
    pub condition: String,
    /// `ok`, `low_samples`, `no_data` or `stale`.
    pub data: String,
    /// Reason, in words.
    pub reason: String,
    /// State of the evaluation.
    pub state: Value,
    /// The last notification of each receiver.
    pub told: Value,
    /// When it started firing, currently or the last time.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// When it last changed.
    pub changed_at: DateTime<Utc>,
}

/// A state transition of an alert.
#[derive(Debug, Clone, PartialEq, FromRow, Serialize, utoipa::ToSchema)]
#[schema(as = AlertTransition)]
pub struct TransitionRow {
    /// Id of the alert.
    pub alert_id: Uuid,
    /// Version of the alert after the transition.
    pub version: i64,
    /// State before: `inactive`, `pending`, `firing` or `recovering`.
    pub from_condition: String,
    /// State after.
    pub to_condition: String,
    /// Quality of the data: `ok`, `low_samples`, `no_data` or `stale`.
    pub data: String,
    /// Reason, in words.
    pub reason: String,
    /// Figures that the evaluation used.
    pub figures: Value,
    /// Id of the silence that suppressed the notification.
    pub silenced_by: Option<Uuid>,
    /// Time of the transition.
    pub at: DateTime<Utc>,
}

const COLUMNS: &str = "id, rule, organization_id, labels, annotations, severity, version, condition, data, reason, state, told, \
     started_at, ended_at, changed_at";

/// Returns every alert that is not inactive.
///
/// # Errors
/// If the query fails.
pub async fn open(connection: &mut PgConnection) -> crate::Result<Vec<AlertRow>> {
    let statement = format!("SELECT {COLUMNS} FROM watchbook.alerts WHERE condition <> 'inactive' ORDER BY rule, id");
    sqlx::query_as(&statement).fetch_all(connection).await
}

/// Returns the existing alerts with these ids, inactive or not.
///
/// # Errors
/// If the query fails.
pub async fn with_ids(connection: &mut PgConnection, ids: &[Uuid]) -> crate::Result<Vec<AlertRow>> {
    let statement = format!("SELECT {COLUMNS} FROM watchbook.alerts WHERE id = ANY ($1)");
    sqlx::query_as(&statement).bind(ids).fetch_all(connection).await
}

/// Updates alerts to these states, each from the version before the given one. Returns `false` if an alert is not at
/// that version: another process changed it, and the transaction must be rolled back.
///
/// # Errors
/// If a statement fails.
pub async fn move_to(transaction: &mut PgConnection, alerts: &[AlertRow]) -> crate::Result<bool> {
    for alerts in alerts.chunks(AT_ONCE) {
        let all = |of: fn(&AlertRow) -> &str| alerts.iter().map(of).collect::<Vec<_>>();
        let json = |of: fn(&AlertRow) -> &Value| alerts.iter().map(of).collect::<Vec<_>>();
        let times = |of: fn(&AlertRow) -> Option<DateTime<Utc>>| alerts.iter().map(of).collect::<Vec<_>>();
        // An acknowledgement belongs to one firing episode and ends with it.
        let moved = sqlx::query(
            "INSERT INTO watchbook.alerts AS known (id, rule, organization_id, labels, annotations, severity, version,
                    condition, data, reason, state, told, started_at, ended_at, changed_at)
             SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::jsonb[], $5::jsonb[], $6::text[], $7::bigint[],
                    $8::text[], $9::text[], $10::text[], $11::jsonb[], $12::jsonb[], $13::timestamptz[], $14::timestamptz[], $15::timestamptz[])
                 ON CONFLICT (id) DO UPDATE
                SET rule = excluded.rule, organization_id = excluded.organization_id, labels = excluded.labels,
                    annotations = excluded.annotations, severity = excluded.severity, version = excluded.version,
                    condition = excluded.condition, data = excluded.data, reason = excluded.reason, state = excluded.state,
                    told = excluded.told, started_at = excluded.started_at, ended_at = excluded.ended_at,
                    changed_at = excluded.changed_at,
                    acknowledgement = CASE WHEN excluded.condition <> 'inactive' THEN known.acknowledgement END
              WHERE known.version = excluded.version - 1",
        )
        .bind(alerts.iter().map(|alert| alert.id).collect::<Vec<_>>())
        .bind(all(|alert| &alert.rule))
        .bind(all(|alert| &alert.organization_id))
        .bind(json(|alert| &alert.labels))
        .bind(json(|alert| &alert.annotations))
        .bind(all(|alert| &alert.severity))
        .bind(alerts.iter().map(|alert| alert.version).collect::<Vec<_>>())
        .bind(all(|alert| &alert.condition))
        .bind(all(|alert| &alert.data))
        .bind(all(|alert| &alert.reason))
        .bind(json(|alert| &alert.state))
        .bind(json(|alert| &alert.told))
        .bind(times(|alert| alert.started_at))
        .bind(times(|alert| alert.ended_at))
        .bind(times(|alert| Some(alert.changed_at)))
        .execute(&mut *transaction)
        .await?;
        if moved.rows_affected() != alerts.len() as u64 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Inserts state transitions.
///
/// # Errors
/// If a statement fails.
pub async fn record(transaction: &mut PgConnection, transitions: &[TransitionRow]) -> crate::Result<()> {
    for rows in transitions.chunks(AT_ONCE) {
        let all = |of: fn(&TransitionRow) -> &str| rows.iter().map(of).collect::<Vec<_>>();
        sqlx::query(
            "INSERT INTO watchbook.alert_transitions (alert_id, version, from_condition, to_condition, data, reason, figures, silenced_by, at)
             SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::jsonb[], $8::uuid[], $9::timestamptz[])",
        )
        .bind(rows.iter().map(|row| row.alert_id).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.version).collect::<Vec<_>>())
        .bind(all(|row| &row.from_condition))
        .bind(all(|row| &row.to_condition))
        .bind(all(|row| &row.data))
        .bind(all(|row| &row.reason))
        .bind(rows.iter().map(|row| &row.figures).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.silenced_by).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.at).collect::<Vec<_>>())
        .execute(&mut *transaction)
        .await?;
    }
    Ok(())
}

/// Returns the acknowledgements of active alerts.
///
/// # Errors
/// If the query fails.
pub async fn acknowledgements(connection: &mut PgConnection) -> crate::Result<Vec<(Uuid, Value)>> {
    sqlx::query_as(
        "SELECT id, acknowledgement FROM watchbook.alerts WHERE condition <> 'inactive' AND acknowledgement IS NOT NULL",
    )
    .fetch_all(connection)
    .await
}

/// Acknowledges an active alert. Returns `false` if there is none with this id.
///
/// # Errors
/// If the statement fails.
pub async fn acknowledge(connection: &mut PgConnection, id: Uuid, acknowledgement: &Value) -> crate::Result<bool> {
    let updated =
        sqlx::query("UPDATE watchbook.alerts SET acknowledgement = $2 WHERE id = $1 AND condition <> 'inactive'")
            .bind(id)
            .bind(acknowledgement)
            .execute(connection)
            .await?;
    Ok(updated.rows_affected() > 0)
}

/// Removes alerts that have been inactive since `before`, with their transitions. Returns the number of transitions.
///
/// # Errors
/// If a statement fails; nothing is removed then.
pub async fn remove_quiet(connection: &mut PgConnection, before: DateTime<Utc>) -> crate::Result<u64> {
    let removed = sqlx::query(
        "WITH gone AS (
             DELETE FROM watchbook.alerts WHERE id IN (
                 SELECT id FROM watchbook.alerts WHERE condition = 'inactive' AND changed_at < $1 LIMIT $2)
             RETURNING id
         )
         DELETE FROM watchbook.alert_transitions WHERE alert_id IN (SELECT id FROM gone)",
    )
    .bind(before)
    .bind(AT_ONCE as i64)
    .execute(connection)
    .await?;
    Ok(removed.rows_affected())
}

/// Removes transitions before a time, a limited number per call. Returns how many.
///
/// # Errors
/// If the statement fails.
pub async fn remove_history(connection: &mut PgConnection, before: DateTime<Utc>) -> crate::Result<u64> {
    let removed = sqlx::query(
        "DELETE FROM watchbook.alert_transitions WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM watchbook.alert_transitions WHERE at < $1 LIMIT $2))",
    )
    .bind(before)
    .bind(AT_ONCE as i64)
    .execute(connection)
    .await?;
    Ok(removed.rows_affected())
}

/// Returns the groups that a first-seen rule knows, with when each was first seen.
///
/// # Errors
/// If the query fails.
pub async fn known_groups(connection: &mut PgConnection, rule: &str) -> crate::Result<Vec<(Uuid, DateTime<Utc>)>> {
    sqlx::query_as("SELECT group_id, first_seen_at FROM watchbook.known_groups WHERE rule = $1")
        .bind(rule)
        .fetch_all(connection)
        .await
}

/// Stores groups and when they were last seen.
///
/// # Errors
/// If the statement fails.
pub async fn know_groups(
    connection: &mut PgConnection,
    rule: &str,
    groups: &[(Uuid, Value, DateTime<Utc>)],
    now: DateTime<Utc>,
) -> crate::Result<()> {
    for groups in groups.chunks(AT_ONCE) {
        sqlx::query(
            "INSERT INTO watchbook.known_groups (rule, group_id, labels, first_seen_at, last_seen_at)
             SELECT $1, id, labels, first_seen_at, $5 FROM unnest($2::uuid[], $3::jsonb[], $4::timestamptz[]) AS new (id, labels, first_seen_at)
                 ON CONFLICT (rule, group_id) DO UPDATE SET last_seen_at = excluded.last_seen_at",
        )
        .bind(rule)
        .bind(groups.iter().map(|(id, _, _)| *id).collect::<Vec<_>>())
        .bind(groups.iter().map(|(_, labels, _)| labels).collect::<Vec<_>>())
        .bind(groups.iter().map(|(_, _, first_seen_at)| *first_seen_at).collect::<Vec<_>>())
        .bind(now)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Removes groups that were last seen before `before`.
///
/// # Errors
/// If the statement fails.
pub async fn forget_groups(connection: &mut PgConnection, rule: &str, before: DateTime<Utc>) -> crate::Result<()> {
    sqlx::query("DELETE FROM watchbook.known_groups WHERE rule = $1 AND last_seen_at < $2 AND group_id <> $3")
        .bind(rule)
        .bind(before)
        .bind(Uuid::nil())
        .execute(connection)
        .await?;
    Ok(())
}

/// The rules in force, and the problem of rejected rules.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct SettingsRow {
    /// The rules.
    pub rules: Value,
    /// Fingerprint of the rules, to compare them with others.
    pub fingerprint: String,
    /// When they were loaded.
    pub loaded_at: DateTime<Utc>,
    /// Process that loaded them.
    pub loaded_by: String,
    /// Problem of rejected rules.
    pub problem: Option<String>,
    /// When they were rejected.
    pub problem_at: Option<DateTime<Utc>>,
}

/// Returns the rules in force; `None` if no alert worker has run yet.
///
/// # Errors
/// If the query fails.
pub async fn settings(connection: &mut PgConnection) -> crate::Result<Option<SettingsRow>> {
    sqlx::query_as("SELECT rules, fingerprint, loaded_at, loaded_by, problem, problem_at FROM watchbook.alert_settings")
        .fetch_optional(connection)
        .await
}

/// Stores the rules in force, for other processes to read.
///
/// # Errors
/// If the statement fails.
pub async fn set_settings(connection: &mut PgConnection, settings: &SettingsRow) -> crate::Result<()> {
    sqlx::query(
        "INSERT INTO watchbook.alert_settings (rules, fingerprint, loaded_at, loaded_by, problem, problem_at)
         VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (only_row) DO UPDATE
            SET rules = excluded.rules, fingerprint = excluded.fingerprint, loaded_at = excluded.loaded_at,
                loaded_by = excluded.loaded_by, problem = excluded.problem, problem_at = excluded.problem_at",
    )
    .bind(&settings.rules)
    .bind(&settings.fingerprint)
    .bind(settings.loaded_at)
    .bind(&settings.loaded_by)
    .bind(&settings.problem)
    .bind(settings.problem_at)
    .execute(connection)
    .await?;
    Ok(())
}
