//! What Watchbook says of itself, such as of a run, a hold, or somebody who reads the audit log: records like everybody
//! else's, through the same subjects.
//!
//! They are written in the transaction of what they tell of, so there is none without the other; and published from
//! there until the stream has them, so they wait for NATS where it is away. Every process that writes them publishes
//! them too, whoever's they are: published twice, a record is stored once.

mod publishing;

use std::net::IpAddr;

use chrono::Utc;
use records::audit::{AuditRecord, Status};
use records::errors::{ErrorRecord, Severity};
use records::{ActorType, Json, Outgoing, Record};
use serde_json::Value;
use store::{PgConnection, own_records};
use uuid::Uuid;

pub use publishing::{keep_publishing, publish_own_records};

/// A metric: records that were published, of whatever this process or another one did.
pub const OWN_RECORDS: &str = "watchbook_own_records_total";

/// Who published it.
const SOURCE: &str = "watchbook";
/// Who acts where nobody asked for it.
pub const SYSTEM: &str = "system";
/// What an audit record may hold of a text.
const TEXT_BYTES: usize = records::limits::TEXT_BYTES;

/// Something that was done, to be told.
#[derive(Debug, Clone, Default)]
pub struct Deed<'d> {
    /// Whose it is; `None` for nobody's, or everybody's.
    pub organization_id: Option<&'d str>,
    /// Who did it.
    pub actor_id: &'d str,
    /// Whether they are a caller of the gateway: then `system` is a name like any other.
    pub is_caller: bool,
    /// What was done, such as `retention.run`.
    pub action: &'static str,
    /// What kind of thing it was done to.
    pub target_type: &'static str,
    /// Which one.
    pub target_id: String,
    /// Why.
    pub reason: Option<&'d str>,
    /// What failed.
    pub problem: Option<&'d str>,
    /// Figures.
    pub metadata: Value,
    /// From where, where it is known.
    pub ip_address: Option<IpAddr>,
    /// With which program.
    pub user_agent: Option<&'d str>,
}

/// Writes the audit record of a deed, in its transaction.
///
/// # Errors
/// Where the statement fails.
pub async fn audit(transaction: &mut PgConnection, deed: &Deed<'_>) -> store::Result<()> {
    let record = AuditRecord {
        actor_id: deed.actor_id.into(),
        actor_type: if deed.actor_id == SYSTEM && !deed.is_caller { ActorType::System } else { ActorType::User },
        action: deed.action.into(),
        target_type: deed.target_type.into(),
        target_id: deed.target_id.as_str().into(),
        status: if deed.problem.is_some() { Status::Failure } else { Status::Success },
        reason: deed.reason.map(|reason| cut(reason).into()),
        error_details: deed.problem.map(|problem| cut(problem).into()),
        metadata: Json::of(&deed.metadata).unwrap_or_default(),
        ip_address: deed.ip_address.map(Into::into),
        user_agent: deed.user_agent.map(|program| cut(program).into()),
    };
    write(transaction, deed.organization_id, record).await
}

/// Writes an error record: by it, as by anybody's, the alert worker hears of the matter.
///
/// # Errors
/// Where the statement fails.
pub async fn error(
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
