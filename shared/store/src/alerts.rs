//! Alerts: how each stands, how it came there, and who took note of it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

/// Alerts that are moved by one statement.
const AT_ONCE: usize = 1_000;

/// An alert as it stands. Conditions and data are the words of the migration.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct AlertRow {
    /// Of rule and group.
    pub id: Uuid,
    /// The rule's name.
    pub rule: String,
    /// `_` where the group names none.
    pub organization_id: String,
    /// All labels.
    pub labels: Value,
    /// Texts for people.
    pub annotations: Value,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// Counted up with every change; 1 is the first.
    pub version: i64,
    /// `inactive`, `pending`, `firing` or `recovering`.
    pub condition: String,
    /// `ok`, `low_samples`, `no_data` or `stale`.
    pub data: String,
    /// Why, in words.
    pub reason: String,
    /// What the evaluation keeps.
    pub state: Value,
    /// What each receiver was told last.
    pub told: Value,
    /// When it began to fire, this time or last time.
    pub started_at: Option<DateTime<Utc>>,
    /// When it was over.
    pub ended_at: Option<DateTime<Utc>>,
    /// When it changed last.
    pub changed_at: DateTime<Utc>,
}

/// A change of an alert's condition.
#[derive(Debug, Clone, PartialEq, FromRow, Serialize, utoipa::ToSchema)]
#[schema(as = AlertTransition)]
pub struct TransitionRow {
    /// Which alert.
    pub alert_id: Uuid,
    /// The alert's version that it made.
    pub version: i64,
    /// From which condition.
    pub from_condition: String,
    /// To which.
    pub to_condition: String,
    /// How good the data was.
    pub data: String,
    /// Why, in words.
    pub reason: String,
    /// The figures behind it.
    pub figures: Value,
    /// The silence that kept it from being told.
    pub silenced_by: Option<Uuid>,
    /// When.
    pub at: DateTime<Utc>,
}

const COLUMNS: &str = "id, rule, organization_id, labels, annotations, severity, version, condition, data, reason, state, told, \
     started_at, ended_at, changed_at";

/// Every alert that is not quiet.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn open(connection: &mut PgConnection) -> crate::Result<Vec<AlertRow>> {
    let statement = format!("SELECT {COLUMNS} FROM watchbook.alerts WHERE condition <> 'inactive' ORDER BY rule, id");
    sqlx::query_as(&statement).fetch_all(connection).await
}

/// The alerts with these ids, quiet or not, as far as there are any.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn with_ids(connection: &mut PgConnection, ids: &[Uuid]) -> crate::Result<Vec<AlertRow>> {
    let statement = format!("SELECT {COLUMNS} FROM watchbook.alerts WHERE id = ANY ($1)");
    sqlx::query_as(&statement).bind(ids).fetch_all(connection).await
}

/// Moves alerts to these states, each from the version before the one that it has here. `false` where one of them
/// is not at that version any more: somebody else moved it, and the transaction has to be rolled back.
///
/// # Errors
/// Where a statement fails.
pub async fn move_to(transaction: &mut PgConnection, alerts: &[AlertRow]) -> crate::Result<bool> {
    for alerts in alerts.chunks(AT_ONCE) {
        let all = |of: fn(&AlertRow) -> &str| alerts.iter().map(of).collect::<Vec<_>>();
        let json = |of: fn(&AlertRow) -> &Value| alerts.iter().map(of).collect::<Vec<_>>();
        let times = |of: fn(&AlertRow) -> Option<DateTime<Utc>>| alerts.iter().map(of).collect::<Vec<_>>();
        // An acknowledgement is of an episode, and ends with it.
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

/// Records changes of condition.
///
/// # Errors
/// Where a statement fails.
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

/// The acknowledgements of alerts that are not over.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn acknowledgements(connection: &mut PgConnection) -> crate::Result<Vec<(Uuid, Value)>> {
    sqlx::query_as(
        "SELECT id, acknowledgement FROM watchbook.alerts WHERE condition <> 'inactive' AND acknowledgement IS NOT NULL",
    )
    .fetch_all(connection)
    .await
}

/// Takes note of an alert that is not over. `false` where there is no such alert.
///
/// # Errors
/// Where the statement fails.
pub async fn acknowledge(connection: &mut PgConnection, id: Uuid, acknowledgement: &Value) -> crate::Result<bool> {
    let updated =
        sqlx::query("UPDATE watchbook.alerts SET acknowledgement = $2 WHERE id = $1 AND condition <> 'inactive'")
            .bind(id)
            .bind(acknowledgement)
            .execute(connection)
            .await?;
    Ok(updated.rows_affected() > 0)
}

/// Removes alerts that have been quiet since `before`, with their history. Returns how many.
///
/// # Errors
/// Where a statement fails; nothing is removed then.
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

/// Removes changes of alerts that happened before a time, some at once. Returns how many.
///
/// # Errors
/// Where the statement fails.
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

/// Groups that a rule for first-seen values knows.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn known_groups(connection: &mut PgConnection, rule: &str) -> crate::Result<Vec<(Uuid, DateTime<Utc>)>> {
    sqlx::query_as("SELECT group_id, first_seen_at FROM watchbook.known_groups WHERE rule = $1")
        .bind(rule)
        .fetch_all(connection)
        .await
}

/// Remembers groups, and when they were heard of last.
///
/// # Errors
/// Where the statement fails.
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

/// Forgets groups of which nothing was heard since `before`.
///
/// # Errors
/// Where the statement fails.
pub async fn forget_groups(connection: &mut PgConnection, rule: &str, before: DateTime<Utc>) -> crate::Result<()> {
    sqlx::query("DELETE FROM watchbook.known_groups WHERE rule = $1 AND last_seen_at < $2 AND group_id <> $3")
        .bind(rule)
        .bind(before)
        .bind(Uuid::nil())
        .execute(connection)
        .await?;
    Ok(())
}

/// The rules in force, and what was wrong with those that were to replace them.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct SettingsRow {
    /// The rules.
    pub rules: Value,
    /// Of the rules, to see at a glance whether others are meant.
    pub fingerprint: String,
    /// Since when.
    pub loaded_at: DateTime<Utc>,
    /// By which process.
    pub loaded_by: String,
    /// What was wrong.
    pub problem: Option<String>,
    /// Since when.
    pub problem_at: Option<DateTime<Utc>>,
}

/// The rules in force; `None` where no alert worker ran yet.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn settings(connection: &mut PgConnection) -> crate::Result<Option<SettingsRow>> {
    sqlx::query_as("SELECT rules, fingerprint, loaded_at, loaded_by, problem, problem_at FROM watchbook.alert_settings")
        .fetch_optional(connection)
        .await
}

/// Tells everybody the rules in force.
///
/// # Errors
/// Where the statement fails.
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
