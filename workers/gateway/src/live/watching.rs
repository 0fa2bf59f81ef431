//! One live answer, from its first line to its end.

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
use super::feed::{Feed, Joined, Membership};
use super::id::Position;
use super::places::Place;
use super::wanted::Wanted;
use crate::app::App;
use crate::auth::Expiry;

/// When whoever lost the connection comes back, in milliseconds: all who were on this process do not come at once.
const COME_BACK: Range<u64> = 1_000..5_000;
/// Before the feed is tried again, where the stream does not answer.
const JOIN_AGAIN: Duration = Duration::from_secs(1);

/// One live answer.
#[derive(Debug)]
pub(super) struct Watching {
    app: App,
    feed: Arc<Feed>,
    wanted: Arc<Wanted>,
    /// What is to be sent first.
    head: Option<Bytes>,
    at: At,
    expires_at: Instant,
    heartbeat_at: Instant,
    _place: Place,
}

/// Where it is.
#[derive(Debug)]
enum At {
    /// Behind the feed, from here on.
    Behind(Position),
    /// In the feed.
    Here(Membership),
    End,
}

/// What happens next.
enum Happening {
    Send(Bytes),
    Heartbeat,
    Again,
    End(&'static str),
}

impl Watching {
    /// Begins one behind the event of this id, or with what comes from now on.
    ///
    /// # Errors
    /// Where the stream does not answer.
    pub(super) async fn begin(
        app: App,
        feed: Arc<Feed>,
        wanted: Arc<Wanted>,
        last_seen: Option<Position>,
        expiry: Expiry,
        place: Place,
    ) -> Result<Self, BusError> {
        let mut head = format!("retry: {}\n", fastrand::u64(COME_BACK));
        let mut from = None;
        if let Some(seen) = last_seen {
            let stream = app.live.bus.stream_state(feed.kind).await?;
            let is_another = stream.created_at != seen.made_at;
            // One that has lost its end has other records there by now, or will have.
            let has_lost_it = !is_another && seen.sequence > stream.last_sequence;
            if is_another || has_lost_it {
                head = format!("{head}\n{}", String::from_utf8_lossy(&event::anew()));
            }
            from = match (is_another, has_lost_it) {
                // All of it is new to them.
                (true, _) => Some(Position { made_at: stream.created_at, sequence: 1 }),
                (_, true) => None,
                _ => Some(seen.behind()),
            };
        }
        let at = match feed.join(&wanted, from).await? {
            Joined::Here(membership) => At::Here(membership),
            Joined::Behind | Joined::Anew => At::Behind(from.unwrap_or_else(|| feed.next())),
        };
        // A comment, so that something arrives at once and says that the way is open.
        let head = Some(Bytes::from(format!("{head}: watching\n\n")));
        let heartbeat_at = Instant::now() + app.live.heartbeat;
        Ok(Self { app, feed, wanted, head, at, expires_at: expiry.instant(), heartbeat_at, _place: place })
    }

    /// As the body of an answer.
    pub(super) fn into_stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
        futures::stream::unfold(self, async |mut watching| watching.next().await.map(|sent| (Ok(sent), watching)))
    }

    /// What is sent next, `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(head) = self.head.take() {
            return Some(head);
        }
        loop {
            match self.happening().await? {
                Happening::Send(sent) => {
                    self.heartbeat_at = Instant::now() + self.app.live.heartbeat;
                    return Some(sent);
                }
                Happening::Again if self.heartbeat_at > Instant::now() => {}
                Happening::Again | Happening::Heartbeat => {
                    self.heartbeat_at = Instant::now() + self.app.live.heartbeat;
                    return Some(self.heartbeat());
                }
                Happening::End(reason) => {
                    self.at = At::End;
                    return Some(Bytes::from(format!("retry: {}\n: {reason}\n\n", fastrand::u64(COME_BACK))));
                }
            }
        }
    }

    /// `None` at the end.
    async fn happening(&mut self) -> Option<Happening> {
        let (stop, expires_at) = (&self.app.live.stop, self.expires_at);
        let (at, sent) = match &self.at {
            At::End => return None,
            At::Behind(next) => tokio::select! {
                biased;
                () = stop.cancelled() => return Some(Happening::End("the server stops")),
                () = sleep_until(expires_at) => return Some(Happening::End("the token has expired")),
                further = self.further(*next) => further,
            },
            At::Here(membership) => tokio::select! {
                biased;
                () = stop.cancelled() => return Some(Happening::End("the server stops")),
                () = sleep_until(expires_at) => return Some(Happening::End("the token has expired")),
                sent = membership.queue.next() => {
                    return Some(sent.map_or(Happening::End("the stream began anew"), Happening::Send));
                }
                () = sleep_until(self.heartbeat_at) => return Some(Happening::Heartbeat),
            },
        };
        self.at = at;
        Some(if sent.is_empty() { Happening::Again } else { Happening::Send(sent) })
    }

    /// A part of the way to the feed, and where it leads.
    async fn further(&self, from: Position) -> (At, Bytes) {
        let mut part = catch_up(&self.app.live, &self.feed, &self.wanted, from).await;
        let at = match part.next {
            Some(next) => match self.feed.join(&self.wanted, Some(next)).await {
                Ok(Joined::Here(membership)) => At::Here(membership),
                Ok(Joined::Behind) => {
                    // The feed has not noticed yet that it reads what is not there any more.
                    if next == from {
                        sleep(JOIN_AGAIN).await;
                    }
                    At::Behind(next)
                }
                Ok(Joined::Anew) => {
                    part.written.extend_from_slice(&event::anew());
                    At::End
                }
                Err(error) => {
                    tracing::debug!(kind = %self.feed.kind, %error, "a live answer cannot join; trying again");
                    sleep(JOIN_AGAIN).await;
                    At::Behind(next)
                }
            },
            // Whoever comes back finds the new stream.
            None => At::End,
        };
        (at, part.written.freeze())
    }

    /// A comment. Who sees everything there is also learns how far the stream is, so that coming back costs nothing;
    /// who does not would learn by it how much there is of others.
    fn heartbeat(&self) -> Bytes {
        let At::Here(membership) = &self.at else { return Bytes::from_static(b": heartbeat\n\n") };
        // In this order: what the feed has handed out before it came here is in the queue, or was sent.
        let next = self.feed.next();
        if self.wanted.sees_all() && membership.queue.is_empty() && next.sequence > 0 {
            let last = Position { sequence: next.sequence - 1, ..next };
            return Bytes::from(format!(": heartbeat\nid: {}\n\n", self.app.live.ids.write(self.feed.kind, last)));
        }
        Bytes::from_static(b": heartbeat\n\n")
    }
}
