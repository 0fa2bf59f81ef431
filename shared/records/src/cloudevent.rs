//! CloudEvents 1.0, unwrapped to a plain record.
//!
//! Structured mode carries the event as one JSON object, binary mode its attributes as `ce-` headers
//! and its data as the body. The specification: <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>,
//! the JSON format and the NATS binding beside it.
//!
//! `id`, `time` and `type` become `id`, `created_at` and `event_type` (for events), `source` becomes
//! `source`, `data` is the record. Everything else of the envelope, and what it overrode in the data,
//! stays in `attributes.cloudevent`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::message::Headers;
use crate::{Kind, Reason, Reject};

/// The plain record inside, as JSON text; `None` where the message is no CloudEvent.
pub(crate) fn unwrap(kind: Kind, headers: &Headers, body: &str) -> Result<Option<String>, Reject> {
    let (mut envelope, data) = if is_structured(headers) {
        let mut envelope = object(body)?;
        let data = match (envelope.remove("data"), envelope.remove("data_base64")) {
            (Some(data), _) => data,
            (None, Some(encoded)) => decode(&encoded)?,
            (None, None) => Value::Object(Map::new()),
        };
        (envelope, data)
    } else if headers.get("ce-specversion").is_some() {
        (from_headers(headers), parse(body)?)
    } else {
        return Ok(None);
    };
    match envelope.get("specversion").and_then(Value::as_str) {
        Some("1.0") => {}
        _ => return Err(Reject::invalid("specversion", "expected the CloudEvents version `1.0`")),
    }
    let Value::Object(mut record) = data else {
        return Err(Reject::message(Reason::InvalidJson, "the CloudEvent's data is not one JSON object"));
    };
    let mut overridden = Map::new();
    let mut place = |attribute: &str, names: &[&str]| {
        let Some(value) = envelope.remove(attribute) else { return };
        for name in names {
            if let Some(other) = record.remove(*name).filter(|other| *other != value) {
                overridden.insert((*name).to_owned(), other);
            }
        }
        if let Some(name) = names.first() {
            record.insert((*name).to_owned(), value);
        }
    };
    place("id", &["id"]);
    place("time", &["created_at", "createdAt", "timestamp"]);
    place("source", &["source"]);
    if kind == Kind::Events {
        place("type", &["event_type", "eventType"]);
    }
    if !overridden.is_empty() {
        envelope.insert("data".to_owned(), Value::Object(overridden));
    }
    if let Some(other) = record.insert("cloudevent".to_owned(), Value::Object(envelope)) {
        // A record with a member of that name keeps it inside ours.
        if let Some(Value::Object(envelope)) = record.get_mut("cloudevent") {
            envelope.insert("cloudevent".to_owned(), other);
        }
    }
    Ok(Some(Value::Object(record).to_string()))
}

fn is_structured(headers: &Headers) -> bool {
    headers.get("content-type").is_some_and(|content_type| {
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        media_type.eq_ignore_ascii_case("application/cloudevents+json")
    })
}

fn from_headers(headers: &Headers) -> Map<String, Value> {
    let mut envelope = Map::new();
    for (name, value) in headers.iter() {
        let prefix = name.get(..3).is_some_and(|prefix| prefix.eq_ignore_ascii_case("ce-"));
        if let (true, Some(attribute)) = (prefix, name.get(3..)) {
            envelope.insert(attribute.to_ascii_lowercase(), Value::String(percent_decode(value)));
        }
    }
    if let Some(content_type) = headers.get("content-type") {
        envelope.insert("datacontenttype".to_owned(), Value::from(content_type));
    }
    envelope
}

/// The bindings write what a header cannot hold as `%XX`.
fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&b) = bytes.get(at) {
        let hex = text.get(at + 1..at + 3).filter(|hex| b == b'%' && hex.bytes().all(|b| b.is_ascii_hexdigit()));
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(b);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn decode(encoded: &Value) -> Result<Value, Reject> {
    let bytes = encoded.as_str().and_then(|text| STANDARD.decode(text).ok());
    let bytes = bytes.ok_or_else(|| Reject::invalid("data_base64", "expected base64 (RFC 4648)"))?;
    parse(&crate::text::sanitize(&bytes).0)
}

fn parse(text: &str) -> Result<Value, Reject> {
    serde_json::from_str(text)
        .map_err(|error| Reject::message(Reason::InvalidJson, format!("expected one JSON object: {error}")))
}

fn object(text: &str) -> Result<Map<String, Value>, Reject> {
    match parse(text)? {
        Value::Object(map) => Ok(map),
        _ => Err(Reject::message(Reason::InvalidJson, "expected one JSON object")),
    }
}
