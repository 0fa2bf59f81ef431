//! Watchbook's own records, such as the audit record of a retention run, a hold, or a read of the audit log. They
//! use the same subjects and tables as all other records.
//!
//! They are written to an outbox table in the transaction of the action that they record, so that neither exists
//! without the other. From there they are published until the stream has acknowledged them, also after an outage of
//! NATS. Every process that writes such records also publishes those of other processes. A record that is published
//! twice is stored once.

mod publishing;

use std::net::IpAddr;

use chrono::Utc;
use records::audit::{AuditRecord, Status};
use records::errors::{ErrorRecord, Severity};
use records::{ActorType, Json, Outgoing, Record};
use serde_json::Value;
use store::{PgConnection, internal_records};
use uuid::Uuid;

pub use publishing::{publish_pending, run_publisher};

/// Metric: number of internal records published by this process, whichever process wrote them.
pub const PUBLISHED_RECORDS: &str = "watchbook_own_records_total";

/// The `source` of internal records.
const SOURCE: &str = "watchbook";
/// The `actor_id` of actions that no user requested.
pub const SYSTEM: &str = "system";
/// Maximum length of a text in an audit record, in bytes.
const TEXT_BYTES: usize = records::limits::TEXT_BYTES;

/// An action to record in the audit log.
#[derive(Debug, Clone, Default)]
pub struct AuditEvent<'d> {
    /// The organization concerned. `None` if there is none or all are.
    pub organization_id: Option<&'d str>,
    /// Who acted.
    pub actor_id: &'d str,
    /// Whether the actor is a caller of the gateway. Then the name `system` has no special meaning.
    pub is_caller: bool,
    /// The action, such as `retention.run`.
    pub action: &'static str,
    /// The type of the target.
    pub target_type: &'static str,
    /// The id of the target.
    pub target_id: String,
    /// Why the action was taken.
    pub reason: Option<&'d str>,
    /// The error, if the action failed.
    pub problem: Option<&'d str>,
    /// Additional data, such as counts.
    pub metadata: Value,
    /// The client's IP address, if known.
    pub ip_address: Option<IpAddr>,
    /// The client's user agent, if known.
    pub user_agent: Option<&'d str>,
}

/// Writes the audit record of an action, in the transaction of that action.
///
/// # Errors
/// If the statement fails.
pub async fn audit(transaction: &mut PgConnection, event: &AuditEvent<'_>) -> store::Result<()> {
    let record = AuditRecord {
        actor_id: event.actor_id.into(),
        actor_type: if event.actor_id == SYSTEM && !event.is_caller { ActorType::System } else { ActorType::User },
        action: event.action.into(),
        target_type: event.target_type.into(),
        target_id: event.target_id.as_str().into(),
        status: if event.problem.is_some() { Status::Failure } else { Status::Success },
        reason: event.reason.map(|reason| cut(reason).into()),
        error_details: event.problem.map(|problem| cut(problem).into()),
        metadata: Json::of(&event.metadata).unwrap_or_default(),
        ip_address: event.ip_address.map(Into::into),
        user_agent: event.user_agent.map(|program| cut(program).into()),
    };
    write(transaction, event.organization_id, record).await
}

/// Writes an error record, in the given transaction. Alert rules see it like any other error record.
///
/// # Errors
/// If the statement fails.
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
    // `_` means no organization.
    let organization_id = organization_id.filter(|organization| *organization != records::subject::NO_ORGANIZATION);
    // Internal records are plain data, so serializing them cannot fail.
    let body = serde_json::to_value(&outgoing).unwrap_or_default();
    internal_records::insert(transaction, outgoing.id, R::KIND, organization_id, &body, outgoing.created_at).await
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES)]
}
