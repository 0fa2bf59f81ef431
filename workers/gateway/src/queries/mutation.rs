//! What all changes share: ids, bodies, reasons, and the transaction with its audit event.

use std::borrow::Cow;

use axum::extract::Request;
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use store::PgConnection;
use uuid::Uuid;

use crate::app::App;
use crate::audited_action::AuditedAction;
use crate::auth::Caller;
use crate::body;
use crate::problem::{Fault, Problem};
use crate::request_context::RequestContext;

/// The maximum size of a body: enough for fifty matchers and a reason.
const BODY_BYTES: u64 = 128 * 1024;
/// The maximum length of a reason.
const REASON_BYTES: usize = 4096;

/// Parses an id in a path.
///
/// # Errors
/// 400 if it is not a UUID.
pub(super) fn id(text: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(text).map_err(|_| Problem::parameters(vec![Fault::of("id", "expected a UUID")]))
}

/// Reads a JSON body.
///
/// # Errors
/// 400 with the error if it does not have the expected form; 413, 415, 429 and 503 as for every body.
pub(super) async fn body<T: DeserializeOwned>(app: &App, caller: &Caller, request: Request) -> Result<T, Problem> {
    let body = body::read_json(app, &caller.subject, request, BODY_BYTES).await?;
    serde_json::from_slice(&body.bytes)
        .map_err(|error| Problem::parameters(vec![Fault::of("body", format!("cannot be read: {error}"))]))
}

/// Checks the reason for a change, which is kept for later readers.
///
/// # Errors
/// 400 if it is empty, too long, or contains NUL, which Postgres cannot store.
pub(super) fn reason(text: String) -> Result<String, Problem> {
    let problem = match text.trim() {
        "" => "is empty: later readers need to know why",
        _ if text.len() > REASON_BYTES => "is longer than 4096 bytes",
        _ if text.contains('\0') => "contains NUL",
        _ => return Ok(text),
    };
    Err(Problem::parameters(vec![Fault::of("reason", problem)]))
}

/// Changes something, and writes the audit event in the same transaction. If there is nothing to change, no audit
/// event is written.
///
/// # Errors
/// 409 with `conflict_detail` if `change` returns `false`, 503 if the database is unavailable.
pub(super) async fn apply(
    app: &App,
    caller: &Caller,
    context: &RequestContext,
    action: AuditedAction,
    conflict_detail: &'static str,
    change: impl AsyncFnOnce(&mut PgConnection) -> store::Result<bool>,
) -> Result<StatusCode, Problem> {
    let act = async {
        let mut transaction = app.pool.begin().await?;
        if !change(&mut transaction).await? {
            return Ok(false);
        }
        action.write(&mut transaction, caller, context).await?;
        transaction.commit().await?;
        Ok(true)
    };
    match act.await.map_err(|error: store::Error| Problem::of_database(&error))? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(conflict(conflict_detail)),
    }
}

/// 409: the state of the target does not allow the change.
pub(super) fn conflict(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(StatusCode::CONFLICT, "conflict", "Conflict", detail)
}
