//! Reads a kind's stream continuously, through outages: no live stream ends because a server is unavailable.

use bus::{Bus, BusError, Delivery, Read, Reader, StreamState, Window};
use records::Kind;
use runtime::Backoff;

use super::id::Position;

/// Bound on messages in flight from the server: enough for a burst, and for the largest message.
const WINDOW: Window = Window { messages: 1024, bytes: 4 << 20 };
/// Failures at the same position after which its message is requested by itself: some bytes that a server accepts make
/// the client end its connection.
const STUCK_AFTER: u32 = 2;
/// Consecutive failures after which the connection is replaced, because the client may have ended: about a minute.
const RENEW_AFTER: u32 = 15;

/// The next item of a stream.
#[derive(Debug)]
pub(super) enum Step {
    Message(Box<Delivery>),
    /// The stream does not hold these sequences.
    Missing {
        first: u64,
        last: u64,
    },
    /// No message for a while, or no response.
    Idle,
    /// The stream was recreated or truncated: its sequences are those of other messages.
    Recreated,
}

/// Reads a kind's stream from a position.
#[derive(Debug)]
pub(super) struct Source {
    bus: Bus,
    kind: Kind,
    next: Position,
    reader: Option<Reader>,
    failures: u32,
    /// The sequence of the last failure.
    failed_at: u64,
    backoff: Backoff,
}

impl Source {
    pub(super) fn new(bus: Bus, kind: Kind, next: Position) -> Self {
        let backoff = Backoff::for_server();
        Self { bus, kind, next, reader: None, failures: 0, failed_at: 0, backoff }
    }

    /// Returns the position of the next item.
    pub(super) fn next(&self) -> Position {
        self.next
    }

    /// Returns the position of another sequence of the same stream.
    pub(super) fn at(&self, sequence: u64) -> Position {
        Position { sequence, ..self.next }
    }

    /// Returns the next item. Cancel-safe.
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

    /// Deletes the reader's consumer at the server.
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
                    tracing::info!(kind = %self.kind, "the connection to NATS was replaced");
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

    /// Requests the next message by itself if reading it in order has failed repeatedly.
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

    /// Counts consecutive failures without progress.
    fn failed(&mut self) {
        if self.failed_at != self.next.sequence {
            self.failures = 0;
            self.backoff.reset();
        }
        self.failures = self.failures.saturating_add(1);
        self.failed_at = self.next.sequence;
    }
}
