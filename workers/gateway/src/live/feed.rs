//! One kind, read once for all who watch it here.
//!
//! It reads while somebody watches, and a while longer. Who joins says from where on; who comes from before the place
//! where the feed is has to catch up first.

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

/// How long it reads on with nobody watching, so that a page that is loaded again finds it there.
const LINGER: Duration = Duration::from_secs(10);

/// One kind, read once.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) kind: Kind,
    pub(super) events: Events,
    bus: Bus,
    ids: Ids,
    queue_bytes: usize,
    stop: CancellationToken,
    state: Mutex<State>,
    /// Held while it is begun, so that it is begun once.
    beginning: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether somebody reads.
    runs: bool,
    /// What is handed out next.
    next: Position,
    members: HashMap<u64, Member>,
    /// Of the next member.
    number: u64,
}

/// One who watches.
#[derive(Debug)]
struct Member {
    filter: Arc<LiveFilter>,
    /// What is before this sequence they have already.
    from: u64,
    queue: Arc<Queue>,
}

/// A place in the feed, as long as it is held.
#[derive(Debug)]
pub(super) struct Membership {
    feed: Arc<Feed>,
    number: u64,
    pub(super) queue: Arc<Queue>,
}

/// What becomes of who wants to join.
#[derive(Debug)]
pub(super) enum JoinOutcome {
    /// They stand in the feed.
    Live(Membership),
    /// The feed is further already, or has not noticed yet that the stream began anew.
    Behind,
    /// The stream began anew since they were in it.
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

    /// Joins from a position on, or from where the feed is now. Begins to read where nobody did.
    ///
    /// # Errors
    /// Where the stream does not answer.
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
        // It lingers, so it cannot have ended again.
        let joined = self.try_join(filter, from).unwrap_or(JoinOutcome::Behind);
        self.check_recreated(joined, from).await
    }

    /// Says which of the two is mistaken, where somebody comes from another stream than the feed reads.
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

    /// What the feed will hand out next.
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
        // Whoever watches sees the stop as well.
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
        // Once for all who get it.
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

    /// The stream is another one: all who watch come back and find it.
    fn end(&self) {
        let mut state = self.lock();
        state.runs = false;
        for (_, member) in state.members.drain() {
            member.queue.end();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while holding this lock came before the sequence went on: an event may come twice, and none is lost.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.feed.lock().members.remove(&self.number);
    }
}
