//! What a run, a hold or an erasure says of itself: records like everybody else's, through the same subjects.
//!
//! They are written in the transaction of what they tell of, so there is none without the other; and published from
//! there until the stream has them, so they wait for NATS where it is away.

use chrono::Utc;
use publisher::Publisher;
use records::audit::{AuditRecord, Status};
use records::errors::{ErrorRecord, Severity};
use records::{ActorType, Json, Kind, Outgoing, Record};
use serde_json::Value;
use store::{PgConnection, own_records};
use uuid::Uuid;

/// Who published it.
const SOURCE: &str = "watchbook";
/// Who acts where nobody asked for it.
pub(crate) const SYSTEM: &str = "system";
/// The errors by which the alert worker hears of a run that failed.
pub(crate) const FAILED: &str = "watchbook.retention";
/// The errors by which it hears that days are missing for which records will come.
pub(crate) const NO_PARTITIONS: &str = "watchbook.partitions";
/// Records that are published between two looks at the database.
const AT_ONCE: u32 = 100;
/// What an audit record may hold of a text.
const TEXT_BYTES: usize = records::limits::TEXT_BYTES;

/// Something that was done, to be told.
#[derive(Debug, Clone)]
pub(crate) struct Deed<'d> {
    /// Whose it is; `None` for nobody's, or everybody's.
    pub(crate) organization_id: Option<&'d str>,
    /// Who did it.
    pub(crate) actor_id: &'d str,
    /// What was done, such as `retention.run`.
    pub(crate) action: &'static str,
    /// What kind of thing it was done to.
    pub(crate) target_type: &'static str,
    /// Which one.
    pub(crate) target_id: String,
    /// Why.
    pub(crate) reason: Option<&'d str>,
    /// What failed.
    pub(crate) problem: Option<&'d str>,
    /// Figures.
    pub(crate) metadata: Value,
}

/// Writes the audit record of a deed, in its transaction.
pub(crate) async fn audit(transaction: &mut PgConnection, deed: &Deed<'_>) -> store::Result<()> {
    let record = AuditRecord {
        actor_id: deed.actor_id.into(),
        actor_type: if deed.actor_id == SYSTEM { ActorType::System } else { ActorType::User },
        action: deed.action.into(),
        target_type: deed.target_type.into(),
        target_id: deed.target_id.clone().into(),
        status: if deed.problem.is_some() { Status::Failure } else { Status::Success },
        reason: deed.reason.map(|reason| cut(reason).into()),
        error_details: deed.problem.map(|problem| cut(problem).into()),
        metadata: Json::of(&deed.metadata).unwrap_or_default(),
        ..AuditRecord::default()
    };
    write(transaction, deed.organization_id, record).await
}

/// Writes an error record: by it, as by anybody's, the alert worker hears of the matter.
pub(crate) async fn error(
    transaction: &mut PgConnection,
    error_type: &'static str,
    trace: Uuid,
    message: &str,
) -> store::Result<()> {
    let record = ErrorRecord {
        trace_id: trace.to_string().into(),
        error_type: error_type.into(),
        message: cut(message).into(),
        severity: Severity::Critical,
        ..ErrorRecord::default()
    };
    write(transaction, None, record).await
}

async fn write<R: Record>(
    transaction: &mut PgConnection,
    organization_id: Option<&str>,
    record: R,
) -> store::Result<()> {
    let outgoing = Outgoing {
        id: Uuid::now_v7(),
        created_at: Utc::now(),
        source: Some(SOURCE.to_owned()),
        attributes: serde_json::Map::new(),
        record,
    };
    // An organization of `_` is none.
    let organization_id = organization_id.filter(|organization| *organization != records::subject::NO_ORGANIZATION);
    // A record of ours is plain data: it always is JSON.
    let body = serde_json::to_value(&outgoing).unwrap_or_default();
    own_records::insert(transaction, outgoing.id, R::KIND, organization_id, &body, outgoing.created_at).await
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES)]
}

/// Publishes what Watchbook has to say of itself, until nothing is left or NATS does not take it. Returns how many
/// records are out.
///
/// # Errors
/// Where Postgres does not answer.
pub async fn publish_own_records(connection: &mut PgConnection, publisher: &Publisher) -> store::Result<u64> {
    let (mut published, mut after) = (0, None);
    loop {
        let records = own_records::oldest(connection, after, AT_ONCE).await?;
        let Some(last) = records.last() else { return Ok(published) };
        after = Some((last.created_at, last.id));
        for own in records {
            // Of a kind that a newer version knows.
            let Ok(kind) = own.kind.parse::<Kind>() else { continue };
            let body = own.record.to_string();
            match publisher.publish_json(kind, own.organization_id.as_deref(), body.as_bytes()).await {
                Ok(_) => {
                    own_records::remove(connection, own.id).await?;
                    published += 1;
                }
                Err(error) if error.is_retryable() => {
                    tracing::debug!(%error, "what Watchbook has to say of itself waits for NATS");
                    return Ok(published);
                }
                // It stays in its table, where somebody may look at it, and holds up no other.
                Err(error) => tracing::error!(id = %own.id, %error, "a record of Watchbook's own is refused"),
            }
        }
    }
}
