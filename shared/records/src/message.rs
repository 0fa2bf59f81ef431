//! One message of a stream, from bytes to a row.

use std::borrow::Cow;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::envelope::{Envelope, derived_id};
use crate::fields::{BYTE_ORDER_MARK, Fields};
use crate::headers::Headers;
use crate::row::RowWriter;
use crate::text::sanitize;
use crate::{Kind, Reason, Reject, body, cloudevent, subject, time};

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
            .and_then(time::parse)
            .unwrap_or_else(|| time::whole_microseconds(self.published_at))
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
    let body = body::unpack(message.body, message.headers)?;
    let (text, sanitized) = sanitize(&body);
    let mut encode_record =
        |text: &str, sanitized: bool| encode_text(message, organization, text, sanitized, keep, rows);
    let result = match cloudevent::unwrap(message.kind, message.headers, &text) {
        Ok(Some(unwrapped)) => unwrapped.encode(sanitized, &mut encode_record),
        Ok(None) => encode_record(&text, sanitized).or_else(|reject| {
            // Looked at only now, so that records cost nothing: no record of a kind can be an event as well.
            match cloudevent::unwrap_unmarked(message.kind, &text) {
                Some(unwrapped) => unwrapped?.encode(sanitized, &mut encode_record),
                None => Err(reject),
            }
        }),
        Err(reject) => Err(reject),
    };
    result.map_err(|reject| named(reject, &body))
}

/// Returns the JSON text of a message as it was published: unpacked, in UTF-8, without a byte order mark. Empty where a
/// CloudEvent in binary mode has no data.
///
/// # Errors
/// `too_large` and `invalid_json` where it cannot be unpacked.
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

/// A refusal of a body that is no JSON, with the name of its format where its first bytes give it away.
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
