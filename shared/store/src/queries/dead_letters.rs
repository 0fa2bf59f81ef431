//! Messages that could not become a row.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::select::Select;
use super::{Page, listed_by};
use crate::dead_letters::StoredDeadLetter;
use crate::scoped_read::{ReadTransaction, Scope};

/// Whose a dead letter is, as the policy has it.
const ORGANIZATION: &str = "watchbook.organization_of(subject, stream)";

/// Which dead letters; all that are neither replayed nor discarded where nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// Only of this organization, by the subject.
    pub organization_id: Option<String>,
    /// Only of this kind.
    pub kind: Option<String>,
    /// Only of this reason.
    pub reason: Option<String>,
    /// Those that were replayed or discarded as well.
    pub settled_too: bool,
}

/// A dead letter without its body.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, Serialize, ToSchema)]
pub struct DeadLetterRow {
    /// Its id.
    pub id: Uuid,
    /// Whose it is, by the subject.
    pub organization_id: Option<String>,
    /// The kind of its stream.
    pub kind: String,
    /// On which subject it was published.
    pub subject: String,
    /// In which stream it stood.
    pub stream: String,
    /// Where in the stream; null for who does not see everything, and would learn by it how much others publish.
    pub stream_seq: Option<i64>,
    /// Why it could not become a row.
    pub reason: String,
    /// The field at fault.
    pub field: Option<String>,
    /// The reason in words.
    pub detail: String,
    /// How long the body is.
    pub payload_bytes: i64,
    /// When the stream took it.
    pub received_at: DateTime<Utc>,
    /// When it was found wanting.
    pub failed_at: DateTime<Utc>,
    /// When it was published again.
    pub replayed_at: Option<DateTime<Utc>>,
    /// When somebody decided that it is not needed.
    pub discarded_at: Option<DateTime<Utc>>,
}
listed_by!(failed_at: DeadLetterRow);

/// `GET /api/dead-letters`, by the time when they failed.
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
pub async fn list(
    transaction: &mut ReadTransaction,
    filter: &DeadLetterFilter,
    page: &Page,
) -> crate::Result<Vec<DeadLetterRow>> {
    let mut select = Select::of(&format!(
        "SELECT id, {ORGANIZATION} AS organization_id, kind, subject, stream, stream_seq, reason, field, detail,
                octet_length(payload)::bigint AS payload_bytes, received_at, failed_at, replayed_at, discarded_at
           FROM watchbook.dead_letters"
    ));
    select
        .organization(ORGANIZATION, transaction, filter.organization_id.as_deref())
        .and_optional("kind = ", filter.kind.as_deref())
        .and_optional("reason = ", filter.reason.as_deref());
    if !filter.settled_too {
        select.and("replayed_at IS NULL").and("discarded_at IS NULL");
    }
    let mut letters: Vec<DeadLetterRow> =
        select.on("failed_at", page).newest("failed_at", page.limit).all(transaction).await?;
    if *transaction.scope() != Scope::All {
        letters.iter_mut().for_each(|letter| letter.stream_seq = None);
    }
    Ok(letters)
}

/// `GET /api/dead-letters/{id}`, and what a replay or a discard is asked of: the one of this id that failed last, whole.
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
pub async fn find(transaction: &mut ReadTransaction, id: Uuid) -> crate::Result<Option<StoredDeadLetter>> {
    crate::dead_letters::newest(transaction.connection(), id).await
}
