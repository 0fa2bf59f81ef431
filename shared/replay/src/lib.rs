//! Publishes dead letters to their streams again.
//!
//! A dead letter is published as the original message, with its subject, headers and identity. So it is stored
//! once, however often it is replayed. If it still cannot be stored as a row, it becomes a dead letter with the
//! same id.

use async_nats::{HeaderName, HeaderValue};
use publisher::{Encoded, PublishError, Publisher};
use records::{Headers, Kind, Message, REPLAY_ID_HEADER, REPLAY_TIME_HEADER};
use serde::Serialize;
use store::PgConnection;
use store::dead_letters::{self, Key, Settled, StoredDeadLetter};
use uuid::Uuid;

/// The result, or the expected result, of replaying one dead letter.
#[derive(Debug, Serialize)]
pub struct Replayed {
    /// The id of the dead letter.
    pub id: Uuid,
    /// The kind of its stream.
    pub kind: String,
    /// Whether the stream acknowledged it.
    pub accepted: bool,
    /// The reason why it was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Replayed {
    /// Returns the result for a dead letter, which is accepted unless `reason` is given.
    pub fn of(letter: &StoredDeadLetter, reason: Option<String>) -> Self {
        Self { id: letter.id, kind: letter.kind.clone(), accepted: reason.is_none(), reason }
    }
}

/// Dead letters that were not acknowledged. They may or may not be stored; replaying them again is safe.
#[derive(Debug, thiserror::Error)]
#[error("{letters} dead letters of kind {kind} were not acknowledged and stay as they are: {error}")]
pub struct Unacknowledged {
    letters: usize,
    kind: Kind,
    error: String,
}

/// The result of replaying several dead letters.
#[derive(Debug)]
pub struct Outcome {
    /// The results so far. Dead letters that another session holds or has settled are not included.
    pub replayed: Vec<Replayed>,
    /// Whether all dead letters were handled.
    pub ended: Result<(), Unacknowledged>,
}

/// Publishes dead letters, and marks the acknowledged ones in the transaction that locks them against other
/// replays. After a crash between the two they are published again, and stored once because of their identity.
///
/// # Errors
/// If a statement fails.
pub async fn publish(
    transaction: &mut PgConnection,
    publisher: &Publisher,
    letters: &[StoredDeadLetter],
) -> store::Result<Outcome> {
    let mine = dead_letters::lock(transaction, letters).await?;
    let mut page = Page { publisher, done: Vec::with_capacity(mine.len()) };
    let ended = page.publish(letters.iter().filter(|letter| mine.contains(&letter.key()))).await;
    // Acknowledged dead letters must not be published again, however the loop ended.
    let accepted = page.done.iter().filter(|(_, letter)| letter.accepted).map(|(key, _)| *key);
    dead_letters::mark(transaction, accepted, Settled::Replayed).await?;
    Ok(Outcome { replayed: page.done.into_iter().map(|(_, letter)| letter).collect(), ended })
}

/// The dead letters of one transaction and their results.
struct Page<'p> {
    publisher: &'p Publisher,
    done: Vec<(Key, Replayed)>,
}

