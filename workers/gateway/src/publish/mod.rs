//! `POST /api/{kind}`: publishes records to their stream. Responds with 202 after JetStream has acknowledged all.
//!
//! The steps, in this order:
//!
//! 1. Determine the organization, and read the format of the body from the headers (`form`).
//! 2. Read the body, and split it into records (`input`).
//! 3. With an `Idempotency-Key`, fix the identity of the records (`identity`).
//! 4. Turn each record into plain JSON, out of its CloudEvent if it is in one, and check it with the writers' decoder.
//! 5. Publish the records if all are valid. Headers of the request are never copied to messages.

mod describe;
mod form;
mod identity;
mod input;
mod refusals;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use axum::{Extension, Json};
use publisher::{Encoded, PublishError, Terms};
use records::{Kind, subject};
use serde::Serialize;
use uuid::Uuid;

use self::form::Form;
use self::identity::Identity;
use crate::app::App;
use crate::auth::{Caller, Organizations};
use crate::problem::{Fault, Problem};
use crate::query::{NoParams, Query};
use crate::{body, metrics};

pub(crate) use describe::describe;
pub(crate) use form::ATTRIBUTES;

/// The header with the organization of the records.
pub(crate) const ORGANIZATION: HeaderName = HeaderName::from_static("x-organization");
/// The header with the idempotency key, by which a repeated request is recognized.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Number of records that are checked before yielding to other requests: about a millisecond of work.
const CHECKED_AT_ONCE: usize = 128;

/// The response: the number and the ids of the published records.
#[derive(Debug, Serialize)]
struct Accepted {
    accepted: usize,
    ids: Vec<Uuid>,
}

/// Returns the handler of a kind.
pub(crate) fn route(kind: Kind) -> MethodRouter<App> {
    post(publish).route_layer(Extension(kind))
}

async fn publish(
    State(app): State<App>,
    Extension(kind): Extension<Kind>,
    Query(NoParams): Query<NoParams>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    let organization = organization(&caller, request.headers())?;
    let form = Form::of(request.headers())?;
    let coding = body::coding(request.headers())?;
    let key = identity::key(request.headers())?;
    let limit = app.settings.gateway.max_body_bytes.as_u64();
    let body = body::read(&app, &caller.subject, request, limit, coding).await?;
    let records = input::records_of(&body.bytes, &form)?;
    let identity = match key {
        Some(key) => {
            let of_body = form.fingerprint(&body.bytes);
            Some(Identity::remember(&app, &caller, &organization, kind, &key, &of_body).await?)
        }
        None => None,
    };
    let prepared = prepare(&app, kind, &organization, &form, &records, identity.as_ref()).await;
    if let (Err(_), Some(identity)) = (&prepared, &identity) {
        identity.take_back(&app).await;
    }
    let (ids, messages) = prepared?;
    send(&app, kind, messages).await?;
    ::metrics::counter!(metrics::PUBLISHED, "kind" => kind.name()).increment(ids.len() as u64);
    Ok((StatusCode::ACCEPTED, Json(Accepted { accepted: ids.len(), ids })).into_response())
}

/// Returns the organization of the records: that of the header, or the token's only one. `_` means no organization.
///
/// # Errors
/// 403 for an organization that the token does not have; 400 for an invalid or missing header.
fn organization(caller: &Caller, headers: &HeaderMap) -> Result<String, Problem> {
    let forbidden = |detail: &'static str| Problem::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed", detail);
    let wrong = |reason: &str| Problem::parameters(vec![Fault::of("X-Organization", reason)]);
    let mut values = headers.get_all(&ORGANIZATION).iter();
    let named = values.next().map(|value| value.to_str().unwrap_or_default());
    if values.next().is_some() {
        return Err(wrong("occurs twice"));
    }
    match (named, &caller.organizations) {
        (Some(named), _) if !subject::is_organization(named) => Err(wrong("expected 1 to 64 of A-Z a-z 0-9 _ -")),
        (Some(named), Organizations::All) => Ok(named.to_owned()),
        (Some(named), Organizations::Set(own)) if own.contains(named) => Ok(named.to_owned()),
        (Some(_), Organizations::Set(_)) => {
            Err(forbidden("the token does not have the organization in X-Organization"))
        }
        (None, Organizations::All) => Ok(subject::NO_ORGANIZATION.to_owned()),
        (None, Organizations::Set(own)) => match (own.first(), own.len()) {
            (Some(only), 1) => Ok(only.clone()),
            (None, _) => Err(forbidden("the token has no organization")),
            _ => Err(wrong("is missing: the token has several organizations")),
        },
    }
}

/// Encodes every record as a message, without publishing it. Returns the ids and the messages.
///
/// # Errors
/// 400 that names each invalid record.
async fn prepare(
    app: &App,
    kind: Kind,
    organization: &str,
    form: &Form,
    records: &[&[u8]],
    identity: Option<&Identity>,
) -> Result<(Vec<Uuid>, Vec<Encoded>), Problem> {
    let (mut ids, mut messages) = (Vec::with_capacity(records.len()), Vec::with_capacity(records.len()));
    let mut faults = Vec::new();
    let keep = app.settings.keep.get(&kind).copied();
    for (index, &record) in records.iter().enumerate() {
        let terms = Terms { identity: identity.map(|identity| identity.of(index)), keep };
        let plain = form.plain(kind, record).map_err(PublishError::Rejected);
        match plain.and_then(|plain| app.publisher.prepare_json_with(kind, Some(organization), plain, terms)) {
            Ok(prepared) => {
                ids.push(prepared.id);
                messages.push(prepared.message);
            }
            Err(PublishError::Rejected(reject)) => faults.push(refusals::fault(index, reject)),
            Err(error) => return Err(refusals::problem(&error, 0, 1)),
        }
        if index % CHECKED_AT_ONCE == CHECKED_AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
    }
    if faults.is_empty() { Ok((ids, messages)) } else { Err(refusals::bad_records(faults)) }
}

/// Publishes all messages, and waits until the stream has acknowledged them.
async fn send(app: &App, kind: Kind, messages: Vec<Encoded>) -> Result<(), Problem> {
    let all = messages.len();
    match app.publisher.publish_encoded(kind, messages).await {
        Ok(_) => Ok(()),
        Err(error) => Err(refusals::problem(error.error(), error.acknowledged(), all)),
    }
}
