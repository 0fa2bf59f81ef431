//! `attributes`: fields that the contract does not define. Nothing is lost.

use records::Kind;
use serde_json::json;

use crate::support::Sent;

#[test]
fn unknown_fields_become_attributes() {
    let unknown = json!({
        "http.status": 422,
        "nested": { "a": [1, { "b": null }] },
        "nothing": null,
        "": "an empty name",
        "größe": "ä",
        "quote\"and\\backslash\n": true,
        "Trace_Id": "not quite a field",
        "received_at": "2020-01-01T00:00:00Z",
    });
    for &kind in Kind::ALL {
        assert_eq!(Sent::with(kind, unknown.clone()).stored().get("attributes"), unknown, "{kind}");
    }
}

#[test]
fn a_record_without_unknown_fields_has_empty_attributes() {
    for &kind in Kind::ALL {
        for members in [json!({}), json!({ "attributes": {} }), json!({ "attributes": null })] {
            assert_eq!(Sent::with(kind, members).stored().get("attributes"), json!({}));
        }
    }
}

#[test]
fn a_number_keeps_every_digit() {
    let members =
        r#""big":123456789012345678901234567890,"exact":0.10,"far":1e400,"attributes":{"also":18446744073709551616}"#;
    let stored = Sent::with_text(Kind::Metrics, members).stored();
    assert_eq!(
        stored.row.json_text("attributes"),
        r#"{"also":18446744073709551616,"big":123456789012345678901234567890,"exact":0.10,"far":1e400}"#
    );
}

#[test]
fn a_sent_attributes_object_is_merged() {
    for &kind in Kind::ALL {
        let stored =
            Sent::with(kind, json!({ "attributes": { "region": "eu", "attributes": 1 }, "pod": "p-1" })).stored();
        assert_eq!(stored.get("attributes"), json!({ "region": "eu", "attributes": 1, "pod": "p-1" }));
    }
}

#[test]
fn sent_attributes_that_conflict_are_kept_whole() {
    let sent = json!({ "attributes": { "region": "eu", "pod": "p-1" }, "pod": "p-2" });
    for &kind in Kind::ALL {
        assert_eq!(Sent::with(kind, sent.clone()).stored().get("attributes"), sent);
    }
}

#[test]
fn attributes_that_are_no_object_are_kept_whole() {
    for value in [json!("text"), json!(7), json!([1, 2]), json!(false)] {
        let sent = json!({ "attributes": value, "pod": "p-1" });
        for &kind in Kind::ALL {
            assert_eq!(Sent::with(kind, sent.clone()).stored().get("attributes"), sent);
        }
    }
}

#[test]
fn many_names_on_both_sides_are_merged_in_no_time() {
    // Comparing these pairwise would take a hundred million comparisons for one message.
    let names = |prefix: &str| (0..10_000).map(|n| format!("\"{prefix}{n}\":0")).collect::<Vec<_>>().join(",");
    let members = format!("\"attributes\":{{{}}},{}", names("a"), names("b"));
    let attributes = Sent::with_text(Kind::Events, &members).stored().get("attributes");
    assert_eq!(attributes.as_object().map(serde_json::Map::len), Some(20_000));
}

#[test]
fn both_spellings_of_a_field_are_kept() {
    let stored = Sent::with(Kind::Errors, json!({ "trace_id": "snake", "traceId": "camel" })).stored();
    assert_eq!(stored.get("trace_id"), json!("snake"));
    assert_eq!(stored.get("attributes"), json!({ "traceId": "camel" }));
}

#[test]
fn a_field_of_another_kind_is_unknown_here() {
    let stored = Sent::with(Kind::Metrics, json!({ "execution_time": 7, "severity": "critical" })).stored();
    assert_eq!(stored.get("attributes"), json!({ "execution_time": 7, "severity": "critical" }));
}
