//! The way of one reader from where it was to where the feed is, part by part.
//!
//! A part is read at once and held until it is sent, so that a slow reader holds nothing at the server: neither a
//! consumer nor one of the few places of those who catch up.

use std::time::Duration;

use bytes::BytesMut;
use tokio::time::{Instant, timeout_at};

use super::Live;
use super::event::{self, Gap};
use super::feed::Feed;
use super::filter::LiveFilter;
use super::id::Position;
use super::source::{Source, Step};

/// Bytes of a part, by which one event may exceed it.
const PART_BYTES: usize = 256 * 1024;
/// What reading a part may take: whoever finds nothing is told that it goes on.
const PART_WITHIN: Duration = Duration::from_secs(5);

/// A part of the way.
#[derive(Debug)]
pub(super) struct Part {
    /// Events, written out.
    pub(super) written: BytesMut,
    /// Where it goes on; `None` where the stream began anew.
    pub(super) next: Option<Position>,
}

/// Reads a part of what is wanted, from `next` on, as far as the feed is.
pub(super) async fn catch_up(live: &Live, feed: &Feed, filter: &LiveFilter, next: Position) -> Part {
    let mut part = Part { written: BytesMut::new(), next: Some(next) };
    // Nobody closes the semaphore.
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
