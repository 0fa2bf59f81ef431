//! `GET /api/live/{kind}`: records as their stream takes them, as server-sent events.
//!
//! What is seen is what the stream delivers, and not what its subjects carry: only the stream gives each record the
//! place by which a reader goes on where it was, and what it refused will never be stored. Every gateway reads a
//! kind once, however many look at it (`feed`); each record is decoded once, as the writers do, and written out once
//! (`event`), and handed to those who may see it and asked for it (`filter`, by a `field`), into a queue of theirs that
//! is bounded (`queue`).
//!
//! No reader learns how much there is of others: places are written so that only a gateway can read them (`id`), and
//! figures of what is missing are of the reader's own, or told to those alone who see everything.
//!
//! A reader that comes back with `Last-Event-ID` reads the stream by itself, part by part and at its own pace, until
//! it has come to where the feed is (`catch_up`), and only then stands in the feed: nothing is lost and nothing comes
//! twice, whatever it takes. `source` reads through outages; `response` is one answer; `stream_quota` bounds how many.
//!
//! Whoever watches the audit log stands in it: that is written before the first line, or nobody watches.

mod catch_up;
mod describe;
mod event;
mod feed;
mod field;
mod filter;
mod id;
mod queue;
mod response;
mod source;
mod stream_quota;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use bus::Bus;
use records::Kind;
use serde_json::json;
use store::scoped_read::Scope;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::feed::Feed;
use self::filter::LiveFilter;
use self::id::Position;
use self::response::LiveResponse;
use self::stream_quota::StreamQuota;
use crate::app::App;
use crate::audited_action::AuditedAction;
use crate::auth::{Caller, Expiry};
use crate::problem::{Fault, Problem};
use crate::query::Parameters;
use crate::request_context::RequestContext;
use crate::settings::Settings;

pub(crate) use describe::describe;
pub(crate) use id::Ids;

/// Where a reader was: the `id` of the last event that it has seen.
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The maximum number of readers that catch up at the same time. Each has a reader of its own at the server, and holds
/// one part (`catch_up.rs`) in memory. A reader joins the kind's feed only when it has caught up with it.
const CATCHING_UP: usize = 32;
/// When to ask again where the stream does not answer.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// What all live answers share.
#[derive(Debug)]
pub(crate) struct Live {
    bus: Bus,
    ids: Ids,
    feeds: BTreeMap<Kind, Arc<Feed>>,
    stream_quota: StreamQuota,
    catching_up: Semaphore,
    heartbeat: Duration,
    stop: CancellationToken,
}

impl Live {
    /// Reads through `bus`, which is its own: what breaks the connection of readers leaves publishing alone.
    pub(crate) fn new(bus: Bus, ids: Ids, settings: &Settings, stop: &CancellationToken) -> Self {
        let Settings { gateway: settings, keep, .. } = settings;
        let queue_bytes = usize::try_from(settings.live_queue.as_u64()).unwrap_or(usize::MAX);
        let feed = |kind| {
            let keep = keep.get(&kind).copied();
            Arc::new(Feed::new(kind, bus.clone(), ids.clone(), keep, queue_bytes, stop.clone()))
        };
        Self {
            feeds: Kind::ALL.iter().map(|&kind| (kind, feed(kind))).collect(),
            stream_quota: StreamQuota::new(settings.live_streams, settings.live_streams_per_caller),
            catching_up: Semaphore::new(CATCHING_UP),
            heartbeat: settings.live_heartbeat,
            stop: stop.clone(),
            ids,
            bus,
        }
    }

    fn feed(&self, kind: Kind) -> Result<Arc<Feed>, Problem> {
        self.feeds.get(&kind).cloned().ok_or_else(Problem::internal)
    }
}

/// The handler of a kind.
pub(crate) fn route(kind: Kind) -> MethodRouter<App> {
    get(watch).route_layer(Extension(kind))
}

async fn watch(
    State(app): State<App>,
    Extension(kind): Extension<Kind>,
    Extension(expiry): Extension<Expiry>,
    uri: Uri,
    caller: Caller,
    context: RequestContext,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let parameters = Parameters::of(uri.query().unwrap_or_default());
    let filter = Arc::new(LiveFilter::read(parameters, kind, &caller)?);
    let last_seen = last_event_id(&app.live.ids, kind, &headers)?;
    let permit = app.live.stream_quota.acquire(&caller.subject)?;
    if kind == Kind::Audit {
        audit_of_watching(&filter, &headers).write_before_response(&app, &caller, &context).await?;
    }
    let feed = app.live.feed(kind)?;
    let response = LiveResponse::begin(app, feed, filter, last_seen, expiry, permit).await.map_err(|error| {
        tracing::warn!(%kind, %error, "a live answer cannot begin");
        Problem::unavailable("the stream does not answer", RETRY_AFTER)
    })?;
    let mut response = Response::new(Body::from_stream(response.into_stream()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // A proxy that collects an answer before it passes it on would hold back what was to be seen at once.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

/// That somebody watches the audit log, as an audit event. It stands in the log that is watched, or in the platform's own where
/// these are several or none: nobody can write into the log of others.
fn audit_of_watching(filter: &LiveFilter, headers: &HeaderMap) -> AuditedAction {
    let (organization_id, seen) = match filter.scope() {
        Scope::All => (None, json!("*")),
        Scope::Organizations(names) => (names.first().filter(|_| names.len() == 1).cloned(), json!(names)),
    };
    let last_seen = headers.get(&LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    AuditedAction {
        action: "audit.watch",
        target_type: "audit_log",
        target_id: organization_id.clone().unwrap_or_else(|| "*".to_owned()),
        organization_id,
        reason: None,
        metadata: json!({
            "route": "/api/live/audit", "filters": filter.filters(), "organizations": seen, "last_event_id": last_seen,
        }),
    }
}

/// Where a reader was, if it says so.
fn last_event_id(ids: &Ids, kind: Kind, headers: &HeaderMap) -> Result<Option<Position>, Problem> {
    let Some(value) = headers.get(&LAST_EVENT_ID) else { return Ok(None) };
    let position = value.to_str().ok().and_then(|id| ids.read(kind, id));
    let fault = || Fault::of("Last-Event-ID", "is not the id of an event of this kind: send the last one as it came");
    position.map(Some).ok_or_else(|| Problem::parameters(vec![fault()]))
}
