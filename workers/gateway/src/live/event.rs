//! A record on its way to whoever watches: decoded once, written out once.

use std::collections::BTreeMap;

use bus::Delivery;
use bytes::Bytes;
use chrono::SecondsFormat;
use records::{Kind, subject};
use serde::Serialize;
use serde_json::value::RawValue;

use super::wanted;

/// A record as it is sent.
#[derive(Debug)]
pub(super) struct Event {
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
    sequence: u64,
    received_at: String,
    record: &'d RawValue,
}

impl Event {
    /// What a delivery becomes; `None` where its subject names no organization, or its body is no JSON object: no
    /// record will be made of it.
    pub(super) fn of(delivery: &Delivery, prefix: &str, kind: Kind) -> Option<Self> {
        let organization = subject::organization(&delivery.subject, prefix, kind).ok()?;
        let body = std::str::from_utf8(&delivery.body).ok()?;
        let members: BTreeMap<String, &RawValue> = serde_json::from_str(body).ok()?;
        let fields = wanted::fields(kind).iter().map(|name| text_of(&members, name)).collect();
        let data = Data {
            subject: &delivery.subject,
            organization_id: organization,
            sequence: delivery.sequence,
            received_at: delivery.published_at.to_rfc3339_opts(SecondsFormat::Micros, true),
            record: serde_json::from_str(body).ok()?,
        };
        let written = written(Some(delivery.sequence), None, &data)?;
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
pub(super) fn written(id: Option<u64>, name: Option<&str>, data: &impl Serialize) -> Option<Bytes> {
    let data = serde_json::to_string(data).ok()?.replace(['\n', '\r'], " ");
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    let name = name.map(|name| format!("event: {name}\n")).unwrap_or_default();
    Some(Bytes::from(format!("{id}{name}data: {data}\n\n")))
}

/// Tells that the stream does not hold these sequences any more; what of them was whose cannot be told. Without an end
/// where the stream began anew.
pub(super) fn gap(first: u64, last: Option<u64>) -> Bytes {
    let data = serde_json::json!({ "first": first, "last": last });
    // Who comes back goes on behind it.
    written(last, Some("gap"), &data).unwrap_or_default()
}

/// Tells how many events did not fit into the queue. Without an id: who asks again with one before `first` gets them.
pub(super) fn lost(count: u64, first: u64, last: u64) -> Bytes {
    let data = serde_json::json!({ "count": count, "first": first, "last": last });
    written(None, Some("lost"), &data).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::{Value, json};

    use super::*;

    fn event(subject: &str, body: &str) -> Option<Event> {
        let delivery = Delivery::new(7, DateTime::UNIX_EPOCH, subject, body.to_owned());
        Event::of(&delivery, "watchbook", Kind::Executions)
    }

    #[test]
    fn an_event_is_one_line_of_data() {
        let body = "{\r\n \"user_id\": \"a\\nb\",\n \"executionType\": \"X\", \"success\": true, \"n\": 1e400 }";
        let event = event("watchbook.executions.acme.x", body).unwrap();
        let text = std::str::from_utf8(&event.written).unwrap();
        let (id, data) = text.split_once('\n').unwrap();
        assert_eq!(id, "id: 7");
        let data = data.strip_prefix("data: ").unwrap().strip_suffix("\n\n").unwrap();
        assert!(!data.contains(['\n', '\r']), "{data:?}");
        assert!(data.contains("1e400"), "the record is sent as it came");
        assert_eq!(event.organization.as_deref(), Some("acme"));
        let fields: Vec<_> = (0..4).map(|place| event.field(place).map(String::as_str)).collect();
        assert_eq!(fields, [Some("a\nb"), None, Some("X"), Some("true")]);
    }

    #[test]
    fn what_stands_beside_the_record_is_the_streams() {
        let event = event("watchbook.executions._.x", "{}").unwrap();
        let data = std::str::from_utf8(&event.written).unwrap().split_once("data: ").unwrap().1;
        let data: Value = serde_json::from_str(data).unwrap();
        let expected = json!({ "subject": "watchbook.executions._.x", "organization_id": null, "sequence": 7,
                               "received_at": "1970-01-01T00:00:00.000000Z", "record": {} });
        assert_eq!(data, expected);
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
