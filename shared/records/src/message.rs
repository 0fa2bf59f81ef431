//! Decodes one message of a stream into a row.

use std::borrow::Cow;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::envelope::{Envelope, derived_id};
use crate::fields::{BYTE_ORDER_MARK, Fields};
use crate::headers::Headers;
use crate::row::RowWriter;
use crate::text::sanitize;
use crate::{Kind, Reason, Reject, body, cloudevent, subject, time};

/// Header of a replayed dead letter: the UUID that the original message gets if its body has no id.
pub const REPLAY_ID_HEADER: &str = "Watchbook-Replay-Id";
/// Header of a replayed dead letter: the stream's time of the original message, in RFC 3339.
pub const REPLAY_TIME_HEADER: &str = "Watchbook-Replay-Time";

/// A message of a stream.
#[derive(Debug, Clone, Copy)]
pub struct Message<'m> {
    /// The kind of records that the stream carries.
    pub kind: Kind,
    /// The prefix of all subjects, such as `watchbook`.
    pub prefix: &'m str,
    /// The subject on which the message was published.
    pub subject: &'m str,
    /// The name of the stream, such as `WATCHBOOK_EVENTS`.
    pub stream: &'m str,
    /// The sequence of the message in the stream.
    pub sequence: u64,
    /// When the stream stored the message: its timestamp, in nanoseconds.
    pub published_at: DateTime<Utc>,
    /// The headers of the message.
    pub headers: &'m Headers,
    /// The body, as published: it may be compressed.
    pub body: &'m [u8],
}

impl Message<'_> {
    /// Returns the id of a message whose body has none: derived from its position in the stream, or, for a replay, from
    /// the position of the original.
    pub(crate) fn own_id(&self) -> Uuid {
        self.replay_id().unwrap_or_else(|| derived_id(self.stream, self.sequence, self.published_at))
    }

    /// Returns the time of a message whose body has none: the stream's, or, for a replay, that of the original.
    pub(crate) fn own_time(&self) -> DateTime<Utc> {
        self.headers
            .get(REPLAY_TIME_HEADER)
            .and_then(time::parse)
            .unwrap_or_else(|| time::whole_microseconds(self.published_at))
    }

    /// Returns the id and the time that a replay of this message must have in the headers [`REPLAY_ID_HEADER`] and
    /// [`REPLAY_TIME_HEADER`], so that replaying it twice stores it once.
    pub fn replay_identity(&self) -> (Uuid, DateTime<Utc>) {
        (self.own_id(), self.own_time())
    }

    fn replay_id(&self) -> Option<Uuid> {
        Uuid::parse_str(self.headers.get(REPLAY_ID_HEADER)?).ok()
    }
}

/// What a writer needs to know about an encoded row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowFacts<'m> {
    /// The id of the record. Together with `created_at` it is the primary key.
    pub id: Uuid,
    /// The time of the record, in whole microseconds.
    pub created_at: DateTime<Utc>,
    /// The organization in the subject.
    pub organization: Option<&'m str>,
    /// The start of the minute in which the roll-ups count the record. Not always that of `created_at`.
    pub minute: DateTime<Utc>,
    /// Whether the roll-ups count the record as a failure.
    pub failed: bool,
}

/// Decodes a message and appends its row to `rows`, with the columns of [`Kind::columns`] in that order.
///
/// `keep` is how long records of the kind are kept; `None` means forever. An older `created_at` is rejected.
///
/// # Errors
/// The [`Reject`] says why the message is a dead letter. `rows` is then unchanged.
pub fn encode<'m>(message: &Message<'m>, keep: Option<TimeDelta>, rows: &mut Vec<u8>) -> Result<RowFacts<'m>, Reject> {
    let organization = subject::organization(message.subject, message.prefix, message.kind)?;
    let body = body::unpack(message.body, message.headers)?;
    let (text, sanitized) = sanitize(&body);
    let mut encode_record =
        |text: &str, sanitized: bool| encode_text(message, organization, text, sanitized, keep, rows);
    let result = match cloudevent::unwrap(message.kind, message.headers, &text) {
        Ok(Some(unwrapped)) => unwrapped.encode(sanitized, &mut encode_record),
        Ok(None) => encode_record(&text, sanitized).or_else(|reject| {
            // Tried only after decoding failed, so that it costs records nothing. No valid record is also a CloudEvent.
            match cloudevent::unwrap_unmarked(message.kind, &text) {
                Some(unwrapped) => unwrapped?.encode(sanitized, &mut encode_record),
                None => Err(reject),
            }
        }),
        Err(reject) => Err(reject),
    };
    result.map_err(|reject| named(reject, &body))
}

/// Returns the JSON text of a message as it was published: decompressed, in UTF-8, without a byte order mark. It is
/// empty if a CloudEvent in binary mode has no data.
///
/// # Errors
/// `too_large` or `invalid_json` if the body cannot be decompressed.
pub fn body_text<'m>(body: &'m [u8], headers: &Headers) -> Result<Cow<'m, str>, Reject> {
    let mut text = match body::unpack(body, headers)? {
        Cow::Borrowed(body) => String::from_utf8_lossy(body),
        Cow::Owned(body) => Cow::Owned(String::from_utf8_lossy(&body).into_owned()),
    };
    if let Some(rest) = text.strip_prefix(BYTE_ORDER_MARK) {
        text = Cow::Owned(rest.to_owned());
    }
    Ok(text)
}

/// Adds the name of the body's format to a rejection as `invalid_json`, if its first bytes identify it.
fn named(reject: Reject, body: &[u8]) -> Reject {
    match body::recognize(body) {
        Some(format) if reject.reason == Reason::InvalidJson => {
            Reject { detail: format!("expected one JSON object, found what looks like {format}"), ..reject }
        }
        _ => reject,
    }
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
