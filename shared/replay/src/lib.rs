//! Dead letters back into their streams, each once.
//!
//! A letter is published as the message that it was: on its subject, with its headers, and with the identity that it had.
//! So it is stored once, however often it is replayed; and where it still cannot become a row, it comes back as a letter
//! of the same id.

use async_nats::{HeaderName, HeaderValue};
use publisher::{Encoded, PublishError, Publisher};
use records::{Headers, Kind, Message, REPLAY_ID_HEADER, REPLAY_TIME_HEADER};
use serde::Serialize;
use store::PgConnection;
use store::dead_letters::{self, Key, Settled, StoredDeadLetter};
use uuid::Uuid;

/// What became, or would become, of one dead letter.
#[derive(Debug, Serialize)]
pub struct Replayed {
    /// Its id.
    pub id: Uuid,
    /// The kind of its stream.
    pub kind: String,
    /// Whether the stream took it.
    pub accepted: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Replayed {
    /// A letter, and why it is refused where it is.
    pub fn of(letter: &StoredDeadLetter, reason: Option<String>) -> Self {
        Self { id: letter.id, kind: letter.kind.clone(), accepted: reason.is_none(), reason }
    }
}

/// The stream did not say that it has them: whether it has, nobody knows, and to replay them again does no harm.
#[derive(Debug, thiserror::Error)]
#[error("{letters} dead letters of kind {kind} were not acknowledged and stay as they are: {error}")]
pub struct Unacknowledged {
    letters: usize,
    kind: Kind,
    error: String,
}

/// What became of letters.
#[derive(Debug)]
pub struct Outcome {
    /// Each that was decided. What other sessions work on, or have settled, is not among them.
    pub replayed: Vec<Replayed>,
    /// Whether all were.
    pub ended: Result<(), Unacknowledged>,
}

/// Publishes dead letters, and marks those that a stream took, in the transaction that keeps other replays from them. A
/// crash between the two publishes them twice, and their identity stores them once.
///
/// # Errors
/// Where a statement fails.
pub async fn publish(
    transaction: &mut PgConnection,
    publisher: &Publisher,
    letters: &[StoredDeadLetter],
) -> store::Result<Outcome> {
    let mine = dead_letters::lock(transaction, letters).await?;
    let mut page = Page { publisher, done: Vec::with_capacity(mine.len()) };
    let ended = page.publish(letters.iter().filter(|letter| mine.contains(&letter.key()))).await;
    // Whatever ended it: what is acknowledged must not be published again.
    let accepted = page.done.iter().filter(|(_, letter)| letter.accepted).map(|(key, _)| *key);
    dead_letters::mark(transaction, accepted, Settled::Replayed).await?;
    Ok(Outcome { replayed: page.done.into_iter().map(|(_, letter)| letter).collect(), ended })
}

/// Dead letters on their way to the streams, and what became of each that was decided.
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

    /// All at once, and where one of them may be at fault the others one by one.
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

    /// `messages` are those of the letters, in the same order.
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

/// Whether an error may be the fault of one letter, and the others be published without it.
fn is_of_one_letter(error: &PublishError) -> bool {
    match error {
        // The subject of a letter may be one that streams took earlier. A batch with such a subject is
        // given up by the server, which does not say why.
        PublishError::StreamMissing { .. } | PublishError::BatchAbandoned { .. } => true,
        PublishError::Closed => false,
        error => !error.is_retryable(),
    }
}

fn unacknowledged(kind: Kind, letters: usize, error: &PublishError) -> Unacknowledged {
    Unacknowledged { letters, kind, error: error.to_string() }
}

/// A dead letter as the message that it was.
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

/// A dead letter as it is published again: with its headers, and the identity that it had.
fn encoded(letter: &StoredDeadLetter, kind: Kind, prefix: &str) -> Encoded {
    let headers = dead_letters::headers_from_json(letter.headers.as_ref());
    // The letter's own id, and not one derived anew: the table keeps microseconds of the stream's nanoseconds.
    let (_, time) = message(letter, kind, prefix, &headers).replay_identity();
    let of_replay =
        [(REPLAY_ID_HEADER.to_owned(), letter.id.to_string()), (REPLAY_TIME_HEADER.to_owned(), time.to_rfc3339())];
    let kept = headers.iter().filter(|(name, value)| !is_replaced(name) && is_header(name, value));
    let kept = kept.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let headers: Headers = kept.chain(of_replay).collect();
    Encoded::new(letter.subject.clone(), letter.payload.clone()).with_headers(headers)
}

/// Whether it can be sent. Some producers write headers that no client of ours would, and the table
/// keeps them as text: without them the record is as it was, with them it could never be published.
fn is_header(name: &str, value: &str) -> bool {
    !name.is_empty() && name.parse::<HeaderName>().is_ok() && value.parse::<HeaderValue>().is_ok()
}

/// Headers that speak to the stream and not of the record: carried on, they would make the stream
/// take the replay for a duplicate, or refuse it.
fn is_replaced(name: &str) -> bool {
    let is = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    is("Nats-") || name.eq_ignore_ascii_case(REPLAY_ID_HEADER) || name.eq_ignore_ascii_case(REPLAY_TIME_HEADER)
}
