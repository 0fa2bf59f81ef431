//! That somebody watches the audit log, as an audit record: before the first event, so that nobody watches without.

use std::time::Duration;

use axum::http::{HeaderMap, header};
use records::audit::{AuditRecord, Status};
use records::{ActorType, Json};
use serde_json::{Value, json};
use store::reading::Scope;

use super::wanted::Wanted;
use crate::app::App;
use crate::auth::Caller;
use crate::problem::Problem;

/// What is kept of a program's name for itself.
const USER_AGENT_BYTES: usize = 512;
/// When to ask again where the record cannot be written.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Tells it in the log that is watched, or in the platform's own where these are several or none: nobody can write into
/// the log of others. Goes on where the caller hangs up: who has begun to ask cannot take it back.
///
/// # Errors
/// 503 where the stream does not take the record; then nothing may be answered.
pub(super) async fn tell(
    app: &App,
    caller: &Caller,
    wanted: &Wanted,
    last_seen: Option<u64>,
    headers: &HeaderMap,
) -> Result<(), Problem> {
    let (organization, seen) = match wanted.scope() {
        Scope::All => (None, Value::from("*")),
        Scope::Organizations(names) => (names.first().filter(|_| names.len() == 1).cloned(), json!(names)),
    };
    let metadata = json!({
        "route": "/api/live/audit", "filters": wanted.filters(), "organizations": seen, "last_event_id": last_seen,
    });
    let program = headers.get(header::USER_AGENT).map(|program| String::from_utf8_lossy(program.as_bytes()));
    let program = program.map(|program| program[..program.floor_char_boundary(USER_AGENT_BYTES)].to_owned());
    let record = AuditRecord {
        actor_id: caller.subject.to_string().into(),
        actor_type: ActorType::User,
        action: "audit.watch".into(),
        target_type: "audit_log".into(),
        target_id: organization.clone().unwrap_or_else(|| "*".to_owned()).into(),
        status: Status::Success,
        metadata: Json::of(&metadata).unwrap_or_default(),
        user_agent: program.map(Into::into),
        ..AuditRecord::default()
    };
    let publisher = app.publisher.clone();
    let publish = async move {
        match organization {
            Some(organization) => publisher.for_organization(&organization)?.publish(record).await,
            None => publisher.publish(record).await,
        }
    };
    match tokio::spawn(publish).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => {
            tracing::warn!(%error, "nobody watches the audit log: that somebody does cannot be recorded");
            Err(Problem::unavailable("that this is watched cannot be recorded now", ASK_AGAIN))
        }
        Err(error) => {
            tracing::error!(%error, "an audit record was not written, which is a bug");
            Err(Problem::internal())
        }
    }
}
