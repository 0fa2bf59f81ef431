//! Catch-up: reads the stream for one resuming reader, part by part, from its last position to the feed's.
//!
//! Each part is read completely and then sent, so that a slow reader occupies nothing in between: neither a consumer at
//! the server nor a permit for catching up.

use std::time::Duration;

use bytes::BytesMut;
use tokio::time::{Instant, timeout_at};

use super::Live;
use super::event::{self, Gap};
use super::feed::Feed;
use super::filter::LiveFilter;
use super::id::Position;
use super::source::{Source, Step};

/// Size at which a part is complete, in bytes. The last event may exceed it.
const PART_BYTES: usize = 256 * 1024;
/// Time limit for reading a part, after which a reader without matching events gets a heartbeat.
const PART_WITHIN: Duration = Duration::from_secs(5);

/// A part of the catch-up.
#[derive(Debug)]
pub(super) struct Part {
    /// The encoded events.
    pub(super) written: BytesMut,
    /// The position of the next part; `None` if the stream was recreated.
    pub(super) next: Option<Position>,
}

/// Reads a part of the matching events, from `next` up to the position of the feed.
pub(super) async fn catch_up(live: &Live, feed: &Feed, filter: &LiveFilter, next: Position) -> Part {
    let mut part = Part { written: BytesMut::new(), next: Some(next) };
    // The semaphore is never closed, so this cannot fail.
    let _permit = live.catching_up.acquire().await.ok();
    let within = Instant::now() + PART_WITHIN;
    let mut source = Source::new(live.bus.clone(), feed.kind, next);
    while part.written.len() < PART_BYTES && source.next().sequence < feed.next().sequence {
        let Ok(step) = timeout_at(within, source.read()).await else { break };
        match step {
            Step::Message(delivery) => {
                let id = live.ids.write(feed.kind, source.at(delivery.sequence));
                let event = feed.events.event(&delivery, &id).filter(|event| filter.matches(event));
                part.written.extend(event.into_iter().flat_map(|event| event.written));
            }
            Step::Missing { first, last } => {
                let id = live.ids.write(feed.kind, source.at(last)).into();
                part.written.extend_from_slice(&Gap { first, last, id }.written(filter.sees_all()));
            }
            Step::Idle => {}
            Step::Recreated => {
                part.written.extend_from_slice(&event::recreated());
                part.next = None;
                return part;
            }
        }
        part.next = Some(source.next());
    }
    source.close().await;
    part
}
