//! One message of a stream, from bytes to a row.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::envelope::{Envelope, derived_id};
use crate::fields::{Fields, parse_time, whole_microseconds};
use crate::headers::Headers;
use crate::limits::MESSAGE_BYTES;
use crate::row::RowWriter;
use crate::text::sanitize;
use crate::{Kind, Reason, Reject, cloudevent, subject};

/// Set on a replayed dead letter: the id that the original would have had without one of its own.
pub const REPLAY_ID_HEADER: &str = "Watchbook-Replay-Id";
/// Set on a replayed dead letter: the stream's time of the original.
pub const REPLAY_TIME_HEADER: &str = "Watchbook-Replay-Time";

/// One message as the stream holds it.
#[derive(Debug, Clone, Copy)]
pub struct Message<'m> {
    /// The kind of the stream that holds it.
    pub kind: Kind,
    /// The prefix of all subjects.
    pub prefix: &'m str,
    /// The subject on which it was published.
    pub subject: &'m str,
    /// The stream's name.
    pub stream: &'m str,
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When the stream took it.
    pub published_at: DateTime<Utc>,
    /// Its headers.
    pub headers: &'m Headers,
    /// Its body.
    pub body: &'m [u8],
}

impl Message<'_> {
    /// The id where the body names none: derived from where it stands, or from where it first stood.
    pub(crate) fn own_id(&self) -> Uuid {
        self.replay_id().unwrap_or_else(|| derived_id(self.stream, self.sequence, self.published_at))
    }

    /// The time where the body names none.
    pub(crate) fn own_time(&self) -> DateTime<Utc> {
        self.headers
            .get(REPLAY_TIME_HEADER)
            .and_then(parse_time)
            .unwrap_or_else(|| whole_microseconds(self.published_at))
    }

    /// The identity that a replay must carry on, so that replaying twice stores once: the headers
    /// [`REPLAY_ID_HEADER`] and [`REPLAY_TIME_HEADER`].
    pub fn replay_identity(&self) -> (Uuid, DateTime<Utc>) {
        (self.own_id(), self.own_time())
    }

    fn replay_id(&self) -> Option<Uuid> {
        Uuid::parse_str(self.headers.get(REPLAY_ID_HEADER)?).ok()
    }
}

/// What the writer has to know about an encoded row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowFacts<'m> {
    /// The record's id, with `created_at` its key.
    pub id: Uuid,
    /// When it happened, in whole microseconds.
    pub created_at: DateTime<Utc>,
    /// Whose it is.
    pub organization: Option<&'m str>,
    /// The minute in which the roll-ups count it.
    pub minute: DateTime<Utc>,
    /// Whether the roll-ups count it as a failure.
    pub failed: bool,
}

/// Decodes a message and appends its row to `rows`, in the order of [`Kind::columns`].
/// `keep` is how long the kind is kept, `None` for ever.
///
/// # Errors
/// Why the message is a dead letter. `rows` is then as it was.
pub fn encode<'m>(message: &Message<'m>, keep: Option<TimeDelta>, rows: &mut Vec<u8>) -> Result<RowFacts<'m>, Reject> {
    let organization = subject::organization(message.subject, message.prefix, message.kind)?;
    if message.body.len() > MESSAGE_BYTES {
        return Err(Reject::message(
            Reason::TooLarge,
            format!("{} bytes, the limit is {MESSAGE_BYTES}", message.body.len()),
        ));
    }
    let (text, sanitized) = sanitize(message.body);
    if !message.headers.is_empty()
        && let Some((record, replaced)) = cloudevent::unwrap(message.kind, message.headers, &text)?
    {
        let (text, again) = sanitize(record.as_bytes());
        return encode_text(message, organization, &text, sanitized || replaced || again, keep, rows);
    }
    encode_text(message, organization, &text, sanitized, keep, rows)
}

fn encode_text<'m>(
    message: &Message<'m>,
    organization: Option<&'m str>,
    text: &str,
    sanitized: bool,
    keep: Option<TimeDelta>,
    rows: &mut Vec<u8>,
) -> Result<RowFacts<'m>, Reject> {
    let mut fields = Fields::parse(text)?;
    let envelope = Envelope::decode(&mut fields, message, organization, keep)?;
    let mut row = RowWriter::begin(rows);
    let facts = (message.kind.spec().encode)(&mut fields, &mut row)?;
    envelope.encode(&fields, message, sanitized, facts, &mut row)?;
    row.finish();
    Ok(RowFacts {
        id: envelope.id,
        created_at: envelope.created_at,
        organization,
        minute: envelope.minute(message.published_at),
        failed: facts.failed,
    })
}
