//! Every reason with which a decoder rejects messages.

use std::collections::BTreeSet;

use records::{Kind, Reason};
use serde_json::json;

use crate::support::{Sent, minimal};

/// Returns a message for each way of being rejected, with the expected `reason:field`.
fn refused(kind: Kind) -> Vec<(Sent, &'static str)> {
    vec![
        (Sent::body(kind, ""), "invalid_json:"),
        (Sent::body(kind, "null"), "invalid_json:"),
        (Sent::body(kind, "[{}]"), "invalid_json:"),
        (Sent::body(kind, "\"{}\""), "invalid_json:"),
        (Sent::body(kind, "{}{}"), "invalid_json:"),
        (Sent::body(kind, "{'a':1}"), "invalid_json:"),
        (Sent::body(kind, "{\"a\":1,}"), "invalid_json:"),
        (Sent::body(kind, "{\"a\":01}"), "invalid_json:"),
        (Sent::body(kind, "{\"a\":NaN}"), "invalid_json:"),
        (Sent::body(kind, "{\"a\":\"\n\"}"), "invalid_json:"),
        (Sent::body(kind, "{\"a\":\"\\x\"}"), "invalid_json:"),
        (Sent::body(kind, b"\x1f\x8b\x08\x00".as_slice()), "invalid_json:"),
        (Sent::with(kind, json!({ "source": 7 })), "invalid_field:source"),
        (Sent::with(kind, json!({ "source": "s".repeat(4097) })), "too_large:source"),
        (Sent::padded(kind, 1024 * 1024 + 1), "too_large:"),
        (Sent::with(kind, json!({ "organization_id": "globex" })), "organization_mismatch:organization_id"),
        (Sent::with(kind, json!({ "created_at": "2030-01-01T00:00:00Z" })), "created_at_out_of_range:created_at"),
        (Sent::with(kind, json!({})).subject("watchbook.nothing.acme.x"), "unknown_kind:"),
    ]
}

#[test]
fn every_kind_refuses_for_every_common_reason() {
    for &kind in Kind::ALL {
        for (sent, reason) in refused(kind) {
            assert_eq!(sent.refused(), reason, "{kind}");
            sent.check();
        }
    }
}

#[test]
fn every_kind_misses_each_of_its_required_fields() {
    for &kind in Kind::ALL {
        let minimal = minimal(kind);
        for name in minimal.keys() {
            let mut record = minimal.clone();
            record.remove(name);
            let sent = Sent::body(kind, serde_json::Value::Object(record).to_string());
            assert_eq!(sent.refused(), format!("missing_field:{name}"), "{kind}");
            assert_eq!(Sent::with(kind, json!({ name: null })).refused(), format!("missing_field:{name}"), "{kind}");
        }
    }
}

#[test]
fn the_reasons_are_the_contracts() {
    let names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(
        names,
        [
            "invalid_json",
            "missing_field",
            "invalid_field",
            "too_large",
            "organization_mismatch",
            "created_at_out_of_range",
            "unknown_kind",
            "rejected_by_database"
        ]
    );
    let mut given: BTreeSet<_> =
        refused(Kind::Events).into_iter().map(|(sent, _)| sent.encode().unwrap_err().reason).collect();
    given.insert(Sent::body(Kind::Events, "{}").encode().unwrap_err().reason);
    given.insert(Reason::RejectedByDatabase); // only the database rejects with this reason
    assert_eq!(given.into_iter().collect::<BTreeSet<_>>(), Reason::ALL.into_iter().collect());
}

#[test]
fn a_refusal_never_quotes_more_than_a_few_words_of_the_body() {
    let secret = "hunter2".repeat(1000);
    for &kind in Kind::ALL {
        for body in [
            format!("\"{secret}\""),
            format!("[\"{secret}\"]"),
            format!("{{\"{secret}\"}}"),
            format!("{{\"source\":[\"{secret}\"]}}"),
            format!("{{\"organization_id\":\"{secret}\"}}"),
            format!("{{\"id\":\"{secret}\"}}"),
            format!("{{\"created_at\":\"{secret}\"}}"),
        ] {
            let reject = Sent::body(kind, body).encode().unwrap_err();
            assert!(reject.to_string().matches("hunter2").count() <= 6, "{reject}");
        }
    }
}

#[test]
fn a_refusal_reads_as_reason_field_and_words() {
    let reject = Sent::with(Kind::Metrics, json!({ "memory_usage_bytes": -1 })).encode().unwrap_err();
    assert_eq!(reject.to_string(), "invalid_field: memory_usage_bytes: -1 is less than 0");
}