impl Page<'_> {
    async fn publish<'l>(&mut self, letters: impl Iterator<Item = &'l StoredDeadLetter>) -> Result<(), Unacknowledged> {
        let letters: Vec<_> = letters.collect();
        for &kind in Kind::ALL {
            let of_kind: Vec<_> = letters.iter().copied().filter(|letter| letter.kind == kind.name()).collect();
            if !of_kind.is_empty() {
                self.publish_kind(kind, of_kind).await?;
            }
        }
        Ok(())
    }

    /// Publishes all dead letters of a kind as a batch. If one of them may be at fault, publishes the rest one by
    /// one.
    async fn publish_kind(&mut self, kind: Kind, letters: Vec<&StoredDeadLetter>) -> Result<(), Unacknowledged> {
        let messages: Vec<_> = letters.iter().map(|letter| encoded(letter, kind, self.publisher.prefix())).collect();
        let Err(error) = self.publisher.publish_encoded(kind, messages).await else {
            letters.into_iter().for_each(|letter| self.settle(letter, None));
            return Ok(());
        };
        let mut left = Vec::with_capacity(letters.len() - error.acknowledged());
        for (letter, sequence) in letters.into_iter().zip(error.sequences()) {
            match sequence {
                Some(_) => self.settle(letter, None),
                None => left.push(letter),
            }
        }
        if !is_of_one_letter(error.error()) {
            return Err(unacknowledged(kind, left.len(), error.error()));
        }
        self.publish_singly(kind, left, error.into_unacknowledged()).await
    }

    /// Publishes dead letters one by one. `messages` are theirs, in the same order.
    async fn publish_singly(
        &mut self,
        kind: Kind,
        letters: Vec<&StoredDeadLetter>,
        messages: Vec<Encoded>,
    ) -> Result<(), Unacknowledged> {
        let mut left = letters.len();
        for (letter, message) in letters.into_iter().zip(messages) {
            match self.publisher.publish_encoded(kind, [message]).await {
                Ok(_) => self.settle(letter, None),
                Err(error) if is_of_one_letter(error.error()) => self.settle(letter, Some(error.error())),
                Err(error) => return Err(unacknowledged(kind, left, error.error())),
            }
            left -= 1;
        }
        Ok(())
    }

    fn settle(&mut self, letter: &StoredDeadLetter, error: Option<&PublishError>) {
        self.done.push((letter.key(), Replayed::of(letter, error.map(PublishError::to_string))));
    }
}

/// Returns whether a single dead letter may have caused the error, so that the others can be published without it.
fn is_of_one_letter(error: &PublishError) -> bool {
    match error {
        // The subject may belong to a stream of earlier settings. The server abandons a batch with such a subject
        // without giving the reason.
        PublishError::StreamMissing { .. } | PublishError::BatchAbandoned { .. } => true,
        PublishError::Closed => false,
        error => !error.is_retryable(),
    }
}

fn unacknowledged(kind: Kind, letters: usize, error: &PublishError) -> Unacknowledged {
    Unacknowledged { letters, kind, error: error.to_string() }
}

/// Returns the original message of a dead letter.
pub fn message<'l>(letter: &'l StoredDeadLetter, kind: Kind, prefix: &'l str, headers: &'l Headers) -> Message<'l> {
    Message {
        kind,
        prefix,
        subject: &letter.subject,
        stream: &letter.stream,
        sequence: u64::try_from(letter.stream_seq).unwrap_or_default(),
        published_at: letter.received_at,
        headers,
        body: &letter.payload,
    }
}

/// Returns the message to publish: the original one, with its headers and its identity.
fn encoded(letter: &StoredDeadLetter, kind: Kind, prefix: &str) -> Encoded {
    let headers = dead_letters::headers_from_json(letter.headers.as_ref());
    // Uses the id of the dead letter instead of deriving it again, because the table stores microseconds and the
    // stream nanoseconds.
    let (_, time) = message(letter, kind, prefix, &headers).replay_identity();
    let of_replay =
        [(REPLAY_ID_HEADER.to_owned(), letter.id.to_string()), (REPLAY_TIME_HEADER.to_owned(), time.to_rfc3339())];
    let kept = headers.iter().filter(|(name, value)| !is_replaced(name) && is_header(name, value));
    let kept = kept.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let headers: Headers = kept.chain(of_replay).collect();
    Encoded::new(letter.subject.clone(), letter.payload.clone()).with_headers(headers)
}

/// Returns whether the header can be sent. Some producers write headers that this client cannot send, and the table
/// keeps them as text. The record does not depend on them, so they are dropped.
fn is_header(name: &str, value: &str) -> bool {
    !name.is_empty() && name.parse::<HeaderName>().is_ok() && value.parse::<HeaderValue>().is_ok()
}

/// Returns whether a header addresses the stream and not the record. Such a header would make the stream treat the
/// replay as a duplicate, or reject it.
fn is_replaced(name: &str) -> bool {
    let is = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    is("Nats-") || name.eq_ignore_ascii_case(REPLAY_ID_HEADER) || name.eq_ignore_ascii_case(REPLAY_TIME_HEADER)
}
