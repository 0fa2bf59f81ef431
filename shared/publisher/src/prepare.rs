//! Turns a typed record or JSON into a checked message.
//!
//! Every record is checked with the decoder of the writers, so that an invalid record is rejected at its producer
//! and does not become a dead letter later.

use std::borrow::Cow;

use async_nats::Subject;
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use records::fields::Fields;
use records::{Headers, Kind, Message, Outgoing, Record, Reject, cloudevent, subject};
use uuid::Uuid;

use crate::PublishError;

/// A message that is ready to be sent: subject, body and headers. Cloning is cheap; clones share the body.
#[derive(Debug, Clone)]
pub struct Encoded {
    pub(crate) subject: Subject,
    pub(crate) body: Bytes,
    pub(crate) headers: Headers,
}

impl Encoded {
    /// Creates a message without headers. Nothing is checked; see [`Publisher::check`](crate::Publisher::check).
    pub fn new(subject: impl Into<Subject>, body: impl Into<Bytes>) -> Self {
        Self { subject: subject.into(), body: body.into(), headers: Headers::default() }
    }

    /// Sets the headers. Headers whose names start with `Nats-Batch-` are not sent: left over from an earlier
    /// atomic batch, they would break the new one.
    #[must_use]
    pub fn with_headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    /// Returns the subject.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Returns the body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Returns the headers.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Returns the size of the message in bytes: subject, headers and body.
    pub fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        self.subject.len() + headers + self.body.len()
    }
}

impl<S: Into<Subject>, B: Into<Bytes>> From<(S, B)> for Encoded {
    fn from((subject, body): (S, B)) -> Self {
        Self::new(subject, body)
    }
}

/// A checked record whose id and time are fixed. It can be published any number of times and is stored once.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The id under which the record is stored.
    pub id: Uuid,
    /// The kind of the record.
    pub kind: Kind,
    /// The message.
    pub message: Encoded,
}

/// The JSON of a record, as text or as a map.
#[derive(Debug, Clone)]
pub struct JsonBody<'a>(Cow<'a, [u8]>);

impl<'a> From<&'a str> for JsonBody<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text.as_bytes()))
    }
}

impl<'a> From<&'a [u8]> for JsonBody<'a> {
    fn from(text: &'a [u8]) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl From<String> for JsonBody<'_> {
    fn from(text: String) -> Self {
        Self(Cow::Owned(text.into_bytes()))
    }
}

impl From<serde_json::Map<String, serde_json::Value>> for JsonBody<'_> {
    fn from(map: serde_json::Map<String, serde_json::Value>) -> Self {
        Self(Cow::Owned(serde_json::Value::Object(map).to_string().into_bytes()))
    }
}

/// Settings for publishing JSON, see [`Publisher::prepare_json_with`](crate::Publisher::prepare_json_with).
#[derive(Debug, Clone, Copy, Default)]
pub struct Terms {
    /// The id and the time for records that have none. `None` uses a new id and the current time.
    pub identity: Option<(Uuid, DateTime<Utc>)>,
    /// How long records of the kind are kept. Older records are rejected, as the writers would do. `None` disables
    /// the check.
    pub keep: Option<TimeDelta>,
}

/// Returns a new id and the current time. This is the only source of ids in this crate.
pub(crate) fn new_identity() -> (Uuid, DateTime<Utc>) {
    (Uuid::now_v7(), now())
}

/// Returns the current time. This is the only wall clock in this crate.
fn now() -> DateTime<Utc> {
    Utc::now()
}

/// The subject prefix and the organization of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'p> {
    pub(crate) prefix: &'p str,
    pub(crate) organization: Option<&'p str>,
}

impl Place<'_> {
    /// Encodes and checks a typed record.
    pub(crate) fn record<R: Record>(
        self,
        outgoing: &Outgoing<R>,
        scratch: &mut Vec<u8>,
    ) -> Result<Prepared, PublishError> {
        let body = serde_json::to_vec(outgoing).map_err(|error| PublishError::NotJson(error.to_string()))?;
        let subject = subject::for_record(self.prefix, R::KIND, self.organization, outgoing.record.detail());
        let message = Encoded::new(subject, body);
        let id = check(self.prefix, R::KIND, &message, None, scratch)?;
        Ok(Prepared { id, kind: R::KIND, message })
    }

    /// Checks a JSON record. Adds an id and a time if it has none, and otherwise leaves it unchanged.
    pub(crate) fn json(
        self,
        kind: Kind,
        body: JsonBody<'_>,
        terms: Terms,
        scratch: &mut Vec<u8>,
    ) -> Result<Prepared, PublishError> {
        let text = String::from_utf8_lossy(&body.0);
        // The record inside can be given an identity; an event cannot hold our names.
        if let Some(unwrapped) = cloudevent::unwrap_unmarked(kind, &text) {
            let record = unwrapped?.into_json(matches!(text, Cow::Owned(_)));
            return self.json(kind, record.into(), terms, scratch);
        }
        let mut fields = Fields::parse(&text)?;
        let detail = kind.spec().detail.of(&mut fields);
        let identity = missing_identity(&mut fields, terms.identity);
        let subject = subject::for_record(self.prefix, kind, self.organization, &detail);
        let body = match identity.as_str() {
            "" => body.0.into_owned(),
            members => with_members(&body.0, members),
        };
        let message = Encoded::new(subject, body);
        let id = check(self.prefix, kind, &message, terms.keep, scratch)?;
        Ok(Prepared { id, kind, message })
    }
}

