//! Audit events.

use std::ops::ControlFlow;

use chrono::{DateTime, TimeDelta, Utc};
use records::audit::Address;
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::select::{Select, known_as};
use super::{MAX_UNINDEXED_RANGE, Page, StoredJson, listed_by, printable};
use crate::scoped_read::{ReadTransaction, Scope};

/// A filter for audit events. `None` matches all. Its JSON holds the given filters only.
#[derive(Debug, Clone, Default, Serialize)]
pub struct AuditFilter {
    /// The organization to match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization_id: Option<String>,
    /// The actor to match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor_id: Option<String>,
    /// The type of actor to match: `user`, `system` or `api_key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor_type: Option<String>,
    /// The action to match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// The type of target to match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_type: Option<String>,
    /// The target to match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_id: Option<String>,
    /// The status to match: `SUCCESS` or `FAILURE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The IP address or network to match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<Address>,
}

impl AuditFilter {
    /// Returns the longest range to query; `None` if an index leads to the records, or if all are requested. One
    /// always leads to the records of an organization.
    pub fn longest(&self, scope: &Scope) -> Option<TimeDelta> {
        let is_of_one = self.organization_id.is_some() || *scope != Scope::All;
        let leading = [&self.actor_id, &self.action, &self.target_type];
        let is_narrowed =
            self.actor_type.is_some() || self.target_id.is_some() || self.status.is_some() || self.ip_address.is_some();
        (is_narrowed && !is_of_one && !leading.into_iter().any(Option::is_some)).then_some(MAX_UNINDEXED_RANGE)
    }
}

/// An audit event.
#[derive(Debug, Clone, FromRow, Serialize, ToSchema)]
pub struct AuditRow {
    /// Its id.
    pub id: Uuid,
    /// The organization in whose log it is recorded; null for the platform's log.
    pub organization_id: Option<String>,
    /// When the action happened.
    pub created_at: DateTime<Utc>,
    /// When JetStream stored it.
    pub received_at: DateTime<Utc>,
    /// The service that published it.
    pub source: Option<String>,
    /// The actor: the id of a user, system or API key.
    pub actor_id: String,
    /// The type of actor: `user`, `system` or `api_key`.
    pub actor_type: String,
    /// The actor's name, if the directory has it.
    pub actor_name: Option<String>,
    /// The actor's email address, if the directory has it.
    pub actor_email: Option<String>,
    /// The action.
    pub action: String,
    /// The type of target.
    pub target_type: String,
    /// The target's id.
    pub target_id: String,
    /// The outcome: `SUCCESS` or `FAILURE`.
    pub status: String,
    /// The reason for the action.
    pub reason: Option<String>,
    /// The error of a failed action.
    pub error_details: Option<String>,
    /// Additional data of the event.
    #[schema(value_type = Object)]
    pub metadata: StoredJson,
    /// The client's IP address.
    pub ip_address: Option<String>,
    /// The client's user agent.
    pub user_agent: Option<String>,
    /// Fields that the contract does not define.
    #[schema(value_type = Object)]
    pub attributes: StoredJson,
}
listed_by!(created_at: AuditRow);

/// Serves `GET /api/audit`, and `GET /api/organizations/{org}/audit` with the organization as a filter.
///
/// # Errors
/// If the query fails or times out.
pub async fn list(
    transaction: &mut ReadTransaction,
    filter: &AuditFilter,
    page: &Page,
) -> crate::Result<Vec<AuditRow>> {
    select(transaction, filter, page).all(transaction).await
}

/// Serves `GET /api/audit/export` page by page: like [`list`], but passes on each row as it arrives, until `take` has
/// enough. Rows vary in size, and a whole page of the largest would take too much memory.
///
/// # Errors
/// As [`list`], and any error of `take`.
pub async fn each(
    transaction: &mut ReadTransaction,
    filter: &AuditFilter,
    page: &Page,
    take: impl FnMut(AuditRow) -> crate::Result<ControlFlow<()>> + Send,
) -> crate::Result<()> {
    select(transaction, filter, page).each(transaction, take).await
}

/// Returns the time of the oldest audit event of all organizations.
///
/// # Errors
/// As [`list`].
pub async fn oldest(transaction: &mut ReadTransaction) -> crate::Result<Option<DateTime<Utc>>> {
    sqlx::query_scalar("SELECT created_at FROM control_plane.audit_logs ORDER BY created_at LIMIT 1")
        .fetch_optional(transaction.connection())
        .await
}

fn select<'q>(transaction: &ReadTransaction, filter: &'q AuditFilter, page: &Page) -> Select<'q> {
    let mut select = Select::of(&format!(
        "SELECT id, organization_id, created_at, received_at, source, actor_id, actor_type, actor.name AS actor_name,
                actor.email AS actor_email, action, target_type, target_id, status, reason, error_details, {},
                abbrev(ip_address) AS ip_address, user_agent, {}
           FROM (SELECT * FROM control_plane.audit_logs",
        printable("metadata"),
        printable("attributes")
    ));
    select
        .organization("organization_id", transaction, filter.organization_id.as_deref())
        .and_optional("actor_id = ", filter.actor_id.as_deref())
        .and_optional("actor_type = ", filter.actor_type.as_deref())
        .and_optional("action = ", filter.action.as_deref())
        .and_optional("target_type = ", filter.target_type.as_deref())
        .and_optional("target_id = ", filter.target_id.as_deref())
        .and_optional("status = ", filter.status.as_deref());
    if let Some(Address { ip, prefix_bits }) = filter.ip_address {
        select.and("ip_address <<= ").bind(format!("{ip}/{prefix_bits}")).push("::text::inet");
    }
    select
        .on("created_at", page)
        .newest("created_at", page.limit)
        .push(") AS record")
        // The platform's own audit events have no person behind them, even if a user has the id `system`.
        .push(&known_as("actor", "user", "nullif(record.actor_id, 'system')"))
        .push(" ORDER BY created_at DESC, id DESC");
    select
}
