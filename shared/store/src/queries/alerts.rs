//! Alerts, their history, and silences.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::select::Select;
use super::{Page, listed_by};
use crate::alerts::TransitionRow;
use crate::scoped_read::ReadTransaction;
use crate::silences::SilenceRow;

const COLUMNS: &str = "id, rule, organization_id, labels, annotations, severity, version, condition, data, reason, state, \
     acknowledgement, started_at, ended_at, changed_at";

const SILENCES: &str = "SELECT id, matchers, starts_at, ends_at, recurrence, created_by, reason, created_at, ended_at
       FROM watchbook.silences";

/// A filter for alerts. `None` matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlertFilter {
    /// The organization to match.
    pub organization_id: Option<String>,
    /// The rule to match.
    pub rule: Option<String>,
    /// The severity to match: `info`, `warning` or `critical`.
    pub severity: Option<String>,
    /// The state to match: `inactive`, `pending`, `firing` or `recovering`.
    pub condition: Option<String>,
}

/// The current state of an alert.
#[derive(Debug, Clone, PartialEq, FromRow, Serialize, ToSchema)]
pub struct AlertItem {
    /// The id, derived from the rule and the group.
    pub id: Uuid,
    /// The rule's name.
    pub rule: String,
    /// The organization; `_` if the group has none.
    pub organization_id: String,
    /// All labels.
    #[schema(value_type = Object)]
    pub labels: Value,
    /// Annotations: texts for people.
    #[schema(value_type = Object)]
    pub annotations: Value,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// Incremented with every change.
    pub version: i64,
    /// The state: `inactive`, `pending`, `firing` or `recovering`.
    pub condition: String,
    /// The quality of the data: `ok`, `low_samples`, `no_data` or `stale`.
    pub data: String,
    /// The reason for the state, in words.
    pub reason: String,
    /// Details of the evaluation, such as times and figures.
    #[schema(value_type = Object)]
    pub state: Value,
    /// Its acknowledgement, if any.
    #[schema(value_type = Option<Object>)]
    pub acknowledgement: Option<Value>,
    /// When it started to fire, this time or last time.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// When it last changed.
    pub changed_at: DateTime<Utc>,
}
listed_by!(changed_at: AlertItem);
listed_by!(created_at: SilenceRow, crate::holds::Hold);

/// Serves `GET /api/alerts`: returns alerts, most recently changed first.
///
/// # Errors
/// If the query fails or times out.
pub async fn list(
    transaction: &mut ReadTransaction,
    filter: &AlertFilter,
    page: &Page,
) -> crate::Result<Vec<AlertItem>> {
    Select::of(&format!("SELECT {COLUMNS} FROM watchbook.alerts"))
        .organization("organization_id", transaction, filter.organization_id.as_deref())
        .and_optional("rule = ", filter.rule.as_deref())
        .and_optional("severity = ", filter.severity.as_deref())
        .and_optional("condition = ", filter.condition.as_deref())
        .on("changed_at", page)
        .newest("changed_at", page.limit)
        .all(transaction)
        .await
}

/// Serves `GET /api/alerts/{id}`: returns the alert.
///
/// # Errors
/// If the query fails or times out.
pub async fn find(transaction: &mut ReadTransaction, id: Uuid) -> crate::Result<Option<AlertItem>> {
    let found: Vec<_> = Select::of(&format!("SELECT {COLUMNS} FROM watchbook.alerts"))
        .and_optional("id = ", Some(id))
        .all(transaction)
        .await?;
    Ok(found.into_iter().next())
}

/// Serves `GET /api/alerts/{id}`: returns the alert's changes, newest first, only those before a version if one is
/// given.
///
/// # Errors
/// If the query fails or times out.
pub async fn history(
    transaction: &mut ReadTransaction,
    id: Uuid,
    before_version: Option<i64>,
    limit: u32,
) -> crate::Result<Vec<TransitionRow>> {
    Select::of(
        "SELECT alert_id, version, from_condition, to_condition, data, reason, figures, silenced_by, at
           FROM watchbook.alert_transitions",
    )
    .and_optional("alert_id = ", Some(id))
    .and_optional("version < ", before_version)
    .push(&format!(" ORDER BY version DESC LIMIT {limit}"))
    .all(transaction)
    .await
}

/// Returns a silence, before it is ended.
///
/// # Errors
/// If the query fails or times out.
pub async fn silence(transaction: &mut ReadTransaction, id: Uuid) -> crate::Result<Option<SilenceRow>> {
    let found: Vec<_> = Select::of(SILENCES).and_optional("id = ", Some(id)).all(transaction).await?;
    Ok(found.into_iter().next())
}

/// Serves `GET /api/silences`, newest first. Callers of an organization see only silences that are about it alone.
/// With `not_over_at`, returns only silences that are not over at that time.
///
/// # Errors
/// If the query fails or times out.
pub async fn silences(
    transaction: &mut ReadTransaction,
    not_over_at: Option<DateTime<Utc>>,
    page: &Page,
) -> crate::Result<Vec<SilenceRow>> {
    let mut select = Select::of(SILENCES);
    select.and_optional("ends_at > ", not_over_at);
    if not_over_at.is_some() {
        select.and("ended_at IS NULL");
    }
    select.on("created_at", page).newest("created_at", page.limit).all(transaction).await
}