/// Decodes a message as a writer would, and returns the id of its row. `scratch` is overwritten.
pub(crate) fn check(
    prefix: &str,
    kind: Kind,
    message: &Encoded,
    keep: Option<TimeDelta>,
    scratch: &mut Vec<u8>,
) -> Result<Uuid, Reject> {
    scratch.clear();
    let message = Message {
        kind,
        prefix,
        subject: &message.subject,
        // Only derived ids depend on these two, and messages of this crate always have an id.
        stream: "",
        sequence: 0,
        published_at: now(),
        headers: &message.headers,
        body: &message.body,
    };
    records::encode(&message, keep, scratch).map(|facts| facts.id)
}

/// Returns the JSON members for a missing id or time, which make it safe to publish the record again.
///
/// No time is added next to a UUIDv7, which contains a time: a producer that sends the same line again must get the
/// same record.
fn missing_identity(fields: &mut Fields<'_>, identity: Option<(Uuid, DateTime<Utc>)>) -> String {
    let is_there = |text: Result<Option<Cow<'_, str>>, Reject>| !matches!(text, Ok(None));
    let id = fields.unbounded_text("id");
    let is_dated = is_there(fields.unbounded_text("created_at")) || is_there(fields.unbounded_text("timestamp"));
    let (new_id, now) = identity.unwrap_or_else(new_identity);
    let carries_time = |id: &str| Uuid::parse_str(id).is_ok_and(|id| id.get_version_num() == 7);
    let mut members = String::new();
    match id {
        Ok(None) => members.push_str(&format!(r#""id":"{new_id}""#)),
        Ok(Some(id)) if carries_time(&id) => return members,
        _ => {}
    }
    if !is_dated {
        let separator = if members.is_empty() { "" } else { "," };
        members.push_str(&format!(r#"{separator}"created_at":"{}""#, now.to_rfc3339_opts(SecondsFormat::Micros, true)));
    }
    members
}

/// Appends members to a JSON object. They come last because the last of several equal names counts, so an explicit
/// `null` is overridden.
fn with_members(object: &[u8], members: &str) -> Vec<u8> {
    let end = object.iter().rposition(|b| *b == b'}').unwrap_or(object.len());
    let (head, tail) = object.split_at(end);
    let is_empty = head.iter().rfind(|b| !b.is_ascii_whitespace()).is_none_or(|b| *b == b'{');
    let mut with = Vec::with_capacity(object.len() + members.len() + 1);
    with.extend_from_slice(head);
    if !is_empty {
        with.push(b',');
    }
    with.extend_from_slice(members.as_bytes());
    with.extend_from_slice(tail);
    with
}

#[cfg(test)]
mod tests {
    use records::Event;

    use super::*;

    const PLACE: Place<'static> = Place { prefix: "watchbook", organization: Some("acme") };

    fn json(kind: Kind, body: &str) -> Result<Prepared, PublishError> {
        PLACE.json(kind, body.into(), Terms::default(), &mut Vec::new())
    }

    fn text(prepared: &Prepared) -> &str {
        std::str::from_utf8(&prepared.message.body).unwrap()
    }

    #[test]
    fn a_typed_record_keeps_its_identity() {
        let (id, created_at) = new_identity();
        let event = Event { event_type: "build.finished".into(), ..Event::default() };
        let outgoing = Outgoing { id, created_at, source: None, attributes: serde_json::Map::new(), record: event };
        let prepared = PLACE.record(&outgoing, &mut Vec::new()).unwrap();
        assert_eq!(prepared.id, id);
        assert_eq!(prepared.message.subject(), "watchbook.events.acme.build.finished");
        assert!(text(&prepared).contains(&id.to_string()));
    }

    #[test]
    fn a_typed_record_is_held_to_its_limits() {
        let (id, created_at) = new_identity();
        let event = Event { event_type: "x".repeat(300).into(), ..Event::default() };
        let outgoing = Outgoing { id, created_at, source: None, attributes: serde_json::Map::new(), record: event };
        let refused = PLACE.record(&outgoing, &mut Vec::new());
        assert!(
            matches!(refused, Err(PublishError::Rejected(reject)) if reject.field.as_deref() == Some("event_type"))
        );
    }

    #[test]
    fn json_gets_the_identity_that_it_lacks() {
        let v7 = Uuid::now_v7().to_string();
        let v4 = Uuid::new_v4().to_string();
        for (body, id, time) in [
            (r#"{"event_type":"x"}"#.to_owned(), true, true),
            (r#"{"event_type":"x","id":null,"timestamp":null}"#.to_owned(), true, true),
            (format!(r#"{{"event_type":"x","id":"{v7}"}}"#), false, false),
            (format!(r#"{{"event_type":"x","id":"{v4}"}}"#), false, true),
            (r#"{"event_type":"x","id":"a name"}"#.to_owned(), false, true),
            (format!(r#"{{"eventType":"x","createdAt":"{}"}} "#, Utc::now().to_rfc3339()), true, false),
        ] {
            let prepared = json(Kind::Events, &body).unwrap();
            let text = text(&prepared);
            let head = body.trim_end().trim_end_matches('}');
            let added = text.strip_prefix(head).unwrap();
            assert_eq!(added.contains(r#""id":"#), id, "{text}");
            assert_eq!(added.contains(r#""created_at":"#), time, "{text}");
            let again = check("watchbook", Kind::Events, &prepared.message, None, &mut Vec::new()).unwrap();
            assert_eq!(again, prepared.id, "reading it twice gives the same id");
        }
    }

    #[test]
    fn json_is_taken_on_terms() {
        let identity = Some(new_identity());
        let terms = Terms { identity, keep: Some(TimeDelta::days(30)) };
        let take = |body: &str| PLACE.json(Kind::Events, body.into(), terms, &mut Vec::new());
        let (one, again) = (take(r#"{"event_type":"x"}"#).unwrap(), take(r#"{"event_type":"x"}"#).unwrap());
        assert_eq!((Some(one.id), text(&one)), (identity.map(|(id, _)| id), text(&again)));
        let old = take(r#"{"event_type":"x","created_at":"2001-01-01T00:00:00Z"}"#);
        assert!(
            matches!(old, Err(PublishError::Rejected(reject)) if reject.reason == records::Reason::CreatedAtOutOfRange)
        );
    }

    #[test]
    fn a_cloudevent_is_published_as_the_record_inside() {
        let event = r#"{"specversion":"1.0","id":"17","source":"/s","type":"build.done","data":{"run_id":"r"}}"#;
        let prepared = json(Kind::Events, event).unwrap();
        assert_eq!(prepared.message.subject(), "watchbook.events.acme.build.done");
        assert_eq!(prepared.id, json(Kind::Events, r#"{"event_type":"x","id":"17"}"#).unwrap().id);
        assert!(text(&prepared).contains("created_at"), "it has a time, so that it can be sent again");
    }

    #[test]
    fn json_names_its_subject() {
        for (kind, body, subject) in [
            (Kind::Events, r#"{"eventType":"a b"}"#, "watchbook.events.acme.a_b"),
            (Kind::Errors, r#"{"trace_id":"t","error_type":"E","message":"m"}"#, "watchbook.errors.acme.error"),
            (
                Kind::Errors,
                r#"{"trace_id":"t","error_type":"E","message":"m","severity":"critical"}"#,
                "watchbook.errors.acme.critical",
            ),
            (
                Kind::Errors,
                r#"{"trace_id":"t","error_type":"E","message":"m","severity":"WARN"}"#,
                "watchbook.errors.acme.warning",
            ),
            (Kind::Metrics, r#"{"container_id":"c-1"}"#, "watchbook.metrics.acme.c-1"),
        ] {
            assert_eq!(json(kind, body).unwrap().message.subject(), subject, "{body}");
        }
    }

    #[test]
    fn bad_json_is_refused_with_its_reason() {
        for (body, reason) in [
            ("", records::Reason::InvalidJson),
            ("[]", records::Reason::InvalidJson),
            ("{}", records::Reason::MissingField),
            (r#"{"event_type":3}"#, records::Reason::InvalidField),
            (r#"{"event_type":"x","organization_id":"other"}"#, records::Reason::OrganizationMismatch),
            (r#"{"event_type":"x","created_at":"2999-01-01T00:00:00Z"}"#, records::Reason::CreatedAtOutOfRange),
        ] {
            match json(Kind::Events, body) {
                Err(PublishError::Rejected(reject)) => assert_eq!(reject.reason, reason, "{body}"),
                other => panic!("{body}: {other:?}"),
            }
        }
    }

    #[test]
    fn every_accepted_fixture_can_be_published_and_no_rejected_one() {
        for &kind in Kind::ALL {
            let place = Place { prefix: "watchbook", organization: None };
            for line in kind.spec().fixtures.accepted.lines().filter(|line| !line.trim().is_empty()) {
                let place = match line.contains("organization_id") || line.contains("organizationId") {
                    true => continue,
                    false => place,
                };
                if let Err(error) = place.json(kind, line.into(), Terms::default(), &mut Vec::new()) {
                    panic!("{kind}: {line}: {error}");
                }
            }
        }
    }
}
