//! Bodies of requests: bounded each, and all together.

use std::sync::Arc;
use std::time::Duration;

use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use runtime::config::Gateway;

use crate::app::App;
use crate::problem::Problem;
use crate::shares::{NoShare, Share};

/// What a body may take to arrive: the largest one over a slow line.
const BODY_WITHIN: Duration = Duration::from_secs(20);
/// When some may have arrived.
const ARRIVED_AFTER: Duration = Duration::from_secs(1);

/// A body, and the room that it takes until it is dropped.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    _room: Share,
}

/// What bodies of one caller may hold together: half of what all may, so that one who sends slowly leaves others theirs;
/// but as much as one body has.
pub(crate) fn share_of_one(settings: &Gateway) -> u64 {
    (settings.memory.as_u64() / 2).max(settings.max_body_bytes.as_u64())
}

/// Refuses a body of another type than is taken, or one that is compressed: what it would become nobody could bound.
pub(crate) fn expect<'t>(headers: &HeaderMap, types: &[&'t str]) -> Result<&'t str, Problem> {
    let refuse = || {
        let detail = format!("expected Content-Type {}, not compressed", types.join(" or "));
        let (status, name) = (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type");
        Err(Problem::new(status, name, "Unsupported Media Type", detail))
    };
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return refuse();
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    match types.iter().find(|expected| kind.eq_ignore_ascii_case(expected)) {
        Some(found) => Ok(found),
        None => refuse(),
    }
}

/// Reads a caller's body of at most so many bytes, where there is room for it beside all others.
pub(crate) async fn read(app: &App, caller: &Arc<str>, request: Request, limit: u64) -> Result<Body, Problem> {
    let body = request.into_body();
    let hint = body.size_hint();
    if hint.lower() > limit {
        return Err(too_large(limit));
    }
    let most = hint.upper().map_or(limit, |upper| upper.min(limit));
    let room = app.bodies.take(caller, most).map_err(|refusal| match refusal {
        NoShare::OfOne => {
            let detail = "this caller has as many bodies under way as it may have: send fewer at once";
            Problem::too_many("too-many-bodies", detail, ARRIVED_AFTER)
        }
        NoShare::InAll => Problem::unavailable("too many bodies are under way", ARRIVED_AFTER),
    })?;
    let bytes = tokio::time::timeout(BODY_WITHIN, collect(body, hint.lower(), limit));
    let bytes = bytes.await.map_err(|_| Problem::of_status(StatusCode::REQUEST_TIMEOUT))??;
    Ok(Body { bytes, _room: room })
}

async fn collect(body: axum::body::Body, expected: u64, limit: u64) -> Result<Bytes, Problem> {
    let mut bytes = BytesMut::with_capacity(usize::try_from(expected).unwrap_or_default());
    let mut stream = body.into_data_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Problem::of_status(StatusCode::BAD_REQUEST))?;
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(too_large(limit));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

fn too_large(limit: u64) -> Problem {
    let detail = format!("the body is larger than {limit} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "payload-too-large", "Payload Too Large", detail)
}
