//! `GET /api/live/{kind}`: records as server-sent events, as they arrive in their stream.
//!
//! Gateways read the JetStream stream and do not subscribe to its subjects. Only the stream gives each record the
//! position from which a reader can resume, and a message that the stream refused is never stored. Each gateway reads
//! a kind once, for any number of readers (`feed`). Each record is decoded once, by the writers' decoder, and encoded
//! once (`event`). It goes into the bounded queue (`queue`) of each reader that may see it and whose filter matches
//! (`filter`, `field`).
//!
//! No reader learns how much other organizations publish: positions are encrypted (`id`). Numbers of missing records
//! cover only the reader's own records, or are sent only to readers that see all organizations.
//!
//! A reader that resumes with `Last-Event-ID` reads the stream separately, part by part and at its own pace
//! (`catch_up`), and joins the feed when it has reached the feed's position. Nothing is lost or sent twice, however
//! long that takes. `source` reads through outages, `response` is the response of one reader, and `stream_quota`
//! bounds their number.
//!
//! Streaming the audit log is itself audited. The audit event is written before the response starts; if that fails,
//! there is no stream.

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

/// The header with the `id` of the last event that a resuming reader received.
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The maximum number of readers that catch up at the same time. Each has a reader of its own at the server, and holds
/// one part (`catch_up.rs`) in memory. A reader joins the kind's feed only when it has caught up with it.
const CATCHING_UP: usize = 32;
/// `Retry-After` if the stream does not respond.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The state that all live streams share.
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
    /// Creates the feeds. `bus` should be a connection of its own: a failure of it does not affect publishing.
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

/// Returns the handler of a kind.
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
        tracing::warn!(%kind, %error, "a live stream cannot start");
        Problem::unavailable("the stream does not respond", RETRY_AFTER)
    })?;
    let mut response = Response::new(Body::from_stream(response.into_stream()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Tell proxies not to buffer the response: that would delay events.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

/// Returns the audit event for streaming the audit log. It is recorded in the log of the organization that is streamed,
/// or in the platform's own log if these are several or none. A caller cannot write into the log of another
/// organization.
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

/// Returns the position of a resuming reader, or `None` without the header.
///
/// # Errors
/// 400 if the header is not the id of an event of this kind.
fn last_event_id(ids: &Ids, kind: Kind, headers: &HeaderMap) -> Result<Option<Position>, Problem> {
    let Some(value) = headers.get(&LAST_EVENT_ID) else { return Ok(None) };
    let position = value.to_str().ok().and_then(|id| ids.read(kind, id));
    let fault = || Fault::of("Last-Event-ID", "is not the id of an event of this kind: send the last id unchanged");
    position.map(Some).ok_or_else(|| Problem::parameters(vec![fault()]))
}
