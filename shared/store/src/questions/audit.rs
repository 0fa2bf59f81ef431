//! Who did what to what.

use std::ops::ControlFlow;

use chrono::{DateTime, TimeDelta, Utc};
use records::audit::Address;
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::question::{Question, known_as};
use super::{Page, SEARCHED_AT_MOST, StoredJson, listed_by, printable};
use crate::reading::{Reading, Scope};

/// Which deeds; all where nothing is said. As JSON it is what was asked for.
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
        (is_narrowed && !is_of_one && !leading.into_iter().any(Option::is_some)).then_some(SEARCHED_AT_MOST)
    }
}

/// A deed.
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
pub async fn list(reading: &mut Reading, filter: &AuditFilter, page: &Page) -> crate::Result<Vec<AuditRow>> {
    question(reading, filter, page).all(reading).await
}

/// Page by page `GET /api/audit/export`: the same as [`list`], each row as it comes, until `take` has enough. Rows are of
/// any size, and a whole page of the largest is more than anybody should hold.
///
/// # Errors
/// As [`list`], and what `take` fails with.
pub async fn each(
    reading: &mut Reading,
    filter: &AuditFilter,
    page: &Page,
    take: impl FnMut(AuditRow) -> crate::Result<ControlFlow<()>> + Send,
) -> crate::Result<()> {
    question(reading, filter, page).each(reading, take).await
}

/// When the oldest deed of all was done.
///
/// # Errors
/// As [`list`].
pub async fn oldest(reading: &mut Reading) -> crate::Result<Option<DateTime<Utc>>> {
    sqlx::query_scalar("SELECT created_at FROM control_plane.audit_logs ORDER BY created_at LIMIT 1")
        .fetch_optional(reading.connection())
        .await
}

fn question<'q>(reading: &Reading, filter: &'q AuditFilter, page: &Page) -> Question<'q> {
    let mut question = Question::of(&format!(
        "SELECT id, organization_id, created_at, received_at, source, actor_id, actor_type, actor.name AS actor_name,
                actor.email AS actor_email, action, target_type, target_id, status, reason, error_details, {},
                abbrev(ip_address) AS ip_address, user_agent, {}
           FROM (SELECT * FROM control_plane.audit_logs",
        printable("metadata"),
        printable("attributes")
    ));
    question
        .organization("organization_id", reading, filter.organization_id.as_deref())
        .where_("actor_id = ", filter.actor_id.as_deref())
        .where_("actor_type = ", filter.actor_type.as_deref())
        .where_("action = ", filter.action.as_deref())
        .where_("target_type = ", filter.target_type.as_deref())
        .where_("target_id = ", filter.target_id.as_deref())
        .where_("status = ", filter.status.as_deref());
    if let Some(Address { ip, prefix_bits }) = filter.ip_address {
        question.and("ip_address <<= ").bind(format!("{ip}/{prefix_bits}")).push("::text::inet");
    }
    question
        .on("created_at", page)
        .newest("created_at", page.limit)
        .push(") AS record")
        // The platform's own deeds have no person behind them, whatever somebody calls a user.
        .push(&known_as("actor", "user", "nullif(record.actor_id, 'system')"))
        .push(" ORDER BY created_at DESC, id DESC");
    question
}
