//! What a request's headers say its body is: records as they are, or CloudEvents in one of the three modes of their
//! HTTP binding.
//!
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md>

use std::borrow::Cow;

use axum::http::{HeaderMap, HeaderName, header};
use publisher::JsonBody;
use records::{Headers, Kind, Reject, cloudevent};
use sha2::{Digest, Sha256};

use super::identity::digest;
use crate::body;
use crate::problem::{Fault, Problem};

const JSON: &str = "application/json";
/// Names under which services send one JSON object a line; only the first is common, and none is registered.
pub(super) const LINES: [&str; 6] = [
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonl",
    "application/jsonlines",
    "application/x-jsonlines",
];
/// One CloudEvent, with its record inside.
pub(super) const CLOUDEVENT: &str = "application/cloudevents+json";
/// An array of them.
pub(super) const CLOUDEVENTS: &str = "application/cloudevents-batch+json";
/// What every other format of CloudEvents begins with as well.
const ANY_CLOUDEVENTS: &str = "application/cloudevents";
/// What headers begin with that are attributes of a CloudEvent.
const ATTRIBUTE: &str = "ce-";
/// The attributes that the specification names, for pages of other origins that send them.
pub(crate) const ATTRIBUTES: [HeaderName; 7] = [
    VERSION,
    HeaderName::from_static("ce-id"),
    HeaderName::from_static("ce-source"),
    HeaderName::from_static("ce-type"),
    HeaderName::from_static("ce-time"),
    HeaderName::from_static("ce-subject"),
    HeaderName::from_static("ce-dataschema"),
];
/// By which a CloudEvent in headers is known.
const VERSION: HeaderName = HeaderName::from_static("ce-specversion");
/// And what a CloudEvent has besides, so that one without its version is no plain record.
const REQUIRED: [HeaderName; 3] =
    [HeaderName::from_static("ce-id"), HeaderName::from_static("ce-source"), HeaderName::from_static("ce-type")];

/// What a body is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One record, or an array of them.
    Json,
    /// A record a line.
    Lines,
    /// A record that is the data of a CloudEvent, whose attributes are these headers.
    Binary(Headers),
    /// A CloudEvent with its record inside.
    Structured,
    /// An array of these.
    Batch,
}

impl Form {
    /// As headers say.
    ///
    /// # Errors
    /// 415 for another type; 400 for a CloudEvent that is not complete.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let media_type = body::media_type(headers).unwrap_or_default().to_ascii_lowercase();
        match media_type.as_str() {
            CLOUDEVENT => Ok(Self::Structured),
            CLOUDEVENTS => Ok(Self::Batch),
            other if other.starts_with(ANY_CLOUDEVENTS) => {
                Err(body::unsupported_type(&[CLOUDEVENT, CLOUDEVENTS], " for CloudEvents"))
            }
            _ if headers.contains_key(VERSION) => {
                // Data without a type is JSON, as it is in a CloudEvent without `datacontenttype`.
                if !(media_type.is_empty() || is_json(&media_type)) {
                    return Err(body::unsupported_type(&[JSON], " for the data of a CloudEvent"));
                }
                Ok(Self::Binary(attributes(headers)?))
            }
            _ if REQUIRED.iter().any(|name| headers.contains_key(name)) => {
                let reason = "is missing beside other headers of a CloudEvent: expected 1.0";
                Err(Problem::parameters(vec![Fault::of(VERSION.as_str(), reason)]))
            }
            JSON => Ok(Self::Json),
            other if LINES.contains(&other) => Ok(Self::Lines),
            _ => Err(body::unsupported_type(&[JSON, LINES[0], LINES[2], CLOUDEVENT, CLOUDEVENTS], "")),
        }
    }

    /// A record of the body as plain JSON.
    ///
    /// # Errors
    /// Where it is no CloudEvent and has to be one.
    pub(super) fn plain<'r>(&self, kind: Kind, record: &'r [u8]) -> Result<JsonBody<'r>, Reject> {
        let structured = || Headers::from_iter([("content-type".to_owned(), CLOUDEVENT.to_owned())]);
        let headers = match self {
            Self::Json | Self::Lines => return Ok(record.into()),
            Self::Binary(headers) => Cow::Borrowed(headers),
            Self::Structured | Self::Batch => Cow::Owned(structured()),
        };
        // An event need not have data, and then has no body.
        let data = if record.trim_ascii().is_empty() { b"{}".as_slice() } else { record };
        let text = String::from_utf8_lossy(data);
        match cloudevent::unwrap(kind, &headers, &text)? {
            None => Ok(record.into()),
            // `sanitized` as the writers would have said it, had they seen the original.
            Some(unwrapped) => Ok(unwrapped.into_json(matches!(text, Cow::Owned(_))).into()),
        }
    }

    /// What tells a body from others under the same `Idempotency-Key`, with all that is a part of its records.
    pub(super) fn fingerprint(&self, body: &[u8]) -> Vec<u8> {
        match self {
            Self::Json | Self::Lines => Sha256::digest(body).to_vec(),
            Self::Structured => digest(&[CLOUDEVENT.as_bytes(), body]),
            Self::Batch => digest(&[CLOUDEVENTS.as_bytes(), body]),
            Self::Binary(headers) => {
                let headers = headers.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
                digest(&headers.chain([body]).collect::<Vec<_>>())
            }
        }
    }
}

fn is_json(media_type: &str) -> bool {
    media_type.split_once('/').is_some_and(|(_, subtype)| subtype == "json" || subtype.ends_with("+json"))
}

/// The headers of which an event is made, sorted by name: their order says nothing.
fn attributes(headers: &HeaderMap) -> Result<Headers, Problem> {
    let mut attributes = Vec::new();
    for name in headers.keys().filter(|name| name.as_str().starts_with(ATTRIBUTE) || *name == header::CONTENT_TYPE) {
        let mut values = headers.get_all(name).iter();
        let value = values.next().map(|value| String::from_utf8_lossy(value.as_bytes())).unwrap_or_default();
        if values.next().is_some() {
            return Err(Problem::parameters(vec![Fault::of(name.as_str(), "stands twice")]));
        }
        let value = if *name == header::CONTENT_TYPE { value.into_owned() } else { unquoted(value.trim()) };
        attributes.push((name.as_str().to_owned(), value));
    }
    attributes.sort_unstable();
    Ok(attributes.into_iter().collect())
}

/// The text of a quoted string (RFC 9110, section 5.6.4), which older senders write where others write `%20`; other text
/// as it is. What stands there as `%XX` is read later, once.
fn unquoted(text: &str) -> String {
    let Some(quoted) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return text.to_owned() };
    let mut out = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}
