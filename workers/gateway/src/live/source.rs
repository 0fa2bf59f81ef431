//! Reading a kind's stream on and on, through outages: no reader ends because a server went away.

use bus::{Bus, BusError, Delivery, Read, Reader, StreamState, Window};
use records::Kind;
use runtime::Backoff;

use super::id::Position;

/// What is under way between the server and this process: enough for a burst, and for the largest message.
const WINDOW: Window = Window { messages: 1024, bytes: 4 << 20 };
/// Failures at the same place after which its message is asked for by itself: a client ends its connection on some
/// bytes that a server takes.
const STUCK_AFTER: u32 = 2;
/// Failures in a row after which the connection is made anew, because the client may have ended: a minute.
const RENEW_AFTER: u32 = 15;

/// What comes next.
#[derive(Debug)]
pub(super) enum Step {
    Message(Box<Delivery>),
    /// The stream does not hold these.
    Missing {
        first: u64,
        last: u64,
    },
    /// Nothing for a while, or no answer.
    Idle,
    /// The stream is another one than before: its sequences mean nothing of what was read.
    Recreated,
}

/// Reads a kind's stream from a position on.
#[derive(Debug)]
pub(super) struct Source {
    bus: Bus,
    kind: Kind,
    next: Position,
    reader: Option<Reader>,
    failures: u32,
    /// Where the last failure was.
    failed_at: u64,
    backoff: Backoff,
}

impl Source {
    pub(super) fn new(bus: Bus, kind: Kind, next: Position) -> Self {
        let backoff = Backoff::for_server();
        Self { bus, kind, next, reader: None, failures: 0, failed_at: 0, backoff }
    }

    /// What is read next.
    pub(super) fn next(&self) -> Position {
        self.next
    }

    /// Another sequence of the stream that it reads.
    pub(super) fn at(&self, sequence: u64) -> Position {
        Position { sequence, ..self.next }
    }

    /// What comes next. May be dropped and called again.
    pub(super) async fn read(&mut self) -> Step {
        let Some(reader) = &mut self.reader else { return self.open().await };
        let read = match reader.read_arrived() {
            Ok(Some(read)) => Ok(read),
            Ok(None) => reader.read().await,
            Err(lost) => Err(lost),
        };
        let step = match read {
            Ok(Read::Message(delivery)) => Step::Message(Box::new(delivery)),
            Ok(Read::Deleted { first, last }) => Step::Missing { first, last },
            Ok(Read::Idle) => Step::Idle,
            Err(lost) => {
                tracing::debug!(kind = %self.kind, %lost, "reading again");
                self.reader = None;
                self.failed();
                return Step::Idle;
            }
        };
        self.next.sequence = reader.next_sequence();
        step
    }

    /// Lets the server forget its reader.
    pub(super) async fn close(self) {
        if let Some(reader) = self.reader {
            reader.close().await;
        }
    }

    async fn open(&mut self) -> Step {
        match self.try_open().await {
            Ok(step) => step,
            Err(error) => {
                self.failed();
                if self.failures == 1 {
                    tracing::warn!(kind = %self.kind, %error, "the stream cannot be watched; trying again until it can");
                }
                if self.failures.is_multiple_of(RENEW_AFTER) && self.bus.renew().await.is_ok() {
                    tracing::info!(kind = %self.kind, "the connection to NATS was made anew");
                }
                tokio::time::sleep(self.backoff.next_wait()).await;
                Step::Idle
            }
        }
    }

    async fn try_open(&mut self) -> Result<Step, BusError> {
        let state = self.bus.stream_state(self.kind).await?;
        if state.created_at != self.next.stream_created_at || state.last_sequence.saturating_add(1) < self.next.sequence
        {
            return Ok(Step::Recreated);
        }
        if let Some(delivery) = self.stuck(&state).await? {
            return Ok(Step::Message(Box::new(delivery)));
        }
        self.reader = Some(self.bus.read_from(self.kind, self.next.sequence, &state, WINDOW).await?);
        Ok(Step::Idle)
    }

    /// The next message by itself, where reading it in order has failed again and again.
    async fn stuck(&mut self, state: &StreamState) -> Result<Option<Delivery>, BusError> {
        if self.failures < STUCK_AFTER
            || self.failed_at != self.next.sequence
            || state.last_sequence < self.next.sequence
        {
            return Ok(None);
        }
        let delivery = self.bus.message(self.kind, self.next.sequence).await?;
        if delivery.is_some() {
            self.next = self.next.behind();
        }
        Ok(delivery)
    }

    /// Counts failures without progress between them.
    fn failed(&mut self) {
        if self.failed_at != self.next.sequence {
            self.failures = 0;
            self.backoff.reset();
        }
        self.failures = self.failures.saturating_add(1);
        self.failed_at = self.next.sequence;
    }
}
