//! Who did what to what.

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

/// Which audit events; all where nothing is said. As JSON it is what was asked for.
#[derive(Debug, Clone, Default, Serialize)]
pub struct AuditFilter {
    /// Only of this organization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization_id: Option<String>,
    /// Only of this actor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor_id: Option<String>,
    /// Only of such actors: `user`, `system` or `api_key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor_type: Option<String>,
    /// Only this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Only to such things.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_type: Option<String>,
    /// Only to this thing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_id: Option<String>,
    /// Only with this end: `SUCCESS` or `FAILURE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Only from this address, or from one in this network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<Address>,
}

impl AuditFilter {
    /// How long a time somebody may ask for; `None` where an index leads to the records, or all are meant. It always
    /// does to those of an organization.
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
    /// Whose log it stands in.
    pub organization_id: Option<String>,
    /// When it was done.
    pub created_at: DateTime<Utc>,
    /// When the stream took it.
    pub received_at: DateTime<Utc>,
    /// Who published it.
    pub source: Option<String>,
    /// Who did it.
    pub actor_id: String,
    /// `user`, `system` or `api_key`.
    pub actor_type: String,
    /// The actor's name, where the directory knows it.
    pub actor_name: Option<String>,
    /// The actor's address, where the directory knows it.
    pub actor_email: Option<String>,
    /// What was done.
    pub action: String,
    /// To what kind of thing.
    pub target_type: String,
    /// To which.
    pub target_id: String,
    /// `SUCCESS` or `FAILURE`.
    pub status: String,
    /// Why.
    pub reason: Option<String>,
    /// What went wrong.
    pub error_details: Option<String>,
    /// Whatever belongs to it.
    #[schema(value_type = Object)]
    pub metadata: StoredJson,
    /// From where.
    pub ip_address: Option<String>,
    /// With which program.
    pub user_agent: Option<String>,
    /// Whatever the contract has no field for.
    #[schema(value_type = Object)]
    pub attributes: StoredJson,
}
listed_by!(created_at: AuditRow);

/// `GET /api/audit`, `GET /api/organizations/{org}/audit` with the organization as a filter.
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
pub async fn list(
    transaction: &mut ReadTransaction,
    filter: &AuditFilter,
    page: &Page,
) -> crate::Result<Vec<AuditRow>> {
    select(transaction, filter, page).all(transaction).await
}

/// Page by page `GET /api/audit/export`: the same as [`list`], each row as it comes, until `take` has enough. Rows are of
/// any size, and a whole page of the largest is more than anybody should hold.
///
/// # Errors
/// As [`list`], and what `take` fails with.
pub async fn each(
    transaction: &mut ReadTransaction,
    filter: &AuditFilter,
    page: &Page,
    take: impl FnMut(AuditRow) -> crate::Result<ControlFlow<()>> + Send,
) -> crate::Result<()> {
    select(transaction, filter, page).each(transaction, take).await
}

/// When the oldest audit event of all was done.
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
        // The platform's own audit events have no person behind them, whatever somebody calls a user.
        .push(&known_as("actor", "user", "nullif(record.actor_id, 'system')"))
        .push(" ORDER BY created_at DESC, id DESC");
    select
}
