//! Alerts, how they came to stand as they do, and silences.

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

/// Which alerts; all where nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlertFilter {
    /// Only of this organization.
    pub organization_id: Option<String>,
    /// Only of this rule.
    pub rule: Option<String>,
    /// Only as bad as this: `info`, `warning` or `critical`.
    pub severity: Option<String>,
    /// Only those that stand so: `inactive`, `pending`, `firing` or `recovering`.
    pub condition: Option<String>,
}

/// An alert as it stands.
#[derive(Debug, Clone, PartialEq, FromRow, Serialize, ToSchema)]
pub struct AlertItem {
    /// Of rule and group.
    pub id: Uuid,
    /// The rule's name.
    pub rule: String,
    /// `_` where the group names none.
    pub organization_id: String,
    /// All labels.
    #[schema(value_type = Object)]
    pub labels: Value,
    /// Texts for people.
    #[schema(value_type = Object)]
    pub annotations: Value,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// Counted up with every change.
    pub version: i64,
    /// `inactive`, `pending`, `firing` or `recovering`.
    pub condition: String,
    /// `ok`, `low_samples`, `no_data` or `stale`.
    pub data: String,
    /// Why, in words.
    pub reason: String,
    /// What the evaluation keeps: since when, figures.
    #[schema(value_type = Object)]
    pub state: Value,
    /// Who took note of it.
    #[schema(value_type = Option<Object>)]
    pub acknowledgement: Option<Value>,
    /// When it began to fire, this time or last time.
    pub started_at: Option<DateTime<Utc>>,
    /// When it was over.
    pub ended_at: Option<DateTime<Utc>>,
    /// When it changed last.
    pub changed_at: DateTime<Utc>,
}
listed_by!(changed_at: AlertItem);
listed_by!(created_at: SilenceRow, crate::holds::Hold);

/// `GET /api/alerts`, by the time when they changed last.
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
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

/// `GET /api/alerts/{id}`: the alert.
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
pub async fn find(transaction: &mut ReadTransaction, id: Uuid) -> crate::Result<Option<AlertItem>> {
    let found: Vec<_> = Select::of(&format!("SELECT {COLUMNS} FROM watchbook.alerts"))
        .and_optional("id = ", Some(id))
        .all(transaction)
        .await?;
    Ok(found.into_iter().next())
}

/// `GET /api/alerts/{id}`: its changes, the newest first, those before a version where one is given.
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
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

/// What an end is asked of: the silence.
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
pub async fn silence(transaction: &mut ReadTransaction, id: Uuid) -> crate::Result<Option<SilenceRow>> {
    let found: Vec<_> = Select::of(SILENCES).and_optional("id = ", Some(id)).all(transaction).await?;
    Ok(found.into_iter().next())
}

/// `GET /api/silences`: of an organization those that are about it alone. With `now` only those that are not over then.
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
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
