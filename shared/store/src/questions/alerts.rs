//! Alerts, how they came to stand as they do, and silences.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::question::Question;
use super::{Page, listed_by};
use crate::alerts::TransitionRow;
use crate::reading::Reading;
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
pub async fn list(reading: &mut Reading, filter: &AlertFilter, page: &Page) -> crate::Result<Vec<AlertItem>> {
    Question::of(&format!("SELECT {COLUMNS} FROM watchbook.alerts"))
        .organization("organization_id", reading, filter.organization_id.as_deref())
        .where_("rule = ", filter.rule.as_deref())
        .where_("severity = ", filter.severity.as_deref())
        .where_("condition = ", filter.condition.as_deref())
        .on("changed_at", page)
        .newest("changed_at", page.limit)
        .all(reading)
        .await
}

/// `GET /api/alerts/{id}`: the alert.
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
pub async fn find(reading: &mut Reading, id: Uuid) -> crate::Result<Option<AlertItem>> {
    let found: Vec<_> =
        Question::of(&format!("SELECT {COLUMNS} FROM watchbook.alerts")).where_("id = ", Some(id)).all(reading).await?;
    Ok(found.into_iter().next())
}

/// `GET /api/alerts/{id}`: its changes, the newest first, those before a version where one is given.
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
pub async fn history(
    reading: &mut Reading,
    id: Uuid,
    before_version: Option<i64>,
    limit: u32,
) -> crate::Result<Vec<TransitionRow>> {
    Question::of(
        "SELECT alert_id, version, from_condition, to_condition, data, reason, figures, silenced_by, at
           FROM watchbook.alert_transitions",
    )
    .where_("alert_id = ", Some(id))
    .where_("version < ", before_version)
    .push(&format!(" ORDER BY version DESC LIMIT {limit}"))
    .all(reading)
    .await
}

/// What an end is asked of: the silence.
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
pub async fn silence(reading: &mut Reading, id: Uuid) -> crate::Result<Option<SilenceRow>> {
    let found: Vec<_> = Question::of(SILENCES).where_("id = ", Some(id)).all(reading).await?;
    Ok(found.into_iter().next())
}

/// `GET /api/silences`: of an organization those that are about it alone. With `now` only those that are not over then.
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
pub async fn silences(
    reading: &mut Reading,
    not_over_at: Option<DateTime<Utc>>,
    page: &Page,
) -> crate::Result<Vec<SilenceRow>> {
    let mut question = Question::of(SILENCES);
    question.where_("ends_at > ", not_over_at);
    if not_over_at.is_some() {
        question.and("ended_at IS NULL");
    }
    question.on("created_at", page).newest("created_at", page.limit).all(reading).await
}
