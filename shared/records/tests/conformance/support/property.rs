//! The properties that hold for every message. The fuzz target uses them too.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use records::{Kind, Message, encode};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::copy::{self, Row};

/// Maximum length of an explanation. Explanations are logged, so they must not contain the body.
const DETAIL_BYTES: usize = 1024;

/// Encodes a message and checks the result.
pub(crate) fn holds(message: &Message<'_>, keep: Option<TimeDelta>) {
    let before = b"rows of other messages".to_vec();
    let mut rows = before.clone();
    let outcome = encode(message, keep, &mut rows);

    let mut again = before.clone();
    assert_eq!(encode(message, keep, &mut again), outcome, "reading again ends the same way");
    assert_eq!(again, rows, "reading again gives the same row");
    assert!(rows.starts_with(&before), "other rows are left alone");

    match outcome {
        Err(reject) => {
            assert_eq!(rows, before, "a refusal leaves nothing behind");
            assert!(!reject.detail.is_empty() && reject.detail.len() <= DETAIL_BYTES, "{reject}");
        }
        Ok(facts) => {
            let row = copy::only_row(message.kind, &rows[before.len()..]);
            assert_eq!(row.get("id"), json!(facts.id));
            assert_eq!(row.get("organization_id"), json!(facts.organization));
            let micros = facts.created_at.timestamp_micros();
            assert_eq!(facts.created_at.timestamp_subsec_nanos() % 1000, 0, "whole microseconds");
            assert_eq!(row.get("created_at").as_str().map(micros_of), Some(micros), "the key is the row's");
            assert_eq!(facts.minute.timestamp_nanos_opt().map(|nanos| nanos % 60_000_000_000), Some(0));
            for column in row.columns() {
                check_text(&row, column);
            }
            if !is_cloudevent(message) {
                nothing_is_lost(message, &row);
            }
        }
    }
}

fn micros_of(time: &str) -> i64 {
    chrono::DateTime::parse_from_rfc3339(time).unwrap().timestamp_micros()
}

/// Checks that a column has no U+0000, neither as a character nor, in `jsonb`, as an escape.
fn check_text(row: &Row, column: &str) {
    if matches!(column, "attributes" | "payload" | "detail" | "metadata") {
        if row.is_null(column) {
            return;
        }
        let text = row.json_text(column);
        let members: Members = serde_json::from_str(text).unwrap();
        assert!(!text.contains('\0'));
        for (name, value) in &members {
            assert!(!name.contains('\0'));
            if let Ok(value) = serde_json::from_str::<Value>(value.get()) {
                assert!(!value.to_string().contains("\\u0000"), "{column} holds a NUL");
            }
        }
    } else if let Value::String(text) = row.get(column) {
        assert!(!text.contains('\0'), "{column} holds a NUL");
    }
}

type Members = BTreeMap<String, Box<RawValue>>;

/// Checks that every member that the contract does not define is in `attributes`, unchanged.
fn nothing_is_lost(message: &Message<'_>, row: &Row) {
    let attributes: Members = serde_json::from_str(row.json_text("attributes")).unwrap();
    if attributes.contains_key("sanitized") {
        return; // names and values then differ from the message on purpose
    }
    let body: Members = serde_json::from_slice(message.body).unwrap();
    let known = known_names(message);
    for (name, value) in body.iter().filter(|(name, _)| !known.contains(name) && *name != "truncated_bytes") {
        assert_eq!(attributes.get(name).map(|found| found.get()), Some(value.get()), "the member {name:?}");
    }
    let Some(sent) = body.get("attributes").filter(|sent| sent.get() != "null") else { return };
    let merged = serde_json::from_str::<Members>(sent.get()).is_ok_and(|sent| {
        sent.iter().all(|(name, value)| {
            name == "truncated_bytes" || attributes.get(name).is_some_and(|found| found.get() == value.get())
        })
    });
    let whole = attributes.get("attributes").is_some_and(|found| found.get() == sent.get());
    assert!(merged || whole, "the sent attributes are there, member by member or whole");
}

fn known_names(message: &Message<'_>) -> Vec<String> {
    let common = ["id", "organization_id", "created_at", "timestamp", "source", "attributes"];
    let aliases: &[&str] = match message.kind {
        Kind::Executions => &["execution_time", "memory_used", "cpu_usage"],
        _ => &[],
    };
    let snake = message.kind.spec().columns.iter().chain(aliases).copied().chain(common);
    snake.flat_map(|name| [name.to_owned(), camel_case(name)]).collect()
}

/// Converts a name to camelCase: `trace_id` to `traceId`.
pub(crate) fn camel_case(snake: &str) -> String {
    let mut words = snake.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |camel, word| {
        let (head, tail) = word.split_at(word.len().min(1));
        camel + &head.to_ascii_uppercase() + tail
    })
}

fn is_cloudevent(message: &Message<'_>) -> bool {
    let is = |name: &str| message.headers.get(name);
    is("ce-specversion").is_some() || is("content-type").is_some_and(|value| value.contains("cloudevents"))
}
