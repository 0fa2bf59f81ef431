//! The response of one live stream, from its first line to its end.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bus::BusError;
use bytes::Bytes;
use futures::Stream;
use tokio::time::{Instant, sleep, sleep_until};

use super::catch_up::catch_up;
use super::event;
use super::feed::{Feed, JoinOutcome, Membership};
use super::filter::LiveFilter;
use super::id::Position;
use super::stream_quota::StreamPermit;
use crate::app::App;
use crate::auth::Expiry;

/// Range of the reconnection delay that is sent to readers (`retry`), in milliseconds. The delay is random, so that the
/// readers of a process do not all reconnect at once.
const COME_BACK: Range<u64> = 1_000..5_000;
/// Wait before joining the feed again if the stream does not respond.
const JOIN_RETRY: Duration = Duration::from_secs(1);

/// The response of one live stream.
#[derive(Debug)]
pub(super) struct LiveResponse {
    app: App,
    feed: Arc<Feed>,
    filter: Arc<LiveFilter>,
    /// The first part of the body, until it is sent.
    head: Option<Bytes>,
    phase: Phase,
    expires_at: Instant,
    heartbeat_at: Instant,
    _permit: StreamPermit,
}

/// The phase of a live stream.
#[derive(Debug)]
enum Phase {
    /// Behind the feed; continues at this position.
    CatchingUp(Position),
    /// A member of the feed.
    Live(Membership),
    Ended,
}

/// The next step of a live stream.
enum Output {
    Send(Bytes),
    Heartbeat,
    Continue,
    End(&'static str),
}

impl LiveResponse {
    /// Starts a live stream after the last seen position, or with new records.
    ///
    /// # Errors
    /// If the state of the stream cannot be read.
    pub(super) async fn begin(
        app: App,
        feed: Arc<Feed>,
        filter: Arc<LiveFilter>,
        last_seen: Option<Position>,
        expiry: Expiry,
        permit: StreamPermit,
    ) -> Result<Self, BusError> {
        let mut head = format!("retry: {}\n", fastrand::u64(COME_BACK));
        let mut from = None;
        if let Some(seen) = last_seen {
            let stream = app.live.bus.stream_state(feed.kind).await?;
            let is_another = stream.created_at != seen.stream_created_at;
            // A truncated stream reuses these sequences for other records.
            let is_truncated = !is_another && seen.sequence > stream.last_sequence;
            if is_another || is_truncated {
                head = format!("{head}\n{}", String::from_utf8_lossy(&event::recreated()));
            }
            from = match (is_another, is_truncated) {
                // All records of a recreated stream are new to the reader.
                (true, _) => Some(Position { stream_created_at: stream.created_at, sequence: 1 }),
                (_, true) => None,
                _ => Some(seen.behind()),
            };
        }
        let phase = match feed.join(&filter, from).await? {
            JoinOutcome::Live(membership) => Phase::Live(membership),
            JoinOutcome::Behind | JoinOutcome::Recreated => Phase::CatchingUp(from.unwrap_or_else(|| feed.next())),
        };
        // A comment, so that the client receives something at once and sees that the stream is open.
        let head = Some(Bytes::from(format!("{head}: watching\n\n")));
        let heartbeat_at = Instant::now() + app.live.heartbeat;
        Ok(Self { app, feed, filter, head, phase, expires_at: expiry.instant(), heartbeat_at, _permit: permit })
    }

    /// Returns the body of the response.
    pub(super) fn into_stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
        futures::stream::unfold(self, async |mut response| response.next().await.map(|sent| (Ok(sent), response)))
    }

    /// Returns the next part of the body, or `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(head) = self.head.take() {
            return Some(head);
        }
        loop {
            match self.next_output().await? {
                Output::Send(sent) => {
                    self.heartbeat_at = Instant::now() + self.app.live.heartbeat;
                    return Some(sent);
                }
                Output::Continue if self.heartbeat_at > Instant::now() => {}
                Output::Continue | Output::Heartbeat => {
                    self.heartbeat_at = Instant::now() + self.app.live.heartbeat;
                    return Some(self.heartbeat());
                }
                Output::End(reason) => {
                    self.phase = Phase::Ended;
                    return Some(Bytes::from(format!("retry: {}\n: {reason}\n\n", fastrand::u64(COME_BACK))));
                }
            }
        }
    }

    /// Returns the next step, or `None` at the end.
    async fn next_output(&mut self) -> Option<Output> {
        let (stop, expires_at) = (&self.app.live.stop, self.expires_at);
        let (phase, sent) = match &self.phase {
            Phase::Ended => return None,
            Phase::CatchingUp(next) => tokio::select! {
                biased;
                () = stop.cancelled() => return Some(Output::End("the server stops")),
                () = sleep_until(expires_at) => return Some(Output::End("the token has expired")),
                caught_up = self.catch_up_step(*next) => caught_up,
            },
            Phase::Live(membership) => tokio::select! {
                biased;
                () = stop.cancelled() => return Some(Output::End("the server stops")),
                () = sleep_until(expires_at) => return Some(Output::End("the token has expired")),
                sent = membership.queue.next() => {
                    return Some(sent.map_or(Output::End("the stream began anew"), Output::Send));
                }
                () = sleep_until(self.heartbeat_at) => return Some(Output::Heartbeat),
            },
        };
        self.phase = phase;
        Some(if sent.is_empty() { Output::Continue } else { Output::Send(sent) })
    }

    /// Reads a part of the catch-up. Returns the next phase and the encoded events.
    async fn catch_up_step(&self, from: Position) -> (Phase, Bytes) {
        let mut part = catch_up(&self.app.live, &self.feed, &self.filter, from).await;
        let phase = match part.next {
            Some(next) => match self.feed.join(&self.filter, Some(next)).await {
                Ok(JoinOutcome::Live(membership)) => Phase::Live(membership),
                Ok(JoinOutcome::Behind) => {
                    // The feed has not noticed yet that its stream was recreated.
                    if next == from {
                        sleep(JOIN_RETRY).await;
                    }
                    Phase::CatchingUp(next)
                }
                Ok(JoinOutcome::Recreated) => {
                    part.written.extend_from_slice(&event::recreated());
                    Phase::Ended
                }
                Err(error) => {
                    tracing::debug!(kind = %self.feed.kind, %error, "a live stream cannot join its feed; trying again");
                    sleep(JOIN_RETRY).await;
                    Phase::CatchingUp(next)
                }
            },
            // The reader reconnects and finds the recreated stream.
            None => Phase::Ended,
        };
        (phase, part.written.freeze())
    }

    /// Returns a comment. Readers that see all organizations also get the id of the feed's position, so that resuming
    /// does not read the stream again. Others do not: they would learn how many records other organizations publish.
    fn heartbeat(&self) -> Bytes {
        let Phase::Live(membership) = &self.phase else { return Bytes::from_static(b": heartbeat\n\n") };
        // Read the position before the queue: events before this position are then in the queue, or sent.
        let next = self.feed.next();
        if self.filter.sees_all() && membership.queue.is_empty() && next.sequence > 0 {
            let last = Position { sequence: next.sequence - 1, ..next };
            return Bytes::from(format!(": heartbeat\nid: {}\n\n", self.app.live.ids.write(self.feed.kind, last)));
        }
        Bytes::from_static(b": heartbeat\n\n")
    }
}
