//! Reading a stream in order, without acknowledgements.
//!
//! What is settled stands in Postgres, so the server has nothing to remember about a reader: an
//! ephemeral consumer starts where we say, and is thrown away whenever anything is in doubt. The
//! reader never skips: it hands out each sequence, or says which ones the stream does not hold.
//!
//! A jump in the sequence is first a reason to read again from the gap. Only where the first delivery
//! of a new consumer jumps as well does the stream no longer hold what is in between.
//!
//! Pulls overlap: the next one is asked for when half of the last one has come, so that a full stream
//! never waits for a round trip. Both counts and bytes are bounded ([`Window`]), and kept by what the
//! server says is left of a pull that ends early
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

/// How long the server keeps a pull that it cannot fill. Its end is also the pulse by which an idle
/// reader knows that the server is still there.
const PULL_EXPIRES: Duration = Duration::from_secs(5);
/// Beyond this without a message or the end of a pull, the server or the consumer is gone.
const SILENCE: Duration = Duration::from_secs(8);
/// What the end of a reader waits for an answer that it does not need.
const FORGET_WITHIN: Duration = Duration::from_secs(1);
/// Messages of a pull at the most: well below the 65,536 that the client holds for a subscription.
const PULL_MESSAGES: usize = 16_384;

/// What a message costs beside its bytes: the structures that hold it, and a row's bookkeeping.
const PER_MESSAGE: usize = 300;

/// What a 409 says where the consumer goes on.
const ENDS_A_PULL: &[&str] = &["Batch Completed", EXCEEDS_MAX_BYTES];
const EXCEEDS_MAX_BYTES: &str = "Message Size Exceeds MaxBytes";

/// How much a reader may have under way between the server and its caller.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Messages.
    pub messages: usize,
    /// Bytes, as the server counts them: subject, headers and body. Must hold the largest message.
    pub bytes: usize,
}

/// One message of a stream.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When the stream took it.
    pub published_at: DateTime<Utc>,
    /// How many messages the stream holds behind it.
    pub pending: u64,
    /// On which subject.
    pub subject: async_nats::Subject,
    headers: HeadersOf,
    /// What it weighs, in bytes: subject, reply, headers and body.
    size: usize,
    /// Its body.
    pub body: Bytes,
}

/// Headers as they came; most messages have none that mean anything to us.
#[derive(Debug, Clone)]
enum HeadersOf {
    Stream(Option<HeaderMap>),
    Request(Headers),
}

impl Delivery {
    /// A delivery that came from nowhere, for tests of what takes deliveries.
    pub fn new(sequence: u64, published_at: DateTime<Utc>, subject: &str, body: impl Into<Bytes>) -> Self {
        let (subject, body) = (async_nats::Subject::from(subject), body.into());
        let size = subject.len() + body.len();
        Self { sequence, published_at, pending: 0, subject, headers: HeadersOf::Stream(None), size, body }
    }

    pub(crate) fn with_headers(self, headers: Headers) -> Self {
        let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        Self { size: self.size + bytes, headers: HeadersOf::Request(headers), ..self }
    }

    /// What it holds in memory, in bytes.
    pub fn size(&self) -> usize {
        self.size + PER_MESSAGE
    }

    /// Its headers, all of them.
    pub fn headers(&self) -> Headers {
        match &self.headers {
            HeadersOf::Stream(map) => headers(map.as_ref()),
            HeadersOf::Request(headers) => headers.clone(),
        }
    }

    /// Its headers, or none where all of them speak of the stream and none of the record. The usual
    /// case, and not free: every message of an atomic batch carries two.
    pub fn record_headers(&self) -> Headers {
        let of_record = |(name, _): (&HeaderName, _)| !AsRef::<str>::as_ref(name).starts_with("Nats-");
        match &self.headers {
            HeadersOf::Stream(Some(map)) if map.iter().any(of_record) => self.headers(),
            HeadersOf::Stream(_) => Headers::default(),
            HeadersOf::Request(headers) => headers.clone(),
        }
    }
}

/// Returns the headers of a message as the client library hands it out.
pub fn headers(map: Option<&HeaderMap>) -> Headers {
    let values = |(name, values): (&HeaderName, &Vec<HeaderValue>)| {
        let name = name.to_string();
        values.iter().map(|value| (name.clone(), value.to_string())).collect::<Vec<_>>()
    };
    map.into_iter().flat_map(|map| map.iter()).flat_map(values).collect()
}

