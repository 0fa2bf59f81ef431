//! Characters that Postgres cannot hold are replaced by U+FFFD, and `attributes.sanitized` is set.

use records::Kind;
use serde_json::json;

use crate::support::{Sent, minimal};

/// Returns a minimal record with one more member of these bytes.
fn with_bytes(kind: Kind, member: &[u8]) -> Sent {
    let mut body = serde_json::to_vec(&minimal(kind)).unwrap();
    assert_eq!(body.pop(), Some(b'}'));
    body.push(b',');
    body.extend_from_slice(member);
    body.push(b'}');
    Sent::body(kind, body)
}

#[test]
fn what_postgres_cannot_hold_is_replaced_and_the_record_says_so() {
    for &kind in Kind::ALL {
        for (member, stored_as) in [
            (br#""source":"a\u0000b""#.as_slice(), "a\u{fffd}b"),
            (b"\"source\":\"a\0b\"", "a\u{fffd}b"),
            (b"\"source\":\"a\xffb\"", "a\u{fffd}b"),
            (b"\"source\":\"a\xc3\"", "a\u{fffd}"),
            (b"\"source\":\"\xed\xa0\xbd\"", "\u{fffd}\u{fffd}\u{fffd}"),
            (br#""source":"\ud83d""#, "\u{fffd}"),
            (br#""source":"\ude00x""#, "\u{fffd}x"),
            (br#""source":"\uD83D\u0041""#, "\u{fffd}A"),
        ] {
            let stored = with_bytes(kind, member).stored();
            let shown = String::from_utf8_lossy(member);
            assert_eq!(stored.get("source"), json!(stored_as), "{kind} {shown}");
            assert_eq!(stored.get("attributes"), json!({ "sanitized": true }), "{kind} {shown}");
        }
    }
}

#[test]
fn what_postgres_can_hold_stays_as_it_is() {
    for &kind in Kind::ALL {
        for (member, stored_as) in [
            (r#""source":"\ud83d\ude00""#, "😀"),
            (r#""source":"\\u0000""#, "\\u0000"),
            (r#""source":"\u0001""#, "\u{1}"),
            ("\"source\":\"\u{fffd}\"", "\u{fffd}"),
            ("\"source\":\"😀\"", "😀"),
        ] {
            let stored = with_bytes(kind, member.as_bytes()).stored();
            assert_eq!(stored.get("source"), json!(stored_as), "{kind} {member}");
            assert_eq!(stored.get("attributes"), json!({}), "{kind} {member}");
        }
    }
}

#[test]
fn it_holds_for_names_and_inside_json_columns() {
    let stored = with_bytes(
        Kind::Events,
        br#""payload":{"a\u0000":["\ud800",{"b":"\\\u0000"}]},"x\u0000":1,"attributes":{"y":"\u0000"}"#,
    )
    .stored();
    assert_eq!(stored.get("payload"), json!({ "a\u{fffd}": ["\u{fffd}", { "b": "\\\u{fffd}" }] }));
    assert_eq!(stored.get("attributes"), json!({ "x\u{fffd}": 1, "y": "\u{fffd}", "sanitized": true }));
}

#[test]
fn a_list_of_texts_is_cleaned_too() {
    let stored = with_bytes(Kind::Executions, br#""classes_found":["A\u0000","\ud83d"]"#).stored();
    assert_eq!(stored.get("classes_found"), json!(["A\u{fffd}", "\u{fffd}"]));
}

#[test]
fn an_id_is_stable_whatever_had_to_be_replaced() {
    let sent = with_bytes(Kind::Events, b"\"id\":\"order-\xff\"");
    assert_eq!(sent.stored().id, sent.stored().id);
}

#[test]
fn a_nul_outside_of_strings_is_no_json() {
    assert_eq!(Sent::body(Kind::Events, b"{\"event_type\":\"e\"}\0".as_slice()).refused(), "invalid_json:");
}
