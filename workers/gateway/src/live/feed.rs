//! A feed: reads the stream of a kind once for all readers of this process.
//!
//! It reads while there are readers, and for a while afterwards. A reader joins at a position. A reader behind the
//! feed's position must catch up first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bus::{Bus, BusError, Delivery, StreamState};
use chrono::TimeDelta;
use records::Kind;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::event::{Events, Gap};
use super::filter::LiveFilter;
use super::id::{Ids, Position};
use super::queue::Queue;
use super::source::{Source, Step};
use crate::metrics;

/// How long a feed without readers goes on, so that a page that is reloaded finds it running.
const LINGER: Duration = Duration::from_secs(10);

/// The feed of a kind.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) kind: Kind,
    pub(super) events: Events,
    bus: Bus,
    ids: Ids,
    queue_bytes: usize,
    stop: CancellationToken,
    state: Mutex<State>,
    /// Locked while the feed starts, so that it starts only once.
    beginning: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether the task that reads the stream is running.
    runs: bool,
    /// The position of the next message.
    next: Position,
    members: HashMap<u64, Member>,
    /// The key of the next member.
    number: u64,
}

/// A reader of the feed.
#[derive(Debug)]
struct Member {
    filter: Arc<LiveFilter>,
    /// The first sequence to send: the reader already has those before it.
    from: u64,
    queue: Arc<Queue>,
}

/// The membership of a reader, which ends when it is dropped.
#[derive(Debug)]
pub(super) struct Membership {
    feed: Arc<Feed>,
    number: u64,
    pub(super) queue: Arc<Queue>,
}

/// The outcome of joining a feed.
#[derive(Debug)]
pub(super) enum JoinOutcome {
    /// The reader has joined.
    Live(Membership),
    /// The reader is behind the feed, or the feed has not noticed yet that the stream was recreated.
    Behind,
    /// The stream was recreated after the reader's position.
    Recreated,
}

impl Feed {
    pub(super) fn new(
        kind: Kind,
        bus: Bus,
        ids: Ids,
        keep: Option<TimeDelta>,
        queue_bytes: usize,
        stop: CancellationToken,
    ) -> Self {
        let (state, beginning) = (Mutex::default(), tokio::sync::Mutex::default());
        let events = Events::new(kind, bus.prefix(), keep);
        Self { kind, events, bus, ids, queue_bytes, stop, state, beginning }
    }

    /// Joins at a position, or at the feed's current one. Starts the feed if it is not running.
    ///
    /// # Errors
    /// If the state of the stream cannot be read.
    pub(super) async fn join(
        self: &Arc<Self>,
        filter: &Arc<LiveFilter>,
        from: Option<Position>,
    ) -> Result<JoinOutcome, BusError> {
        if let Some(joined) = self.try_join(filter, from) {
            return self.check_recreated(joined, from).await;
        }
        let _one = self.beginning.lock().await;
        if let Some(joined) = self.try_join(filter, from) {
            return self.check_recreated(joined, from).await;
        }
        let stream = self.bus.stream_state(self.kind).await?;
        self.begin(&stream);
        // The feed runs for at least `LINGER`, so it cannot have ended again.
        let joined = self.try_join(filter, from).unwrap_or(JoinOutcome::Behind);
        self.check_recreated(joined, from).await
    }

    /// If the reader's position is in another stream than the feed's, decides which of the two streams is the current
    /// one.
    async fn check_recreated(&self, joined: JoinOutcome, from: Option<Position>) -> Result<JoinOutcome, BusError> {
        match from {
            Some(from) if from.stream_created_at != self.next().stream_created_at => {
                let stream = self.bus.stream_state(self.kind).await?;
                Ok(if stream.created_at == from.stream_created_at {
                    JoinOutcome::Behind
                } else {
                    JoinOutcome::Recreated
                })
            }
            _ => Ok(joined),
        }
    }

    /// Returns the position of the next message.
    pub(super) fn next(&self) -> Position {
        self.lock().next
    }

    fn try_join(self: &Arc<Self>, filter: &Arc<LiveFilter>, from: Option<Position>) -> Option<JoinOutcome> {
        let mut state = self.lock();
        if !state.runs {
            return None;
        }
        let from = from.unwrap_or(state.next);
        if from.stream_created_at != state.next.stream_created_at || from.sequence < state.next.sequence {
            return Some(JoinOutcome::Behind);
        }
        let (number, queue) = (state.number, Arc::new(Queue::new(self.queue_bytes, filter.sees_all())));
        state.number += 1;
        state.members.insert(number, Member { filter: filter.clone(), from: from.sequence, queue: queue.clone() });
        drop(state);
        Some(JoinOutcome::Live(Membership { feed: self.clone(), number, queue }))
    }

    fn begin(self: &Arc<Self>, stream: &StreamState) {
        let mut state = self.lock();
        state.runs = true;
        state.next = Position { stream_created_at: stream.created_at, sequence: stream.last_sequence }.behind();
        let source = Source::new(self.bus.clone(), self.kind, state.next);
        drop(state);
        tokio::spawn(self.clone().run(source));
    }

    async fn run(self: Arc<Self>, mut source: Source) {
        let mut watched_at = Instant::now();
        // Readers watch for the stop themselves.
        while let Some(step) = self.stop.run_until_cancelled(source.read()).await {
            match step {
                Step::Message(delivery) => self.hand_out(&delivery, source.at(delivery.sequence)),
                Step::Missing { first, last } => self.skip(first, source.at(last)),
                Step::Idle => {}
                Step::Recreated => {
                    self.end();
                    break;
                }
            }
            let mut state = self.lock();
            if !state.members.is_empty() {
                watched_at = Instant::now();
            } else if watched_at.elapsed() > LINGER {
                state.runs = false;
                break;
            }
        }
        source.close().await;
    }

    fn hand_out(&self, delivery: &Delivery, at: Position) {
        // Encode the event once for all readers.
        let event = self.events.event(delivery, &self.ids.write(self.kind, at));
        let mut state = self.lock();
        if let Some(event) = event {
            let mut lost = 0;
            for member in state.members.values() {
                if event.sequence >= member.from && member.filter.matches(&event) {
                    lost += u64::from(!member.queue.push(&event.written));
                }
            }
            if lost > 0 {
                ::metrics::counter!(metrics::LIVE_LOST, "kind" => self.kind.name()).increment(lost);
            }
        }
        state.next = at.behind();
    }

    fn skip(&self, first: u64, last: Position) {
        let id: Arc<str> = self.ids.write(self.kind, last).into();
        let mut state = self.lock();
        for member in state.members.values().filter(|member| member.from <= last.sequence) {
            member.queue.push_gap(Gap { first: first.max(member.from), last: last.sequence, id: id.clone() });
        }
        state.next = last.behind();
    }

    /// Ends the feed because the stream was recreated. All readers reconnect and find the new stream.
    fn end(&self) {
        let mut state = self.lock();
        state.runs = false;
        for (_, member) in state.members.drain() {
            member.queue.end();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock happens before `next` advances: an event may be sent twice, but none is lost.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.feed.lock().members.remove(&self.number);
    }
}
