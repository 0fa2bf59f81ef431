//! The format of a request's body, read from its headers: plain records, or CloudEvents in one of the three modes of
//! their HTTP binding.
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
/// Media types for JSON lines. None is registered, and only the first is common.
pub(super) const LINES: [&str; 6] = [
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonl",
    "application/jsonlines",
    "application/x-jsonlines",
];
/// One CloudEvent that contains its record.
pub(super) const CLOUDEVENT: &str = "application/cloudevents+json";
/// An array of CloudEvents.
pub(super) const CLOUDEVENTS: &str = "application/cloudevents-batch+json";
/// The common prefix of all media types for CloudEvents.
const ANY_CLOUDEVENTS: &str = "application/cloudevents";
/// The prefix of headers that are attributes of a CloudEvent.
const ATTRIBUTE: &str = "ce-";
/// The attributes of the specification, which CORS allows pages of other origins to send.
pub(crate) const ATTRIBUTES: [HeaderName; 7] = [
    VERSION,
    HeaderName::from_static("ce-id"),
    HeaderName::from_static("ce-source"),
    HeaderName::from_static("ce-type"),
    HeaderName::from_static("ce-time"),
    HeaderName::from_static("ce-subject"),
    HeaderName::from_static("ce-dataschema"),
];
/// The header that marks a CloudEvent in binary mode.
const VERSION: HeaderName = HeaderName::from_static("ce-specversion");
/// The other required attributes. A request with one of them but without a version is not taken for a plain record.
const REQUIRED: [HeaderName; 3] =
    [HeaderName::from_static("ce-id"), HeaderName::from_static("ce-source"), HeaderName::from_static("ce-type")];

/// The format of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One record, or an array of them.
    Json,
    /// JSON lines: one record per line.
    Lines,
    /// A CloudEvent in binary mode: the body is the record, and these headers are the attributes.
    Binary(Headers),
    /// A CloudEvent in structured mode: the record is its data.
    Structured,
    /// An array of CloudEvents in structured mode.
    Batch,
}

impl Form {
    /// Reads the format from headers.
    ///
    /// # Errors
    /// 415 for an unsupported type; 400 for an incomplete CloudEvent.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let media_type = body::media_type(headers).unwrap_or_default().to_ascii_lowercase();
        match media_type.as_str() {
            CLOUDEVENT => Ok(Self::Structured),
            CLOUDEVENTS => Ok(Self::Batch),
            other if other.starts_with(ANY_CLOUDEVENTS) => {
                Err(body::unsupported_type(&[CLOUDEVENT, CLOUDEVENTS], " for CloudEvents"))
            }
            _ if headers.contains_key(VERSION) => {
                // Data without a type is JSON, as in a CloudEvent without `datacontenttype`.
                if !(media_type.is_empty() || is_json(&media_type)) {
                    return Err(body::unsupported_type(&[JSON], " for the data of a CloudEvent"));
                }
                Ok(Self::Binary(attributes(headers)?))
            }
            _ if REQUIRED.iter().any(|name| headers.contains_key(name)) => {
                let reason = "is missing, but other headers of a CloudEvent are present: expected 1.0";
                Err(Problem::parameters(vec![Fault::of(VERSION.as_str(), reason)]))
            }
            JSON => Ok(Self::Json),
            other if LINES.contains(&other) => Ok(Self::Lines),
            _ => Err(body::unsupported_type(&[JSON, LINES[0], LINES[2], CLOUDEVENT, CLOUDEVENTS], "")),
        }
    }

    /// Returns a record of the body as plain JSON.
    ///
    /// # Errors
    /// If it should be a CloudEvent and is not a valid one.
    pub(super) fn plain<'r>(&self, kind: Kind, record: &'r [u8]) -> Result<JsonBody<'r>, Reject> {
        let text = String::from_utf8_lossy(record);
        let unwrapped = match self {
            Self::Json | Self::Lines => return Ok(record.into()),
            Self::Binary(headers) => cloudevent::unwrap_binary(kind, headers, &text)?,
            Self::Structured | Self::Batch => cloudevent::unwrap_structured(kind, &text)?,
        };
        // Set `sanitized` as the writers would for the original body.
        Ok(unwrapped.into_json(matches!(text, Cow::Owned(_))).into())
    }

    /// Returns a digest that distinguishes bodies under the same `Idempotency-Key`, including the headers that become
    /// part of the records.
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

/// Returns the headers that form an event, sorted by name because their order has no meaning.
fn attributes(headers: &HeaderMap) -> Result<Headers, Problem> {
    let mut attributes = Vec::new();
    for name in headers.keys().filter(|name| name.as_str().starts_with(ATTRIBUTE) || *name == header::CONTENT_TYPE) {
        let mut values = headers.get_all(name).iter();
        let value = values.next().map(|value| String::from_utf8_lossy(value.as_bytes())).unwrap_or_default();
        if values.next().is_some() {
            return Err(Problem::parameters(vec![Fault::of(name.as_str(), "occurs twice")]));
        }
        let value = if *name == header::CONTENT_TYPE { value.into_owned() } else { unquoted(value.trim()) };
        attributes.push((name.as_str().to_owned(), value));
    }
    attributes.sort_unstable();
    Ok(attributes.into_iter().collect())
}

/// Returns the content of a quoted string (RFC 9110, section 5.6.4), which older senders write where others write
/// `%20`. Returns other text unchanged. `%XX` is decoded later, once.
fn unquoted(text: &str) -> String {
    let Some(quoted) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return text.to_owned() };
    let mut out = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}
