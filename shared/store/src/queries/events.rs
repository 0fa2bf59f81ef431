//! Events of projects and runs.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::select::Select;
use super::{MAX_UNINDEXED_RANGE, Page, StoredJson, listed_by, printable};
use crate::scoped_read::{ReadTransaction, Scope};

/// A filter for events. `None` matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// The organization to match.
    pub organization_id: Option<String>,
    /// The project to match.
    pub project_id: Option<String>,
    /// The run to match.
    pub run_id: Option<String>,
    /// The user to match.
    pub user_id: Option<String>,
    /// The type to match.
    pub event_type: Option<String>,
}

impl EventFilter {
    /// Returns the longest range to query; `None` if an index leads to the records, or if all are requested.
    pub fn longest(&self, scope: &Scope) -> Option<TimeDelta> {
        let is_led = [&self.project_id, &self.run_id, &self.user_id, &self.event_type].into_iter().any(Option::is_some);
        let is_narrowed = self.organization_id.is_some() || *scope != Scope::All;
        (is_narrowed && !is_led).then_some(MAX_UNINDEXED_RANGE)
    }

    /// Adds the conditions other than the organization, which a list and a replay handle differently.
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
    /// The organization that owns it; null if it belongs to the platform.
    pub organization_id: Option<String>,
    /// When it happened.
    pub created_at: DateTime<Utc>,
    /// When JetStream stored it.
    pub received_at: DateTime<Utc>,
    /// The service that published it.
    pub source: Option<String>,
    /// Its type.
    pub event_type: String,
    /// The event's payload.
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
    /// The actor's id.
    pub actor_id: Option<String>,
    /// Fields that the contract does not define.
    #[schema(value_type = Object)]
    pub attributes: StoredJson,
}
listed_by!(created_at: EventRow);

/// Serves `GET /api/events`.
///
/// # Errors
/// If the query fails or times out.
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
