//! Server-sent events: each record is decoded once and encoded once, for all readers.

use std::sync::Arc;

use bus::Delivery;
use bytes::Bytes;
use chrono::{SecondsFormat, TimeDelta};
use records::{Kind, Message, row, subject};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::field::{Content, fields};

/// A record as a server-sent event.
#[derive(Debug)]
pub(super) struct Event {
    /// The sequence in the stream. It is never sent to readers.
    pub(super) sequence: u64,
    /// The organization, from the subject.
    pub(super) organization: Option<String>,
    /// The contents of the kind's filter fields, in the order of [`fields`].
    contents: Vec<Option<Content>>,
    /// The encoded event, shared by all readers that receive it.
    pub(super) written: Bytes,
}

#[derive(Serialize)]
struct Data<'d> {
    subject: &'d str,
    organization_id: Option<&'d str>,
    received_at: String,
    record: &'d RawValue,
}

/// Turns the messages of a kind's stream into events.
#[derive(Debug)]
pub(super) struct Events {
    kind: Kind,
    prefix: String,
    stream: String,
    /// The retention of the kind; `None` for ever.
    keep: Option<TimeDelta>,
    /// For each column of the kind, the index of its filter field, if it is one.
    columns: Vec<Option<usize>>,
}

impl Events {
    pub(super) fn new(kind: Kind, prefix: &str, keep: Option<TimeDelta>) -> Self {
        let place = |column: &str| fields(kind).iter().position(|field| field.name() == column);
        let columns = kind.columns().map(place).collect();
        Self { kind, prefix: prefix.to_owned(), stream: subject::stream_name(prefix, kind), keep, columns }
    }

    /// Returns the event of a delivery, or `None` if the message is not a valid record. Uses the writers' decoder, so
    /// that filters match what is stored: with defaults, any accepted spelling of field names, and CloudEvents.
    pub(super) fn event(&self, delivery: &Delivery, id: &str) -> Option<Event> {
        let headers = delivery.record_headers();
        let message = Message {
            kind: self.kind,
            prefix: &self.prefix,
            subject: &delivery.subject,
            stream: &self.stream,
            sequence: delivery.sequence,
            published_at: delivery.published_at,
            headers: &headers,
            body: &delivery.body,
        };
        let mut row = Vec::with_capacity(delivery.body.len());
        let organization = records::encode(&message, self.keep, &mut row).ok()?.organization;
        let kinds_fields = fields(self.kind);
        let mut contents = vec![None; kinds_fields.len()];
        for (place, value) in self.columns.iter().zip(row::values(&row)) {
            if let Some((place, field)) = place.and_then(|place| Some((place, kinds_fields.get(place)?)))
                && let Some(content) = contents.get_mut(place)
            {
                *content = value.and_then(|value| field.content(value));
            }
        }
        let body = records::body_text(&delivery.body, &headers).ok()?;
        // A CloudEvent in binary mode may have no data.
        let body = if body.trim_ascii().is_empty() { "{}" } else { &*body };
        let data = Data {
            subject: &delivery.subject,
            organization_id: organization,
            received_at: delivery.published_at.to_rfc3339_opts(SecondsFormat::Micros, true),
            record: serde_json::from_str(body).ok()?,
        };
        let written = written(Some(id), None, &data)?;
        let organization = organization.map(str::to_owned);
        Some(Event { sequence: delivery.sequence, organization, contents, written })
    }
}

impl Event {
    /// Returns the content of a filter field, by its index in [`fields`].
    pub(super) fn content(&self, place: usize) -> Option<&Content> {
        self.contents.get(place)?.as_ref()
    }
}

/// Encodes an event. Its data is one line: line breaks in JSON are only whitespace between tokens.
fn written(id: Option<&str>, name: Option<&str>, data: &impl Serialize) -> Option<Bytes> {
    let data = serde_json::to_string(data).ok()?.replace(['\n', '\r'], " ");
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    let name = name.map(|name| format!("event: {name}\n")).unwrap_or_default();
    Some(Bytes::from(format!("{id}{name}data: {data}\n\n")))
}

/// Missing sequences: the stream no longer holds them. Their organizations are not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) first: u64,
    pub(super) last: u64,
    /// The id of the last sequence, so that a resuming reader continues after it.
    pub(super) id: Arc<str>,
}

impl Gap {
    /// Encodes the gap. Only readers that see all organizations get the sequences: others would learn from them how
    /// many records other organizations publish.
    pub(super) fn written(&self, sees_all: bool) -> Bytes {
        let figure = |sequence: u64| sees_all.then_some(sequence);
        let data = json!({ "first": figure(self.first), "last": figure(self.last) });
        written(Some(&self.id), Some("gap"), &data).unwrap_or_default()
    }
}

