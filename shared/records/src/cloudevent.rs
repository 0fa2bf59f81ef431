//! Converts CloudEvents 1.0 to plain records.
//!
//! In structured mode, the event is one JSON object. In binary mode, its attributes are `ce-` headers, and its data is
//! the body. A structured event without its content type is recognized by its members. See
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>, and the JSON format and the NATS protocol
//! binding beside it.
//!
//! `data` is the record. `id`, `time` and `source` become `id`, `created_at` and `source`. For events, `type` becomes
//! `event_type`. Everything else of the envelope, and the members of `data` that it overrode, are stored in
//! `attributes.cloudevent`. Values are copied as text, so a number keeps every digit.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::fields::{Fields, string};
use crate::headers::Headers;
use crate::object::ObjectText;
use crate::text::sanitize;
use crate::{Kind, Reason, Reject};

/// The data of an event without any: it is optional.
const NO_DATA: &str = "{}";

/// The plain record of a CloudEvent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwrapped {
    /// The record as JSON text.
    record: String,
    /// Whether text was replaced when it was decoded.
    replaced: bool,
}

impl Unwrapped {
    /// Returns the record as JSON text. It has the member `sanitized` if text was replaced when the event was decoded,
    /// or before, as the argument says.
    pub fn into_json(mut self, sanitized: bool) -> String {
        if sanitized || self.replaced {
            self.record.pop();
            self.record.push_str(r#","sanitized":true}"#);
        }
        self.record
    }

    /// Encodes the record with `encode`. Its second argument is whether text was replaced.
    pub(crate) fn encode<T>(
        &self,
        sanitized: bool,
        encode: impl FnOnce(&str, bool) -> Result<T, Reject>,
    ) -> Result<T, Reject> {
        let (text, again) = sanitize(self.record.as_bytes());
        encode(&text, sanitized || self.replaced || again)
    }
}

/// Returns the plain record of a message that is a CloudEvent according to its headers; `None` for other messages.
///
/// # Errors
/// `invalid_json` if the event or its data is not a JSON object, `invalid_field` if its version is not 1.0 or its
/// `data_base64` is not base64.
pub fn unwrap(kind: Kind, headers: &Headers, body: &str) -> Result<Option<Unwrapped>, Reject> {
    if headers.is_empty() {
        Ok(None)
    } else if is_structured(headers) {
        unwrap_structured(kind, body).map(Some)
    } else if headers.get("ce-specversion").is_some() {
        unwrap_binary(kind, headers, body).map(Some)
    } else {
        Ok(None)
    }
}

/// Returns the plain record of a CloudEvent in structured mode.
///
/// # Errors
/// As [`unwrap`].
pub fn unwrap_structured(kind: Kind, body: &str) -> Result<Unwrapped, Reject> {
    structured(kind, Fields::parse(body)?)
}

/// Returns the plain record of a CloudEvent in binary mode. A blank body stands for an event without data.
///
/// # Errors
/// As [`unwrap`].
pub fn unwrap_binary(kind: Kind, headers: &Headers, body: &str) -> Result<Unwrapped, Reject> {
    let (envelope, replaced) = from_headers(headers);
    let data = if body.trim_ascii().is_empty() { NO_DATA } else { body };
    Ok(Unwrapped { record: record(kind, Fields::parse(&envelope)?, data)?, replaced })
}

/// Returns the plain record of a structured CloudEvent that its headers do not mark as one; `None` for other bodies:
/// without the required attributes, or with a member that no event may have.
///
/// No body is both a CloudEvent and a record. Names of attributes consist of lower-case letters and digits (section
/// "Naming conventions" of the specification), and each kind requires a field whose name has an underscore or a capital
/// letter.
///
/// # Errors
/// As [`unwrap`].
pub fn unwrap_unmarked(kind: Kind, body: &str) -> Option<Result<Unwrapped, Reject>> {
    // Far cheaper than parsing, and rarely found.
    memchr::memmem::find(body.as_bytes(), b"\"specversion\"")?;
    let envelope = Fields::parse(body).ok()?;
    let is_attribute = |name: &str| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let has_text = |name: &str| {
        envelope.left_over().any(|(key, value)| key == name && string(value).is_some_and(|text| !text.is_empty()))
    };
    let is_event = ["specversion", "id", "source", "type"].into_iter().all(has_text)
        && envelope.left_over().all(|(name, _)| is_attribute(name) || name == "data_base64");
    is_event.then(|| structured(kind, envelope))
}

fn structured(kind: Kind, mut envelope: Fields<'_>) -> Result<Unwrapped, Reject> {
    let (data, replaced) = match envelope.take_exactly("data") {
        Some(data) => (Cow::Borrowed(data.get()), false),
        None => match envelope.take_exactly("data_base64") {
            Some(encoded) => decode(encoded.get())?,
            None => (Cow::Borrowed(NO_DATA), false),
        },
    };
    Ok(Unwrapped { record: record(kind, envelope, &data)?, replaced })
}

/// Returns the data with the attributes that override its members, and with the rest of the envelope as `cloudevent`.
fn record(kind: Kind, mut envelope: Fields<'_>, data: &str) -> Result<String, Reject> {
    let version = envelope.take_exactly("specversion").and_then(|raw| string(raw.get()));
    if version.as_deref() != Some("1.0") {
        return Err(Reject::invalid("specversion", "expected the CloudEvents version `1.0`"));
    }
    let mut data = Fields::parse(data)
        .map_err(|reject| Reject::message(Reason::InvalidJson, format!("the CloudEvent's data: {}", reject.detail)))?;
    let mut record = ObjectText::new();
    let mut overridden = ObjectText::new();
    let mut place = |attribute: &str, names: &[&str]| {
        let Some(value) = envelope.take_exactly(attribute) else { return };
        for name in names {
            if let Some(other) = data.take_exactly(name).filter(|other| other.get() != value.get()) {
                overridden.member(name, other.get());
            }
        }
        if let Some(name) = names.first() {
            record.member(name, value.get());
        }
    };
    place("id", &["id"]);
    place("time", &["created_at", "createdAt", "timestamp"]);
    place("source", &["source"]);
    if kind == Kind::Events {
        place("type", &["event_type", "eventType"]);
    }
    let mut rest = ObjectText::new();
    rest.text_member("specversion", "1.0");
    envelope.left_over().for_each(|(name, value)| rest.member(name, value));
    if !overridden.is_empty() {
        rest.member("data", &overridden.finish());
    }
    // If the data has a member of that name, it is kept within the new one.
    if let Some(other) = data.take_exactly("cloudevent") {
        rest.member("cloudevent", other.get());
    }
    record.member("cloudevent", &rest.finish());
    data.left_over().for_each(|(name, value)| record.member(name, value));
    Ok(record.finish())
}

fn is_structured(headers: &Headers) -> bool {
    headers.get("content-type").is_some_and(|content_type| {
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        media_type.eq_ignore_ascii_case("application/cloudevents+json")
    })
}

/// Converts the headers of binary mode to the JSON object of structured mode, and returns whether text was replaced.
fn from_headers(headers: &Headers) -> (String, bool) {
    let mut envelope = ObjectText::new();
    let mut replaced = false;
    for (name, value) in headers.iter() {
        let prefix = name.get(..3).is_some_and(|prefix| prefix.eq_ignore_ascii_case("ce-"));
        if let (true, Some(attribute)) = (prefix, name.get(3..)) {
            let value = percent_decode(value);
            let value = String::from_utf8_lossy(&value);
            replaced |= matches!(value, Cow::Owned(_));
            envelope.text_member(&attribute.to_ascii_lowercase(), &value);
        }
    }
    if let Some(content_type) = headers.get("content-type") {
        envelope.text_member("datacontenttype", content_type);
    }
    (envelope.finish(), replaced)
}

/// Decodes `%XX`, with which the protocol bindings encode characters that a header cannot have.
fn percent_decode(text: &str) -> Vec<u8> {
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
    out
}

fn decode(encoded: &str) -> Result<(Cow<'static, str>, bool), Reject> {
    let bytes = string(encoded).and_then(|text| STANDARD.decode(text.as_bytes()).ok());
    let bytes = bytes.ok_or_else(|| Reject::invalid("data_base64", "expected base64 (RFC 4648)"))?;
    let (text, replaced) = sanitize(&bytes);
    Ok((Cow::Owned(text.into_owned()), replaced))
}
