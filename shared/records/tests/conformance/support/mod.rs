//! What the tests share: a message to send, and what became of it.

pub(crate) mod copy;
pub(crate) mod property;

use chrono::{DateTime, TimeDelta, Utc};
use records::{Headers, Kind, Message, Reject, encode, subject};
use serde_json::{Map, Value};
use uuid::Uuid;

use self::copy::Row;

/// When the stream took every message that does not say otherwise.
pub(crate) fn now() -> DateTime<Utc> {
    time(records::Fixtures::PUBLISHED_AT)
}

/// A time from RFC 3339.
pub(crate) fn time(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

/// The lines of a fixture file.
pub(crate) fn lines(file: &'static str) -> impl Iterator<Item = &'static str> {
    file.lines().filter(|line| !line.is_empty())
}

/// The least that a kind accepts: by convention its first accepted fixture.
pub(crate) fn minimal(kind: Kind) -> Map<String, Value> {
    serde_json::from_str(lines(kind.spec().fixtures.accepted).next().unwrap()).unwrap()
}

/// How long the kind is kept unless configured.
pub(crate) fn default_keep(kind: Kind) -> Option<TimeDelta> {
    kind.spec().keep_days.map(|days| TimeDelta::days(days.into()))
}

/// A message on its way into a stream.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    kind: Kind,
    subject: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    published_at: DateTime<Utc>,
    sequence: u64,
    keep: Option<TimeDelta>,
}

/// What became of a message: its row, and what the writer is told.
#[derive(Debug, PartialEq)]
pub(crate) struct Stored {
    pub(crate) row: Row,
    pub(crate) id: Uuid,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) organization: Option<String>,
    pub(crate) minute: DateTime<Utc>,
    pub(crate) failed: bool,
}

impl Stored {
    /// A column's value.
    pub(crate) fn get(&self, column: &str) -> Value {
        self.row.get(column)
    }
}

impl Sent {
    /// A body as it stands, from the organization of the fixtures.
    pub(crate) fn body(kind: Kind, body: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            subject: String::new(),
            headers: Vec::new(),
            body: body.into(),
            published_at: now(),
            sequence: 17,
            keep: default_keep(kind),
        }
        .organization(Some(records::Fixtures::ORGANIZATION))
    }

    /// The least that the kind accepts, with these members besides or instead.
    pub(crate) fn with(kind: Kind, members: Value) -> Self {
        let mut record = minimal(kind);
        let Value::Object(members) = members else { panic!("members of an object, not {members}") };
        record.extend(members);
        Self::body(kind, Value::Object(record).to_string())
    }

    /// The least that the kind accepts, with members as text: for what a `Value` cannot hold.
    pub(crate) fn with_text(kind: Kind, members: &str) -> Self {
        let record = Value::Object(minimal(kind)).to_string();
        Self::body(kind, format!("{},{members}}}", record.strip_suffix('}').unwrap()))
    }

    /// The least that the kind accepts, with white space up to so many bytes.
    pub(crate) fn padded(kind: Kind, bytes: usize) -> Self {
        let mut body = Value::Object(minimal(kind)).to_string().into_bytes();
        body.resize(bytes, b' ');
        Self::body(kind, body)
    }

    pub(crate) fn organization(mut self, organization: Option<&str>) -> Self {
        self.subject = subject::for_record("watchbook", self.kind, organization, "detail");
        self
    }

    pub(crate) fn subject(mut self, subject: &str) -> Self {
        self.subject = subject.to_owned();
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn published_at(mut self, published_at: &str) -> Self {
        self.published_at = time(published_at);
        self
    }

    pub(crate) fn sequence(mut self, sequence: u64) -> Self {
        self.sequence = sequence;
        self
    }

    pub(crate) fn keep(mut self, keep: Option<TimeDelta>) -> Self {
        self.keep = keep;
        self
    }

    /// The message as the stream hands it out.
    pub(crate) fn read<T>(&self, then: impl FnOnce(&Message<'_>) -> T) -> T {
        let headers: Headers = self.headers.iter().cloned().collect();
        then(&Message {
            kind: self.kind,
            prefix: "watchbook",
            subject: &self.subject,
            stream: &subject::stream_name("watchbook", self.kind),
            sequence: self.sequence,
            published_at: self.published_at,
            headers: &headers,
            body: &self.body,
        })
    }

    /// Encodes the message and reads its row back.
    pub(crate) fn encode(&self) -> Result<Stored, Reject> {
        self.read(|message| {
            let mut rows = Vec::new();
            let facts = encode(message, self.keep, &mut rows)?;
            Ok(Stored {
                row: copy::only_row(self.kind, &rows),
                id: facts.id,
                created_at: facts.created_at,
                organization: facts.organization.map(str::to_owned),
                minute: facts.minute,
                failed: facts.failed,
            })
        })
    }

    /// The row of a message that is stored.
    pub(crate) fn stored(&self) -> Stored {
        self.encode().unwrap_or_else(|reject| panic!("{reject}\n{}", String::from_utf8_lossy(&self.body)))
    }

    /// Why a message is refused, as `reason:field`.
    pub(crate) fn refused(&self) -> String {
        match self.encode() {
            Ok(stored) => panic!("was stored: {stored:?}\n{}", String::from_utf8_lossy(&self.body)),
            Err(reject) => short(&reject),
        }
    }

    /// Checks what must hold whatever the message says.
    pub(crate) fn check(&self) {
        self.read(|message| property::holds(message, self.keep));
    }
}

/// A refusal as the fixtures write it.
pub(crate) fn short(reject: &Reject) -> String {
    format!("{}:{}", reject.reason, reject.field.as_deref().unwrap_or_default())
}