/// Encodes a gap for a recreated or truncated stream: what is missing is not known. It has no id, because there is no
/// last sequence.
pub(super) fn recreated() -> Bytes {
    written(None, Some("gap"), &json!({ "first": null, "last": null })).unwrap_or_default()
}

/// Encodes how many events for this reader did not fit into its queue. It has no id: a reader that resumes with the id
/// of the event before it receives them.
pub(super) fn lost(count: u64) -> Bytes {
    written(None, Some("lost"), &json!({ "count": count })).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::Value;

    use super::*;

    fn event_of(kind: Kind, subject: &str, body: &str) -> Option<Event> {
        let delivery = Delivery::new(7, DateTime::UNIX_EPOCH, subject, body.to_owned());
        Events::new(kind, "watchbook", None).event(&delivery, "an-id")
    }

    fn event(subject: &str, body: &str) -> Option<Event> {
        event_of(Kind::Executions, subject, body)
    }

    /// An execution with further fields.
    fn execution(more: &str) -> String {
        format!(
            "{{\r\n \"user_id\": \"a\\nb\",\n \"strategyId\": \"s\", \"executionType\": \"TERMINAL\", \"success\": true, \
             \"execution_time\": 3{more} }}"
        )
    }

    #[test]
    fn an_event_is_one_line_of_data() {
        let event = event("watchbook.executions.acme.x", &execution(", \"n\": 1e400")).unwrap();
        let text = std::str::from_utf8(&event.written).unwrap();
        let (id, data) = text.split_once('\n').unwrap();
        assert_eq!(id, "id: an-id");
        let data = data.strip_prefix("data: ").unwrap().strip_suffix("\n\n").unwrap();
        assert!(!data.contains(['\n', '\r']), "{data:?}");
        assert!(data.contains("1e400"), "the record is sent unchanged");
        assert_eq!(event.organization.as_deref(), Some("acme"));
        let contents: Vec<_> = (0..4).map(|place| event.content(place).unwrap().to_string()).collect();
        assert_eq!(contents, ["a\nb", "s", "TERMINAL", "true"]);
    }

    #[test]
    fn what_is_matched_is_what_will_be_stored() {
        let error =
            event_of(Kind::Errors, "watchbook.errors._.error", r#"{"traceId":"t","error_type":"E","message":"m"}"#)
                .unwrap();
        let contents: Vec<_> = (0..6).map(|place| error.content(place).map(ToString::to_string)).collect();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(contents, [text("t"), None, None, text("E"), text("error"), None], "with its default");
        let cloud = r#"{"specversion":"1.0","id":"1","source":"s","type":"build.done","data":{"run_id":"r"}}"#;
        let cloud = event_of(Kind::Events, "watchbook.events.acme.x", cloud).unwrap();
        let contents: Vec<_> = (0..4).filter_map(|place| cloud.content(place).map(ToString::to_string)).collect();
        assert_eq!(contents, ["r", "build.done"], "a CloudEvent, even without its content type");
        let event = r#"{"actor_id":"u","action":"a","target_type":"t","target_id":"i","ip_address":"10.0.0.7"}"#;
        let event = event_of(Kind::Audit, "watchbook.audit.acme.a", event).unwrap();
        assert_eq!(event.content(6).unwrap().to_string(), "10.0.0.7/32");
    }

    #[test]
    fn what_stands_beside_the_record_is_the_streams_and_counts_nothing() {
        let event = event("watchbook.executions._.x", &execution("")).unwrap();
        let data = std::str::from_utf8(&event.written).unwrap().split_once("data: ").unwrap().1;
        let mut data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["record"].take()["execution_time"], 3);
        let expected = json!({ "subject": "watchbook.executions._.x", "organization_id": null,
                               "received_at": "1970-01-01T00:00:00.000000Z", "record": null });
        assert_eq!(data, expected);
    }

    #[test]
    fn who_does_not_see_everything_is_told_no_figures() {
        let gap = Gap { first: 2, last: 9, id: "an-id".into() };
        let told = |data: &str| format!("id: an-id\nevent: gap\ndata: {data}\n\n");
        assert_eq!(gap.written(true), told(r#"{"first":2,"last":9}"#));
        assert_eq!(gap.written(false), told(r#"{"first":null,"last":null}"#));
        assert_eq!(recreated(), "event: gap\ndata: {\"first\":null,\"last\":null}\n\n");
        assert_eq!(lost(3), "event: lost\ndata: {\"count\":3}\n\n");
    }

    #[test]
    fn what_is_no_record_is_left_out() {
        for body in ["", "x", "[]", "3", "{", "{}", "{} {}", &execution(", \"organization_id\": \"globex\"")] {
            assert!(event("watchbook.executions.acme.x", body).is_none(), "{body:?}");
        }
        assert!(event("watchbook.executions.a$b.x", &execution("")).is_none());
        assert!(event("watchbook.events.acme.x", &execution("")).is_none());
    }
}
