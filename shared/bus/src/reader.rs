//! Reads a stream in order, without acknowledgements.
//!
//! Postgres holds which sequences are settled, so the server need not remember anything about a reader: an ephemeral
//! consumer starts at a given sequence, and is discarded whenever anything is in doubt. The reader never skips a
//! sequence: it returns its message, or reports that the stream does not hold it.
//!
//! After a jump in the sequence, a new consumer reads from the gap again. Only if its first delivery jumps as well, the
//! stream does not hold the sequences in between.
//!
//! Pulls overlap: the next one is sent when half of the window has arrived, so that reading a full stream never waits
//! for a round trip. The messages and bytes under way are bounded by [`Window`]. When a pull ends early, the server
//! reports what is left of it
//! (<https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-37.md>).

use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, PullConsumer};
use async_nats::{HeaderMap, HeaderName, HeaderValue, StatusCode, Subscriber};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{FutureExt, StreamExt};
use records::{Headers, Kind};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::stream::BusError;
use crate::{Bus, StreamState};

/// How long the server keeps a pull that it cannot fill. The end of a pull also shows an idle reader that the server is
/// alive.
const PULL_EXPIRES: Duration = Duration::from_secs(5);
/// After this time without a message or the end of a pull, the server or the consumer has failed. Must be longer than
/// [`PULL_EXPIRES`].
const SILENCE: Duration = Duration::from_secs(8);
/// Time-out for deleting the consumer when a reader is closed. The server deletes it later by itself.
const FORGET_WITHIN: Duration = Duration::from_secs(1);
/// Maximum number of messages of a pull: well below the 65,536 that the client buffers for a subscription.
const PULL_MESSAGES: usize = 16_384;

/// Memory of a message beside its bytes: its structures and the bookkeeping of its row.
const PER_MESSAGE: usize = 300;

/// Descriptions of status 409 that only end a pull. All others end the consumer.
const ENDS_A_PULL: &[&str] = &["Batch Completed", EXCEEDS_MAX_BYTES];
const EXCEEDS_MAX_BYTES: &str = "Message Size Exceeds MaxBytes";

/// How much a reader may have under way: requested from the server, and not yet returned to the caller.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Maximum number of messages.
    pub messages: usize,
    /// Maximum number of bytes, as the server counts them: subject, headers and body. It should hold the largest
    /// message: a larger one is pulled alone.
    pub bytes: usize,
}

/// A message of a stream.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The sequence of the message in the stream.
    pub sequence: u64,
    /// When the stream stored the message.
    pub published_at: DateTime<Utc>,
    /// How many messages the stream holds after this one.
    pub pending: u64,
    /// The subject on which the message was published.
    pub subject: async_nats::Subject,
    headers: HeadersOf,
    /// Size of subject, reply subject, headers and body, in bytes.
    size: usize,
    /// The body.
    pub body: Bytes,
}

/// Headers as they were read. They are converted only on demand, because most messages have no relevant ones.
#[derive(Debug, Clone)]
enum HeadersOf {
    Stream(Option<HeaderMap>),
    Request(Headers),
}

impl Delivery {
    /// Returns a delivery without headers, for messages read by request and for tests.
    pub fn new(sequence: u64, published_at: DateTime<Utc>, subject: &str, body: impl Into<Bytes>) -> Self {
        let (subject, body) = (async_nats::Subject::from(subject), body.into());
        let size = subject.len() + body.len();
        Self { sequence, published_at, pending: 0, subject, headers: HeadersOf::Stream(None), size, body }
    }

    pub(crate) fn with_headers(self, headers: Headers) -> Self {
        let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        Self { size: self.size + bytes, headers: HeadersOf::Request(headers), ..self }
    }

    /// Returns the memory that the message takes, in bytes.
    pub fn size(&self) -> usize {
        self.size + PER_MESSAGE
    }

    /// Returns all headers.
    pub fn headers(&self) -> Headers {
        match &self.headers {
            HeadersOf::Stream(map) => headers(map.as_ref()),
            HeadersOf::Request(headers) => headers.clone(),
        }
    }

    /// Returns all headers, or none if all of them are for the stream (`Nats-…`) and none is for the record. That is
    /// the usual case, and worth a shortcut: every message of an atomic batch has two.
    pub fn record_headers(&self) -> Headers {
        let of_record = |(name, _): (&HeaderName, _)| !AsRef::<str>::as_ref(name).starts_with("Nats-");
        match &self.headers {
            HeadersOf::Stream(Some(map)) if map.iter().any(of_record) => self.headers(),
            HeadersOf::Stream(_) => Headers::default(),
            HeadersOf::Request(headers) => headers.clone(),
        }
    }
}

