//! A record on its way to whoever watches: decoded once, written out once.

use std::collections::BTreeMap;
use std::sync::Arc;

use bus::Delivery;
use bytes::Bytes;
use chrono::SecondsFormat;
use records::{Kind, subject};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::wanted;

/// A record as it is sent.
#[derive(Debug)]
pub(super) struct Event {
    /// Where it stands in its stream, which is told to nobody.
    pub(super) sequence: u64,
    /// Whose it is, by its subject.
    pub(super) organization: Option<String>,
    /// What stands in the fields by which the kind is filtered.
    fields: Vec<Option<String>>,
    /// The whole event, shared by all who get it.
    pub(super) written: Bytes,
}

#[derive(Serialize)]
struct Data<'d> {
    subject: &'d str,
    organization_id: Option<&'d str>,
    received_at: String,
    record: &'d RawValue,
}

impl Event {
    /// What a delivery of this id becomes; `None` where its subject names no organization, or its body is no JSON
    /// object: no record will be made of it.
    pub(super) fn of(delivery: &Delivery, prefix: &str, kind: Kind, id: &str) -> Option<Self> {
        let organization = subject::organization(&delivery.subject, prefix, kind).ok()?;
        let body = std::str::from_utf8(&delivery.body).ok()?;
        let members: BTreeMap<String, &RawValue> = serde_json::from_str(body).ok()?;
        let fields = wanted::fields(kind).iter().map(|name| text_of(&members, name)).collect();
        let data = Data {
            subject: &delivery.subject,
            organization_id: organization,
            received_at: delivery.published_at.to_rfc3339_opts(SecondsFormat::Micros, true),
            record: serde_json::from_str(body).ok()?,
        };
        let written = written(Some(id), None, &data)?;
        Some(Self { sequence: delivery.sequence, organization: organization.map(str::to_owned), fields, written })
    }

    /// What stands in a field, by its place among the kind's.
    pub(super) fn field(&self, place: usize) -> Option<&String> {
        self.fields.get(place)?.as_ref()
    }
}

/// The text of a member, in snake_case or else in camelCase: what a string holds, or a number or a truth as written.
fn text_of(members: &BTreeMap<String, &RawValue>, name: &str) -> Option<String> {
    let found = |name: &str| members.get(name).map(|value| value.get()).filter(|text| *text != "null");
    let text = found(name).or_else(|| found(&camel(name)))?;
    match text.as_bytes().first() {
        Some(b'"') => serde_json::from_str(text).ok(),
        Some(b'{' | b'[') | None => None,
        Some(_) => Some(text.to_owned()),
    }
}

fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let mut camel = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (first, rest) = part.split_at(part.len().min(1));
        camel.push_str(&first.to_ascii_uppercase());
        camel.push_str(rest);
    }
    camel
}

/// Writes an event out. Its data is one line: what breaks lines in JSON stands between its parts and means nothing.
fn written(id: Option<&str>, name: Option<&str>, data: &impl Serialize) -> Option<Bytes> {
    let data = serde_json::to_string(data).ok()?.replace(['\n', '\r'], " ");
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    let name = name.map(|name| format!("event: {name}\n")).unwrap_or_default();
    Some(Bytes::from(format!("{id}{name}data: {data}\n\n")))
}

/// Sequences that the stream does not hold any more. What of them was whose cannot be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) first: u64,
    pub(super) last: u64,
    /// The id of the last one: who comes back goes on behind it.
    pub(super) id: Arc<str>,
}

impl Gap {
    /// As it is told. Which sequences, and so how many, only those are told who see everything: others would learn by
    /// it how much there was of others.
    pub(super) fn written(&self, sees_all: bool) -> Bytes {
        let figure = |sequence: u64| sees_all.then_some(sequence);
        let data = json!({ "first": figure(self.first), "last": figure(self.last) });
        written(Some(&self.id), Some("gap"), &data).unwrap_or_default()
    }
}

/// Tells that the stream began anew: nobody knows what is missing. Without an id, because there is no last one.
pub(super) fn anew() -> Bytes {
    written(None, Some("gap"), &json!({ "first": null, "last": null })).unwrap_or_default()
}

/// Tells how many events for this reader did not fit into the queue. Without an id: who asks again with that of the
/// event before gets them.
pub(super) fn lost(count: u64) -> Bytes {
    written(None, Some("lost"), &json!({ "count": count })).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::Value;

    use super::*;

    fn event(subject: &str, body: &str) -> Option<Event> {
        let delivery = Delivery::new(7, DateTime::UNIX_EPOCH, subject, body.to_owned());
        Event::of(&delivery, "watchbook", Kind::Executions, "an-id")
    }

    #[test]
    fn an_event_is_one_line_of_data() {
        let body = "{\r\n \"user_id\": \"a\\nb\",\n \"executionType\": \"X\", \"success\": true, \"n\": 1e400 }";
        let event = event("watchbook.executions.acme.x", body).unwrap();
        let text = std::str::from_utf8(&event.written).unwrap();
        let (id, data) = text.split_once('\n').unwrap();
        assert_eq!(id, "id: an-id");
        let data = data.strip_prefix("data: ").unwrap().strip_suffix("\n\n").unwrap();
        assert!(!data.contains(['\n', '\r']), "{data:?}");
        assert!(data.contains("1e400"), "the record is sent as it came");
        assert_eq!(event.organization.as_deref(), Some("acme"));
        let fields: Vec<_> = (0..4).map(|place| event.field(place).map(String::as_str)).collect();
        assert_eq!(fields, [Some("a\nb"), None, Some("X"), Some("true")]);
    }

    #[test]
    fn what_stands_beside_the_record_is_the_streams_and_counts_nothing() {
        let event = event("watchbook.executions._.x", "{}").unwrap();
        let data = std::str::from_utf8(&event.written).unwrap().split_once("data: ").unwrap().1;
        let data: Value = serde_json::from_str(data).unwrap();
        let expected = json!({ "subject": "watchbook.executions._.x", "organization_id": null,
                               "received_at": "1970-01-01T00:00:00.000000Z", "record": {} });
        assert_eq!(data, expected);
    }

    #[test]
    fn who_does_not_see_everything_is_told_no_figures() {
        let gap = Gap { first: 2, last: 9, id: "an-id".into() };
        let told = |data: &str| format!("id: an-id\nevent: gap\ndata: {data}\n\n");
        assert_eq!(gap.written(true), told(r#"{"first":2,"last":9}"#));
        assert_eq!(gap.written(false), told(r#"{"first":null,"last":null}"#));
        assert_eq!(anew(), "event: gap\ndata: {\"first\":null,\"last\":null}\n\n");
        assert_eq!(lost(3), "event: lost\ndata: {\"count\":3}\n\n");
    }

    #[test]
    fn what_is_no_record_is_left_out() {
        for body in ["", "x", "[]", "3", "{", "{} {}", "\u{feff}{}"] {
            assert!(event("watchbook.executions.acme.x", body).is_none(), "{body:?}");
        }
        assert!(event("watchbook.executions.a$b.x", "{}").is_none());
        assert!(event("watchbook.events.acme.x", "{}").is_none());
    }
}
