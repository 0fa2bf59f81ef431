//! What all that changes something has in common: ids, bodies, reasons, and the transaction with its audit record.

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

/// A body at the most: fifty matchers and a reason.
const BODY_BYTES: u64 = 128 * 1024;
/// A reason at the most.
const REASON_BYTES: usize = 4096;

/// An id of a path.
///
/// # Errors
/// 400 where it is none.
pub(super) fn id(text: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(text).map_err(|_| Problem::parameters(vec![Fault::of("id", "expected a UUID")]))
}

/// A body, which is JSON.
///
/// # Errors
/// 400 where it is not what is expected, with what is wrong; 413, 415, 429 and 503 as all bodies.
pub(super) async fn body<T: DeserializeOwned>(app: &App, caller: &Caller, request: Request) -> Result<T, Problem> {
    let body = body::read_json(app, &caller.subject, request, BODY_BYTES).await?;
    serde_json::from_slice(&body.bytes)
        .map_err(|error| Problem::parameters(vec![Fault::of("body", format!("cannot be read: {error}"))]))
}

/// Why something is done: whoever looks next will want to know.
///
/// # Errors
/// 400 where nothing is said, or what cannot be stored.
pub(super) fn reason(text: String) -> Result<String, Problem> {
    let problem = match text.trim() {
        "" => "is empty: whoever looks next will want to know",
        _ if text.len() > REASON_BYTES => "is longer than 4096 bytes",
        _ if text.contains('\0') => "has NUL in it",
        _ => return Ok(text),
    };
    Err(Problem::parameters(vec![Fault::of("reason", problem)]))
}

/// Changes something, and writes in the same transaction who did it; where nothing was to be changed any more, nothing is
/// written either.
///
/// # Errors
/// 409 with `conflict_detail` where `change` says so, 503 where the database does not answer.
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

/// 409: it is not as it would have to be.
pub(super) fn conflict(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(StatusCode::CONFLICT, "conflict", "Not as it would have to be", detail)
}
