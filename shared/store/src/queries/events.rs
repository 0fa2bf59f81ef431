//! What happened in projects and runs.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::select::Select;
use super::{MAX_UNINDEXED_RANGE, Page, StoredJson, listed_by, printable};
use crate::scoped_read::{ReadTransaction, Scope};

/// Which events; all where nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Only of this organization.
    pub organization_id: Option<String>,
    /// Only of this project.
    pub project_id: Option<String>,
    /// Only of this run.
    pub run_id: Option<String>,
    /// Only of this user.
    pub user_id: Option<String>,
    /// Only of this type.
    pub event_type: Option<String>,
}

impl EventFilter {
    /// How long a time somebody may ask for; `None` where an index leads to the records, or all are meant.
    pub fn longest(&self, scope: &Scope) -> Option<TimeDelta> {
        let is_led = [&self.project_id, &self.run_id, &self.user_id, &self.event_type].into_iter().any(Option::is_some);
        let is_narrowed = self.organization_id.is_some() || *scope != Scope::All;
        (is_narrowed && !is_led).then_some(MAX_UNINDEXED_RANGE)
    }

    /// What it says beside the organization, which a list and a replay take differently.
    pub(super) fn add_to<'q>(&'q self, select: &mut Select<'q>) {
        select
            .and_optional("project_id = ", self.project_id.as_deref())
            .and_optional("run_id = ", self.run_id.as_deref())
            .and_optional("user_id = ", self.user_id.as_deref())
            .and_optional("event_type = ", self.event_type.as_deref());
    }
}

/// An event.
#[derive(Debug, Clone, FromRow, Serialize, ToSchema)]
pub struct EventRow {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub organization_id: Option<String>,
    /// When it happened.
    pub created_at: DateTime<Utc>,
    /// When the stream took it.
    pub received_at: DateTime<Utc>,
    /// Who published it.
    pub source: Option<String>,
    /// Its type.
    pub event_type: String,
    /// Whatever belongs to it.
    #[schema(value_type = Object)]
    pub payload: StoredJson,
    /// The project.
    pub project_id: Option<String>,
    /// The run.
    pub run_id: Option<String>,
    /// The user.
    pub user_id: Option<String>,
    /// `user`, `system` or `api_key`.
    pub actor_type: String,
    /// Who acted.
    pub actor_id: Option<String>,
    /// Whatever the contract has no field for.
    #[schema(value_type = Object)]
    pub attributes: StoredJson,
}
listed_by!(created_at: EventRow);

/// `GET /api/events`
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
pub async fn list(
    transaction: &mut ReadTransaction,
    filter: &EventFilter,
    page: &Page,
) -> crate::Result<Vec<EventRow>> {
    let mut select = Select::of(&format!(
        "SELECT id, organization_id, created_at, received_at, source, event_type, {}, project_id, run_id, user_id,
                actor_type, actor_id, {}
           FROM watchbook.event_logs",
        printable("payload"),
        printable("attributes")
    ));
    filter.add_to(select.organization("organization_id", transaction, filter.organization_id.as_deref()));
    select.on("created_at", page).newest("created_at", page.limit).all(transaction).await
}
