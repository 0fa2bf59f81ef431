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

/// The organization of a dead letter, as in the row-level security policy.
const ORGANIZATION: &str = "watchbook.organization_of(subject, stream)";

/// A filter for dead letters. `None` matches all; replayed and discarded ones are left out by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// The organization to match, taken from the subject.
    pub organization_id: Option<String>,
    /// The kind to match.
    pub kind: Option<String>,
    /// The reason to match.
    pub reason: Option<String>,
    /// Whether to include dead letters that were replayed or discarded.
    pub settled_too: bool,
}

/// A dead letter without its body.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, Serialize, ToSchema)]
pub struct DeadLetterRow {
    /// Its id.
    pub id: Uuid,
    /// The organization, taken from the subject.
    pub organization_id: Option<String>,
    /// The kind of record that its stream holds.
    pub kind: String,
    /// The subject on which it was published.
    pub subject: String,
    /// The stream that held it.
    pub stream: String,
    /// Its sequence in the stream; null unless the caller sees all organizations, because it would reveal how much
    /// others publish.
    pub stream_seq: Option<i64>,
    /// Why it could not become a row, as a code.
    pub reason: String,
    /// The field at fault.
    pub field: Option<String>,
    /// The reason in words.
    pub detail: String,
    /// The length of the body in bytes.
    pub payload_bytes: i64,
    /// When JetStream stored it.
    pub received_at: DateTime<Utc>,
    /// When it became a dead letter.
    pub failed_at: DateTime<Utc>,
    /// When it was published again.
    pub replayed_at: Option<DateTime<Utc>>,
    /// When it was discarded.
    pub discarded_at: Option<DateTime<Utc>>,
}
listed_by!(failed_at: DeadLetterRow);

/// Serves `GET /api/dead-letters`: returns dead letters, most recently failed first.
///
/// # Errors
/// If the query fails or times out.
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

/// Serves `GET /api/dead-letters/{id}`, replay and discard: returns the dead letter with this id that failed last,
/// with its body.
///
/// # Errors
/// If the query fails or times out.
pub async fn find(transaction: &mut ReadTransaction, id: Uuid) -> crate::Result<Option<StoredDeadLetter>> {
    crate::dead_letters::newest(transaction.connection(), id).await
}
