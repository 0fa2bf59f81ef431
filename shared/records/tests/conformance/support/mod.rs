//! Helpers of the tests: a message to send, and the stored row or the rejection.

pub(crate) mod copy;
pub(crate) mod property;

use chrono::{DateTime, TimeDelta, Utc};
use records::{Headers, Kind, Message, Reject, encode, subject};
use serde_json::{Map, Value};
use uuid::Uuid;

use self::copy::Row;

/// Returns when the stream stores a message, unless the test sets another time.
pub(crate) fn now() -> DateTime<Utc> {
    time(records::Fixtures::PUBLISHED_AT)
}

/// Parses a time in RFC 3339.
pub(crate) fn time(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

/// Returns the lines of a fixture file.
pub(crate) fn lines(file: &'static str) -> impl Iterator<Item = &'static str> {
    file.lines().filter(|line| !line.is_empty())
}

/// Returns a minimal record of a kind: by convention its first accepted fixture.
pub(crate) fn minimal(kind: Kind) -> Map<String, Value> {
    serde_json::from_str(lines(kind.spec().fixtures.accepted).next().unwrap()).unwrap()
}

/// Returns how long the kind is kept by default.
pub(crate) fn default_keep(kind: Kind) -> Option<TimeDelta> {
    kind.spec().keep_days.map(|days| TimeDelta::days(days.into()))
}

/// A message to encode.
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

/// A stored message: its row, and the facts that the writer gets.
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
    /// Returns the value of a column.
    pub(crate) fn get(&self, column: &str) -> Value {
        self.row.get(column)
    }
}

impl Sent {
    /// Returns a message with this body, from the organization of the fixtures.
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

    /// Returns a minimal record with these members added or replaced.
    pub(crate) fn with(kind: Kind, members: Value) -> Self {
        let mut record = minimal(kind);
        let Value::Object(members) = members else { panic!("members of an object, not {members}") };
        record.extend(members);
        Self::body(kind, Value::Object(record).to_string())
    }

    /// Returns a minimal record with members as JSON text, for values that `Value` cannot hold.
    pub(crate) fn with_text(kind: Kind, members: &str) -> Self {
        let record = Value::Object(minimal(kind)).to_string();
        Self::body(kind, format!("{},{members}}}", record.strip_suffix('}').unwrap()))
    }

    /// Returns a minimal record, with white space up to `bytes` bytes.
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

    /// Calls `then` with the message as the stream delivers it.
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

    /// Returns the row of the message, which must be stored.
    pub(crate) fn stored(&self) -> Stored {
        self.encode().unwrap_or_else(|reject| panic!("{reject}\n{}", String::from_utf8_lossy(&self.body)))
    }

    /// Returns the rejection of the message as `reason:field`. It must not be stored.
    pub(crate) fn refused(&self) -> String {
        match self.encode() {
            Ok(stored) => panic!("was stored: {stored:?}\n{}", String::from_utf8_lossy(&self.body)),
            Err(reject) => short(&reject),
        }
    }

    /// Checks the properties that hold for every message.
    pub(crate) fn check(&self) {
        self.read(|message| property::holds(message, self.keep));
    }
}

/// Returns a rejection in the form of the fixtures, `reason:field`.
pub(crate) fn short(reject: &Reject) -> String {
    format!("{}:{}", reject.reason, reject.field.as_deref().unwrap_or_default())
}
