//! Builds a message from a stored event.

use chrono::{DateTime, SecondsFormat, Utc};
use publisher::Encoded;
use records::Headers;
use store::queries::replay::StoredEvent;

/// Header with the start time of the replay, the same for all of its messages. Messages published the first time do not
/// have it.
const REPLAYED_AT: &str = "Watchbook-Replayed-At";

/// Returns the headers of a replay's messages.
pub(super) fn headers(began: DateTime<Utc>) -> Headers {
    [(REPLAYED_AT.to_owned(), began.to_rfc3339_opts(SecondsFormat::Micros, true))].into_iter().collect()
}

/// Returns the event as its producer might have published it.
///
/// # Errors
/// If the event cannot be serialized as JSON, which does not happen for stored events.
pub(super) fn message(event: &StoredEvent, subject: &str, headers: &Headers) -> serde_json::Result<Encoded> {
    let body = compact(&serde_json::to_vec(event)?);
    Ok(Encoded::new(subject.to_owned(), body).with_headers(headers.clone()))
}

/// Removes whitespace between JSON tokens. Postgres prints a space after each comma and colon, so a record just below
/// the size limit could exceed it.
fn compact(json: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(json.len());
    let (mut in_string, mut is_escaped) = (false, false);
    for &byte in json {
        if in_string {
            in_string = is_escaped || byte != b'"';
            is_escaped = !is_escaped && byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            in_string = byte == b'"';
        }
        text.push(byte);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn only_spaces_between_the_parts_go() {
        for (json, compacted) in [
            (r#"{"a": 1, "b c": [1, 2]}"#, r#"{"a":1,"b c":[1,2]}"#),
            (r#"{"a": "x \" , y", "b": 2}"#, r#"{"a":"x \" , y","b":2}"#),
            (r#"{"a\\": "\\", "b": " "}"#, r#"{"a\\":"\\","b":" "}"#),
            (r#""ä ö""#, r#""ä ö""#),
        ] {
            assert_eq!(String::from_utf8(compact(json.as_bytes())).unwrap(), compacted);
        }
    }

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn a_message_is_the_record_with_every_digit() {
        let event = StoredEvent {
            id: Uuid::nil(),
            organization_id: None,
            created_at: "2026-01-02T03:04:05.000006Z".parse().unwrap(),
            event_type: "x".to_owned(),
            payload: raw(r#"{"n": 12345678901234567890123}"#),
            project_id: None,
            run_id: Some("r".to_owned()),
            user_id: None,
            actor_type: "system".to_owned(),
            actor_id: None,
            source: None,
            attributes: raw("{}"),
        };
        let headers = headers("2026-02-01T00:00:00Z".parse().unwrap());
        let message = message(&event, "staging.events", &headers).unwrap();
        let text = std::str::from_utf8(message.body()).unwrap();
        assert!(text.contains("12345678901234567890123"), "{text}");
        let record: Value = serde_json::from_str(text).unwrap();
        let names: Vec<_> = record.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["actor_type", "created_at", "event_type", "id", "payload", "run_id"]);
        assert_eq!(record["created_at"], json!("2026-01-02T03:04:05.000006Z"));
        assert_eq!(message.headers().get(REPLAYED_AT), Some("2026-02-01T00:00:00.000000Z"));
    }
}