/// Converts the headers of a message from the client's type.
pub fn headers(map: Option<&HeaderMap>) -> Headers {
    let values = |(name, values): (&HeaderName, &Vec<HeaderValue>)| {
        let name = name.to_string();
        values.iter().map(|value| (name.clone(), value.to_string())).collect::<Vec<_>>()
    };
    map.into_iter().flat_map(|map| map.iter()).flat_map(values).collect()
}

/// The next message or event of a reader.
#[derive(Debug)]
pub enum Read {
    /// The message of the next sequence.
    Message(Delivery),
    /// The stream does not hold these sequences.
    Deleted {
        /// The first sequence.
        first: u64,
        /// The last sequence, inclusive.
        last: u64,
    },
    /// Nothing arrived for a while. The caller can use the time to check whether the stream is still the same.
    Idle,
}

/// The reader cannot continue: open another one.
#[derive(Debug, thiserror::Error)]
#[error("reading {stream} ended: {reason}")]
pub struct Lost {
    stream: String,
    reason: String,
}

/// Reads the stream of a kind from a sequence on.
#[derive(Debug)]
pub struct Reader {
    bus: Bus,
    kind: Kind,
    stream: String,
    consumer: PullConsumer,
    /// The prefix of the reply subjects of this consumer, in their shorter form.
    reply_prefix: String,
    replies: Subscriber,
    inbox: String,
    pull_subject: String,
    window: Window,
    pending: Window,
    /// The next sequence to return.
    next: u64,
    /// A message after a gap that is reported first.
    held: Option<Delivery>,
    /// A gap to report before the next message.
    gap: Option<(u64, u64)>,
    heard_at: Instant,
    /// Whether the next message is larger than the window, so that it must be pulled alone.
    oversized: bool,
    reconnects: watch::Receiver<u64>,
}

impl Bus {
    /// Opens a reader that starts at the sequence `next`. `state` is the state of the stream right before.
    ///
    /// # Errors
    /// JetStream does not answer or refuses.
    pub async fn read_from(
        &self,
        kind: Kind,
        next: u64,
        state: &StreamState,
        window: Window,
    ) -> Result<Reader, BusError> {
        let mut reconnects = self.reconnects();
        reconnects.mark_unchanged();
        let client = self.client();
        let (consumer, pending) = self.consumer(kind, DeliverPolicy::ByStartSequence { start_sequence: next }).await?;
        // The consumer has no pending messages, but the stream has later sequences. They are deleted if the leader
        // does not hold them either. The consumer may be on a replica that is behind.
        let mut gap = None;
        if pending == 0 && state.last_sequence >= next {
            let held = self.next_held(kind, next).await?.map_or(state.last_sequence, |held| held - 1);
            gap = Some((next, held.min(state.last_sequence))).filter(|(first, last)| first <= last);
        }
        let inbox = client.new_inbox();
        let replies = client.subscribe(inbox.clone()).await.map_err(|_| self.silent("read", &state.name))?;
        Ok(Reader {
            bus: self.clone(),
            kind,
            stream: state.name.clone(),
            reply_prefix: format!("$JS.ACK.{}.{}.", state.name, consumer.cached_info().name),
            pull_subject: format!(
                "{}.CONSUMER.MSG.NEXT.{}.{}",
                self.api_prefix,
                state.name,
                consumer.cached_info().name
            ),
            consumer,
            replies,
            inbox,
            window,
            pending: Window { messages: 0, bytes: 0 },
            next,
            held: None,
            gap,
            heard_at: Instant::now(),
            oversized: false,
            reconnects,
        })
    }
}

