//! Events once more, in the order in which they happened: for `watchbook replay events`.

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

/// An event as it is stored. As JSON it is the record that was published, under the contract's names; what is JSON in it
/// stays the text that Postgres has, so that no number loses a digit.
#[derive(Debug, Clone, FromRow, Serialize)]
pub struct StoredEvent {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization_id: Option<String>,
    /// When it happened.
    pub created_at: DateTime<Utc>,
    /// Its type.
    pub event_type: String,
    /// Whatever belongs to it.
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
    /// Who acted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor_id: Option<String>,
    /// Who published it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Whatever the contract has no field for.
    #[sqlx(json)]
    #[serde(skip_serializing_if = "is_nothing")]
    pub attributes: Box<RawValue>,
}
listed_by!(created_at: StoredEvent);

impl StoredEvent {
    /// Whether it is here as it is stored. One whose JSON can be printed neither as it is nor with exponents has null in
    /// its place, which is no payload that was ever stored.
    pub fn is_whole(&self) -> bool {
        [&self.payload, &self.attributes].into_iter().all(|json| json.get() != "null")
    }
}

/// A `jsonb` column as a replay selects it: numbers that print long with exponents, as their producer may have written
/// them. See `migrations/0017_long_numbers.sql`.
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

/// The events of a page, the oldest first, each as it comes, until `take` has enough. The organization `_` stands for
/// those that have none. Where only an organization is named no index leads to its events: ask for a short time then.
///
/// # Errors
/// Where the database cannot be asked, or takes too long; and what `take` fails with.
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

/// How many events there are of a time.
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
pub async fn count(transaction: &mut ReadTransaction, filter: &EventFilter, span: &Span) -> crate::Result<u64> {
    let mut select = select_events("SELECT count(*) FROM watchbook.event_logs", transaction, filter);
    let (count,): (i64,) = select.within("created_at", span).one(transaction).await?;
    Ok(u64::try_from(count).unwrap_or_default())
}

/// When the oldest event of all happened.
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