/// What comes next.
#[derive(Debug)]
pub enum Read {
    /// A message, of the sequence right after the last.
    Message(Delivery),
    /// The stream does not hold these sequences.
    Deleted {
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
    },
    /// Nothing came for a while. A good moment to see whether the stream is still the same.
    Idle,
}

/// The reader cannot go on: open another one.
#[derive(Debug, thiserror::Error)]
#[error("reading {stream} ended: {reason}")]
pub struct Lost {
    stream: String,
    reason: String,
}

/// Reads one kind's stream from a sequence on.
#[derive(Debug)]
pub struct Reader {
    bus: Bus,
    kind: Kind,
    stream: String,
    consumer: PullConsumer,
    /// What the reply subjects of this consumer start with, in their shorter form.
    reply_prefix: String,
    replies: Subscriber,
    inbox: String,
    pull_subject: String,
    window: Window,
    pending: Window,
    /// The next sequence to hand out.
    next: u64,
    /// A message that came behind a gap that had to be told first.
    held: Option<Delivery>,
    /// A gap that is known before the first message.
    gap: Option<(u64, u64)>,
    heard_at: Instant,
    /// The last pull asked for a message that is larger than the window, which then is the only one.
    oversized: bool,
    reconnects: watch::Receiver<u64>,
}

impl Bus {
    /// Opens a reader that hands out `next` first. `state` is how the stream stood right before.
    ///
    /// # Errors
    /// Where JetStream does not answer or refuses.
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
        // Nothing before the consumer, and yet the stream went on. That is gone from it where the leader
        // says so as well; the consumer alone may stand on a replica that is behind.
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
    /// The next sequence to be handed out.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// What comes next. May be dropped and called again at any time: nothing is lost between.
    ///
    /// # Errors
    /// Where the consumer is in doubt. Everything before [`Reader::next_sequence`] was handed out.
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
                // The server that held our pulls is not the one that we are connected to now.
                _ = self.reconnects.changed() => return Err(self.lost("the connection was made anew")),
            }
        }
    }

    /// What comes next where it has arrived already. Cheap, where [`Reader::read`] arms timers for
    /// each message; the two may be mixed.
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

    /// Ends reading, and lets the server forget the consumer; later by itself where it does not answer now.
    pub async fn close(self) {
        let forgotten = self.bus.forget_consumer(self.kind, &self.consumer);
        if tokio::time::timeout(FORGET_WITHIN, forgotten).await.is_err() {
            tracing::debug!(stream = self.stream, "the consumer is left to time out");
        }
    }

    fn wants_pull(&self) -> bool {
        self.pending.messages <= self.window.messages / 2 || self.pending.bytes <= self.window.bytes / 2
    }

    /// Asks for more where half of the window or less is under way.
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

    /// A reply: a message, the end of a pull, or the end of the consumer.
    fn take(&mut self, message: async_nats::Message) -> Result<Option<Read>, Lost> {
        match message.status {
            None | Some(StatusCode::OK) => self.take_message(message),
            Some(StatusCode::IDLE_HEARTBEAT) => Ok(None),
            // Expired, or nothing there.
            Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => {
                self.end_pull(message.headers.as_ref());
                Ok((self.pending.messages == 0).then_some(Read::Idle))
            }
            // 409 says that a pull is full, or that its bytes would not hold the next message. It says
            // much else, all of which ends the consumer.
            Some(StatusCode::REQUEST_TERMINATED)
                if message.description.as_deref().is_some_and(|text| ENDS_A_PULL.contains(&text)) =>
            {
                self.end_pull(message.headers.as_ref());
                // Nothing else is under way, and the whole window does not hold the next message.
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
            return Err(self.lost("a message without its place in the stream"));
        };
        // What a consumer delivers first may lie behind a gap; what it delivers later does so only where
        // something was lost on the way.
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

    /// The server says what is left of a pull that ended early.
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

/// Where a message stands, read off its reply subject:
/// `$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<consumer sequence>.<time>.<pending>`, with domain and
/// account before the stream in the newer form (ADR-15).
fn position_in_stream(reply: &str) -> Option<MessagePosition> {
    let tokens = reply.strip_prefix("$JS.ACK.")?;
    let skip = if tokens.bytes().filter(|b| *b == b'.').count() >= 8 { 2 } else { 0 };
    position_from_numbers(tokens.split('.').skip(skip + 2))
}

/// What stands behind stream and consumer.
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