impl Reader {
    /// Returns the next sequence that the reader will return or report as deleted.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Returns the next message or event. Cancel-safe: dropping the future loses nothing.
    ///
    /// # Errors
    /// The consumer is in doubt. Everything before [`Reader::next_sequence`] was returned.
    pub async fn read(&mut self) -> Result<Read, Lost> {
        loop {
            if let Some((first, last)) = self.gap.take() {
                self.next = last + 1;
                return Ok(Read::Deleted { first, last });
            }
            if let Some(delivery) = self.held.take() {
                return Ok(self.hand_out(delivery));
            }
            self.pull().await?;
            tokio::select! {
                biased;
                reply = timeout_at(self.heard_at + SILENCE, self.replies.next()) => {
                    let message = match reply {
                        Ok(Some(message)) => message,
                        Ok(None) => return Err(self.lost("the subscription ended")),
                        Err(_) => return Err(self.lost("the server is silent")),
                    };
                    self.heard_at = Instant::now();
                    if let Some(read) = self.take(message)? {
                        return Ok(read);
                    }
                }
                // The pulls were sent on a connection that has ended, and the server of the new one may be another.
                _ = self.reconnects.changed() => return Err(self.lost("the connection was re-established")),
            }
        }
    }

    /// Returns the next message or event if it has arrived already. It is cheaper than [`Reader::read`], which sets a
    /// timer for each message. Calls of both can be mixed.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn read_arrived(&mut self) -> Result<Option<Read>, Lost> {
        if self.gap.is_some() || self.held.is_some() || self.wants_pull() {
            return Ok(None);
        }
        while let Some(Some(message)) = self.replies.next().now_or_never() {
            if let Some(read) = self.take(message)? {
                return Ok(Some(read));
            }
            if self.gap.is_some() {
                break;
            }
        }
        Ok(None)
    }

    /// Stops reading and deletes the consumer, within a second. If that fails, the server deletes it later by itself.
    pub async fn close(self) {
        let forgotten = self.bus.forget_consumer(self.kind, &self.consumer);
        if tokio::time::timeout(FORGET_WITHIN, forgotten).await.is_err() {
            tracing::debug!(stream = self.stream, "the consumer is left to time out");
        }
    }

    fn wants_pull(&self) -> bool {
        self.pending.messages <= self.window.messages / 2 || self.pending.bytes <= self.window.bytes / 2
    }

    /// Sends a pull if at most half of the window is under way.
    async fn pull(&mut self) -> Result<(), Lost> {
        if !self.wants_pull() {
            return Ok(());
        }
        let messages = self.window.messages.saturating_sub(self.pending.messages).min(PULL_MESSAGES);
        let bytes = self.window.bytes.saturating_sub(self.pending.bytes);
        if messages == 0 || bytes == 0 {
            return Ok(());
        }
        let expires = PULL_EXPIRES.as_nanos();
        let oversized = std::mem::take(&mut self.oversized);
        let (messages, request) = if oversized {
            (1, format!(r#"{{"batch":1,"expires":{expires}}}"#))
        } else {
            (messages, format!(r#"{{"batch":{messages},"max_bytes":{bytes},"expires":{expires}}}"#))
        };
        let sent =
            self.bus.client().publish_with_reply(self.pull_subject.clone(), self.inbox.clone(), request.into()).await;
        sent.map_err(|error| self.lost(&error.to_string()))?;
        self.pending.messages += messages;
        self.pending.bytes += bytes;
        Ok(())
    }

    /// Handles a reply: a message, the end of a pull, or the end of the consumer.
    fn take(&mut self, message: async_nats::Message) -> Result<Option<Read>, Lost> {
        match message.status {
            None | Some(StatusCode::OK) => self.take_message(message),
            Some(StatusCode::IDLE_HEARTBEAT) => Ok(None),
            // The pull expired, or the stream has no messages for it.
            Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => {
                self.end_pull(message.headers.as_ref());
                Ok((self.pending.messages == 0).then_some(Read::Idle))
            }
            // Status 409: the pull is complete, or its remaining bytes do not hold the next message. All other
            // descriptions end the consumer.
            Some(StatusCode::REQUEST_TERMINATED)
                if message.description.as_deref().is_some_and(|text| ENDS_A_PULL.contains(&text)) =>
            {
                self.end_pull(message.headers.as_ref());
                // Nothing else is under way, and the next message is larger than the whole window.
                self.oversized =
                    self.pending.messages == 0 && message.description.as_deref() == Some(EXCEEDS_MAX_BYTES);
                Ok(None)
            }
            Some(status) => Err(self.lost(&format!("{status} {}", message.description.unwrap_or_default()))),
        }
    }

    fn take_message(&mut self, message: async_nats::Message) -> Result<Option<Read>, Lost> {
        self.pending.messages = self.pending.messages.saturating_sub(1);
        self.pending.bytes = self.pending.bytes.saturating_sub(message.length);
        if self.pending.messages == 0 {
            self.pending.bytes = 0;
        }
        let position = message.reply.as_deref().and_then(|reply| match reply.strip_prefix(&self.reply_prefix) {
            Some(numbers) => position_from_numbers(numbers.split('.')),
            None => position_in_stream(reply),
        });
        let Some(position) = position else {
            return Err(self.lost("a message without its position in the stream"));
        };
        // The first delivery of a consumer may follow a gap in the stream. A later one does so only if messages were
        // lost on the way.
        let is_first = position.consumer_sequence == 1;
        let delivery = delivery(position, message);
        if delivery.sequence < self.next {
            return Ok(None);
        }
        if delivery.sequence > self.next && !is_first {
            return Err(self.lost("messages were lost on the way"));
        }
        if delivery.sequence > self.next {
            self.gap = Some((self.next, delivery.sequence - 1));
            self.held = Some(delivery);
            return Ok(None);
        }
        Ok(Some(self.hand_out(delivery)))
    }

    fn hand_out(&mut self, delivery: Delivery) -> Read {
        self.next = delivery.sequence + 1;
        Read::Message(delivery)
    }

    /// Subtracts what the server reports to be left of a pull that ended early.
    fn end_pull(&mut self, headers: Option<&HeaderMap>) {
        let left = |name: &str| {
            let value = headers.and_then(|headers| headers.get(name));
            value.and_then(|value| value.as_str().parse::<usize>().ok())
        };
        match (left("Nats-Pending-Messages"), left("Nats-Pending-Bytes")) {
            (Some(messages), Some(bytes)) => {
                self.pending.messages = self.pending.messages.saturating_sub(messages);
                self.pending.bytes = self.pending.bytes.saturating_sub(bytes);
            }
            _ => self.pending = Window { messages: 0, bytes: 0 },
        }
        if self.pending.messages == 0 || self.pending.bytes == 0 {
            self.pending = Window { messages: 0, bytes: 0 };
        }
    }

    fn lost(&self, reason: &str) -> Lost {
        Lost { stream: self.stream.clone(), reason: reason.to_owned() }
    }
}

fn delivery(position: MessagePosition, message: async_nats::Message) -> Delivery {
    Delivery {
        sequence: position.sequence,
        published_at: DateTime::from_timestamp_nanos(position.published_ns),
        pending: position.pending,
        subject: message.subject,
        headers: HeadersOf::Stream(message.headers),
        size: message.length,
        body: message.payload,
    }
}

#[derive(Debug, PartialEq, Eq)]
struct MessagePosition {
    sequence: u64,
    consumer_sequence: u64,
    published_ns: i64,
    pending: u64,
}

/// Parses the position of a message from its reply subject:
/// `$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<consumer sequence>.<time>.<pending>`. The newer form has domain
/// and account before the stream (ADR-15 of nats-architecture-and-design).
fn position_in_stream(reply: &str) -> Option<MessagePosition> {
    let tokens = reply.strip_prefix("$JS.ACK.")?;
    let skip = if tokens.bytes().filter(|b| *b == b'.').count() >= 8 { 2 } else { 0 };
    position_from_numbers(tokens.split('.').skip(skip + 2))
}

/// Parses the tokens after stream and consumer.
fn position_from_numbers<'r>(mut numbers: impl Iterator<Item = &'r str>) -> Option<MessagePosition> {
    let sequence = numbers.nth(1)?.parse().ok()?;
    let consumer_sequence = numbers.next()?.parse().ok()?;
    let published_ns = numbers.next()?.parse().ok()?;
    let pending = numbers.next()?.parse().ok()?;
    Some(MessagePosition { sequence, consumer_sequence, published_ns, pending })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_subject_tells_where_the_message_stands() {
        let position = Some(MessagePosition {
            sequence: 100,
            consumer_sequence: 7,
            published_ns: 1_790_230_470_084_404_000,
            pending: 42,
        });
        assert_eq!(position_in_stream("$JS.ACK.events.reader.1.100.7.1790230470084404000.42"), position);
        assert_eq!(position_in_stream("$JS.ACK._.hash.events.reader.1.100.7.1790230470084404000.42"), position);
        assert_eq!(position_in_stream("$JS.ACK.hub.hash.events.reader.1.100.7.1790230470084404000.42.token"), position);
        assert_eq!(position_in_stream("_INBOX.x"), None);
    }
}
