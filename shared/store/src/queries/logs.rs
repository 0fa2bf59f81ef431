//! Log lines of containers.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::select::Select;
use super::{MAX_UNINDEXED_RANGE, Page, StoredJson, listed_by, printable};
use crate::scoped_read::{ReadTransaction, Scope};

/// A filter for log lines. `None` matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// The organization to match.
    pub organization_id: Option<String>,
    /// The container to match.
    pub container_id: Option<String>,
    /// The stream to match: `stdout` or `stderr`.
    pub stream: Option<String>,
    /// The text that a line has to contain. Case matters.
    pub contains: Option<String>,
}

impl LogFilter {
    /// Returns the longest range to query, because text is searched line by line; `None` if an index leads to the
    /// lines, or if all are requested.
    pub fn longest(&self, scope: &Scope) -> Option<TimeDelta> {
        let is_narrowed = self.organization_id.is_some() || self.stream.is_some() || *scope != Scope::All;
        let is_searched = self.contains.is_some() || (self.container_id.is_none() && is_narrowed);
        is_searched.then_some(MAX_UNINDEXED_RANGE)
    }
}

/// A log line.
#[derive(Debug, Clone, FromRow, Serialize, ToSchema)]
pub struct LogRow {
    /// Its id.
    pub id: Uuid,
    /// The organization that owns it; null if it belongs to the platform.
    pub organization_id: Option<String>,
    /// When it was printed.
    pub created_at: DateTime<Utc>,
    /// When JetStream stored it.
    pub received_at: DateTime<Utc>,
    /// The service that published it.
    pub source: Option<String>,
    /// The container.
    pub container_id: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The text of the line.
    pub message: String,
    /// Fields that the contract does not define.
    #[schema(value_type = Object)]
    pub attributes: StoredJson,
}
listed_by!(created_at: LogRow);

/// Serves `GET /api/logs`.
///
/// # Errors
/// If the query fails or times out.
pub async fn list(transaction: &mut ReadTransaction, filter: &LogFilter, page: &Page) -> crate::Result<Vec<LogRow>> {
    let mut select = Select::of(&format!(
        "SELECT id, organization_id, created_at, received_at, source, container_id, stream, message, {}
           FROM watchbook.container_logs",
        printable("attributes")
    ));
    select
        .organization("organization_id", transaction, filter.organization_id.as_deref())
        .and_optional("container_id = ", filter.container_id.as_deref())
        .and_optional("stream = ", filter.stream.as_deref());
    if let Some(text) = filter.contains.as_deref() {
        select.and("strpos(message, ").bind(text).push(") > 0");
    }
    select.on("created_at", page).newest("created_at", page.limit).all(transaction).await
}
