//! Reads events in chronological order, for `watchbook replay events`.

use std::ops::ControlFlow;

use chrono::{DateTime, Utc};
use records::subject::NO_ORGANIZATION;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::FromRow;
use uuid::Uuid;

use super::events::EventFilter;
use super::select::Select;
use super::{Page, Span, listed_by};
use crate::scoped_read::ReadTransaction;

/// An event as it is stored. Its JSON is the record that was published, with the names of the contract. JSON columns
/// stay the text that Postgres prints, so that no number loses a digit.
#[derive(Debug, Clone, FromRow, Serialize)]
pub struct StoredEvent {
    /// Its id.
    pub id: Uuid,
    /// The organization that owns it; null if it belongs to the platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization_id: Option<String>,
    /// When it happened.
    pub created_at: DateTime<Utc>,
    /// Its type.
    pub event_type: String,
    /// The event's payload.
    #[sqlx(json)]
    pub payload: Box<RawValue>,
    /// The project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// The run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// `user`, `system` or `api_key`.
    pub actor_type: String,
    /// The actor's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor_id: Option<String>,
    /// The service that published it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Fields that the contract does not define.
    #[sqlx(json)]
    #[serde(skip_serializing_if = "is_nothing")]
    pub attributes: Box<RawValue>,
}
listed_by!(created_at: StoredEvent);

impl StoredEvent {
    /// Returns whether it is complete. JSON that can be printed neither in full nor with exponents is replaced by
    /// null, which no stored payload is.
    pub fn is_whole(&self) -> bool {
        [&self.payload, &self.attributes].into_iter().all(|json| json.get() != "null")
    }
}

/// Returns a `jsonb` column as a replay selects it: numbers that print long are written with exponents, as their
/// producer may have written them. See `migrations/0017_long_numbers.sql`.
fn as_published(column: &str) -> String {
    format!(
        "CASE WHEN watchbook.prints_long({column})
              THEN CASE WHEN watchbook.can_be_abbreviated({column}) THEN watchbook.abbreviated({column})::json ELSE 'null' END
              ELSE {column}::json END AS {column}"
    )
}

fn is_nothing(json: &RawValue) -> bool {
    json.get() == "{}"
}

/// Passes on the events of a page, oldest first, each as it arrives, until `take` has enough. The organization `_`
/// stands for events without one. If only an organization is given, no index leads to its events: use a short range.
///
/// # Errors
/// If the query fails or times out, and any error of `take`.
pub async fn each(
    transaction: &mut ReadTransaction,
    filter: &EventFilter,
    page: &Page,
    take: impl FnMut(StoredEvent) -> crate::Result<ControlFlow<()>> + Send,
) -> crate::Result<()> {
    let selection = format!(
        "SELECT id, organization_id, created_at, event_type, {}, project_id, run_id, user_id, actor_type, actor_id, source, {}
           FROM watchbook.event_logs",
        as_published("payload"),
        as_published("attributes")
    );
    let mut select = select_events(&selection, transaction, filter);
    select.onward("created_at", page).oldest("created_at", page.limit).each(transaction, take).await
}

/// Returns the number of events in a range.
///
/// # Errors
/// If the query fails or times out.
pub async fn count(transaction: &mut ReadTransaction, filter: &EventFilter, span: &Span) -> crate::Result<u64> {
    let mut select = select_events("SELECT count(*) FROM watchbook.event_logs", transaction, filter);
    let (count,): (i64,) = select.within("created_at", span).one(transaction).await?;
    Ok(u64::try_from(count).unwrap_or_default())
}

/// Returns the time of the oldest event of all organizations.
///
/// # Errors
/// As [`count`].
pub async fn oldest(transaction: &mut ReadTransaction) -> crate::Result<Option<DateTime<Utc>>> {
    sqlx::query_scalar("SELECT created_at FROM watchbook.event_logs ORDER BY created_at LIMIT 1")
        .fetch_optional(transaction.connection())
        .await
}

fn select_events<'q>(selection: &str, transaction: &ReadTransaction, filter: &'q EventFilter) -> Select<'q> {
    let mut select = Select::of(selection);
    match filter.organization_id.as_deref() {
        Some(NO_ORGANIZATION) => select.and("organization_id IS NULL"),
        wanted => select.organization("organization_id", transaction, wanted),
    };
    filter.add_to(&mut select);
    select
}
