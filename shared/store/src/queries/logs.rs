//! What containers printed.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::select::Select;
use super::{MAX_UNINDEXED_RANGE, Page, StoredJson, listed_by, printable};
use crate::scoped_read::{ReadTransaction, Scope};

/// Which lines; all where nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// Only of this organization.
    pub organization_id: Option<String>,
    /// Only of this container.
    pub container_id: Option<String>,
    /// Only of this stream: `stdout` or `stderr`.
    pub stream: Option<String>,
    /// Only with this text in the line, to the letter.
    pub contains: Option<String>,
}

impl LogFilter {
    /// How long a time somebody may ask for: text is searched for line by line. `None` where an index leads to the lines,
    /// or all are meant.
    pub fn longest(&self, scope: &Scope) -> Option<TimeDelta> {
        let is_narrowed = self.organization_id.is_some() || self.stream.is_some() || *scope != Scope::All;
        let is_searched = self.contains.is_some() || (self.container_id.is_none() && is_narrowed);
        is_searched.then_some(MAX_UNINDEXED_RANGE)
    }
}

/// A line.
#[derive(Debug, Clone, FromRow, Serialize, ToSchema)]
pub struct LogRow {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub organization_id: Option<String>,
    /// When it was printed.
    pub created_at: DateTime<Utc>,
    /// When the stream took it.
    pub received_at: DateTime<Utc>,
    /// Who published it.
    pub source: Option<String>,
    /// The container.
    pub container_id: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The line.
    pub message: String,
    /// Whatever the contract has no field for.
    #[schema(value_type = Object)]
    pub attributes: StoredJson,
}
listed_by!(created_at: LogRow);

/// `GET /api/logs`
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
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
