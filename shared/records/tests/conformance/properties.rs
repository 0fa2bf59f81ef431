//! Property tests: every message becomes one row or one rejection, and never causes a panic.

use chrono::TimeDelta;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use records::{Fixtures, Kind, REPLAY_ID_HEADER, REPLAY_TIME_HEADER};
use serde_json::{Map, Value};

use crate::support::property::camel_case;
use crate::support::{Sent, lines};

fn kinds() -> impl Strategy<Value = Kind> {
    select(Kind::ALL)
}

/// Names of fields and unknown names.
fn names() -> impl Strategy<Value = String> {
    let known: Vec<String> = Kind::ALL
        .iter()
        .flat_map(|kind| kind.columns())
        .chain([
            "timestamp",
            "execution_time",
            "memory_used",
            "cpu_usage",
            "sanitized",
            "truncated_bytes",
            "cloudevent",
        ])
        .flat_map(|name| [name.to_owned(), camel_case(name)])
        .collect();
    prop_oneof![4 => select(known), 1 => any::<String>()]
}

/// Texts, including words, times and ids that fields expect.
fn texts() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &[
        "",
        "acme",
        "user",
        "system",
        "api_key",
        "stdout",
        "critical",
        "SUCCESS",
        "FAILURE",
        "VALIDATION",
        "strategy",
        Fixtures::PUBLISHED_AT,
        "2026-06-16T12:00:00.000001Z",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:60+00:00",
        "019ecb27-1a30-7a44-8f31-5f4c2b9d7e10",
        "ffffffff-ffff-7fff-bfff-ffffffffffff",
        "A,B, C",
        "10.0.0.1/8",
        "::1",
        "1.0",
    ];
    prop_oneof![select(WORDS).prop_map(str::to_owned), any::<String>(), "\\PC{0,300}"]
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        texts().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((names(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn objects() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::vec((names(), values()), 0..12).prop_map(|members| members.into_iter().collect())
}

/// A fixture, accepted or rejected, with its kind.
fn fixtures() -> impl Strategy<Value = (Kind, &'static str)> {
    (kinds(), any::<Index>()).prop_map(|(kind, index)| {
        let Fixtures { accepted, rejected } = kind.spec().fixtures;
        let all: Vec<_> = lines(accepted).chain(lines(rejected)).collect();
        (kind, *index.get(&all))
    })
}

/// A change of a body: where, how many bytes are removed, and which are inserted.
fn cuts() -> impl Strategy<Value = (Index, usize, Vec<u8>)> {
    const PIECES: &[&[u8]] = &[
        b"\\u0000",
        b"\0",
        b"\xff",
        b"\xed\xa0\x80",
        b"\\ud800",
        b"\\udc00",
        b"\\",
        b"\"",
        b"{",
        b"}",
        b"null",
        b"1e400",
        b"-",
        b",",
        b":",
        b"\n",
    ];
    let piece = prop_oneof![select(PIECES).prop_map(<[u8]>::to_vec), prop::collection::vec(any::<u8>(), 0..8)];
    (any::<Index>(), 0..12_usize, piece)
}

fn headers() -> impl Strategy<Value = Vec<(String, String)>> {
    let name = prop_oneof![
        select(
            &[
                "content-type",
                "ce-specversion",
                "ce-id",
                "ce-time",
                "ce-type",
                "ce-source",
                "CE-Data",
                "ce-",
                REPLAY_ID_HEADER,
                REPLAY_TIME_HEADER
            ][..]
        )
        .prop_map(str::to_owned),
        any::<String>(),
    ];
    let value = prop_oneof![
        Just("application/cloudevents+json".to_owned()),
        Just("1.0".to_owned()),
        "(%[0-9A-Fa-fg]{0,2}|[ -~]|ä){0,20}",
        texts(),
    ];
    prop::collection::vec((name, value), 0..6)
}

fn subjects(kind: Kind) -> impl Strategy<Value = String> {
    prop_oneof![
        Just(format!("watchbook.{kind}.acme.x")),
        "watchbook\\.[a-z]{0,10}\\.[ -~]{0,70}",
        texts().prop_map(move |text| format!("watchbook.{kind}.{text}")),
        any::<String>(),
    ]
}

proptest! {
    #[test]
    fn any_bytes_end_as_a_row_or_a_refusal(body in prop::collection::vec(any::<u8>(), 0..600)) {
        for &kind in Kind::ALL {
            Sent::body(kind, body.clone()).check();
        }
    }

    #[test]
    fn any_json_ends_as_a_row_or_a_refusal(value in values()) {
        for &kind in Kind::ALL {
            Sent::body(kind, value.to_string()).check();
        }
    }

    #[test]
    fn any_members_beside_the_required_ones_end_as_a_row_or_a_refusal(members in objects()) {
        for &kind in Kind::ALL {
            Sent::with(kind, Value::Object(members.clone())).check();
        }
    }

    #[test]
    fn unknown_members_are_stored_and_found_again(
        members in prop::collection::btree_map("_[a-z_]{0,8}|[A-Z].{0,5}", values(), 0..8),
        attributes in prop::option::of(values()),
    ) {
        let mut members: Map<String, Value> = members.into_iter().collect();
        members.extend(attributes.map(|attributes| ("attributes".to_owned(), attributes)));
        for &kind in Kind::ALL {
            let sent = Sent::with(kind, Value::Object(members.clone()));
            sent.stored();
            sent.check();
        }
    }

    #[test]
    fn a_fixture_with_other_bytes_ends_as_a_row_or_a_refusal(
        (kind, line) in fixtures(),
        cuts in prop::collection::vec(cuts(), 1..5),
    ) {
        let mut body = line.as_bytes().to_vec();
        for (at, length, piece) in cuts {
            let at = at.index(body.len() + 1);
            let end = (at + length).min(body.len());
            body.splice(at..end, piece);
        }
        Sent::body(kind, body).check();
    }

    #[test]
    fn a_fixture_with_other_values_ends_as_a_row_or_a_refusal(
        (kind, line) in fixtures(),
        changes in prop::collection::vec((any::<Index>(), values()), 1..4),
    ) {
        let mut record: Map<String, Value> = serde_json::from_str(line).unwrap();
        for (at, value) in changes {
            let names: Vec<_> = record.keys().cloned().collect();
            record.insert(at.get(&names).clone(), value);
        }
        Sent::body(kind, Value::Object(record).to_string()).check();
    }

    #[test]
    fn any_headers_end_as_a_row_or_a_refusal((kind, line) in fixtures(), headers in headers()) {
        let sent = Sent::body(kind, line);
        headers.iter().fold(sent, |sent, (name, value)| sent.header(name, value)).check();
    }

    #[test]
    fn any_cloudevent_ends_as_a_row_or_a_refusal(
        (kind, line) in fixtures(),
        mut envelope in objects(),
        structured in any::<bool>(),
    ) {
        let sent = if structured {
            envelope.insert("specversion".to_owned(), Value::from("1.0"));
            envelope.insert("data".to_owned(), serde_json::from_str(line).unwrap());
            Sent::body(kind, Value::Object(envelope).to_string()).header("content-type", "application/cloudevents+json")
        } else {
            let sent = Sent::body(kind, line).header("ce-specversion", "1.0");
            envelope.iter().fold(sent, |sent, (name, value)| sent.header(&format!("ce-{name}"), &value.to_string()))
        };
        sent.check();
    }

    #[test]
    fn any_subject_ends_as_a_row_or_a_refusal((subject, kind) in kinds().prop_flat_map(|kind| (subjects(kind), Just(kind)))) {
        let sent = Sent::with(kind, serde_json::json!({})).subject(&subject);
        sent.check();
        if let Ok(stored) = sent.encode() {
            prop_assert!(stored.organization.is_none_or(|organization| records::subject::is_organization(&organization)));
        }
    }

    #[test]
    fn any_retention_ends_as_a_row_or_a_refusal((kind, line) in fixtures(), seconds in 0..4_000_000_000_i64) {
        Sent::body(kind, line).keep(Some(TimeDelta::seconds(seconds))).check();
    }

    #[test]
    fn a_detail_of_any_text_makes_a_subject_of_the_kind(kind in kinds(), detail in any::<String>()) {
        let subject = records::subject::for_record("watchbook", kind, Some("acme"), &detail);
        prop_assert_eq!(records::subject::organization(&subject, "watchbook", kind), Ok(Some("acme")));
        prop_assert!(subject.split('.').all(|token| !token.is_empty()), "{}", subject);
        prop_assert!(!subject.contains(|c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>'));
    }
}
