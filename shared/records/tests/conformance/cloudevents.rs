//! CloudEvents 1.0 in structured and binary mode.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use records::Kind;
use serde_json::{Value, json};

use crate::support::{Sent, minimal, now, time};

const STRUCTURED: &str = "application/cloudevents+json";

fn structured(kind: Kind, envelope: &Value) -> Sent {
    Sent::body(kind, envelope.to_string()).header("Content-Type", STRUCTURED)
}

fn binary(kind: Kind, headers: &[(&str, &str)], data: &Value) -> Sent {
    let sent = Sent::body(kind, data.to_string()).header("ce-specversion", "1.0");
    headers.iter().fold(sent, |sent, (name, value)| sent.header(name, value))
}

#[test]
fn a_structured_one_is_a_record_in_an_envelope() {
    for &kind in Kind::ALL {
        let stored = structured(
            kind,
            &json!({
                "specversion": "1.0", "id": "order-17", "time": "2026-06-15T11:00:00.5Z", "source": "/shop/orders",
                "type": "order.placed", "subject": "order/17", "datacontenttype": "application/json",
                "dataschema": "https://schemas.example/order", "traceparent": "00-4bf9", "priority": 3,
                "data": minimal(kind),
            }),
        )
        .stored();
        assert_eq!(stored.id, Sent::with(kind, json!({ "id": "order-17" })).stored().id);
        assert_eq!(stored.created_at, time("2026-06-15T11:00:00.5Z"));
        assert_eq!(stored.get("source"), json!("/shop/orders"));
        let mut rest = json!({
            "specversion": "1.0", "subject": "order/17", "datacontenttype": "application/json",
            "dataschema": "https://schemas.example/order", "traceparent": "00-4bf9", "priority": 3,
        });
        if kind == Kind::Events {
            assert_eq!(stored.get("event_type"), json!("order.placed"));
            rest["data"] = json!({ "event_type": minimal(kind)["event_type"] });
        } else {
            rest["type"] = json!("order.placed");
        }
        assert_eq!(stored.get("attributes"), json!({ "cloudevent": rest }), "{kind}: nothing is lost");
    }
}

#[test]
fn a_binary_one_has_its_envelope_in_headers() {
    for &kind in Kind::ALL {
        let stored = binary(
            kind,
            &[
                ("ce-id", "order-17"),
                ("Ce-Time", "2026-06-15T11:00:00.5Z"),
                ("CE-Source", "/shop/orders"),
                ("ce-type", "order.placed"),
                ("ce-subject", "order/17"),
                ("ce-Priority", "3"),
                ("Content-Type", "application/json; charset=utf-8"),
                ("Nats-Msg-Id", "order-17"),
            ],
            &Value::Object(minimal(kind)),
        )
        .stored();
        assert_eq!(stored.id, Sent::with(kind, json!({ "id": "order-17" })).stored().id);
        assert_eq!(stored.created_at, time("2026-06-15T11:00:00.5Z"));
        assert_eq!(stored.get("source"), json!("/shop/orders"));
        let mut rest = json!({
            "specversion": "1.0", "subject": "order/17", "priority": "3",
            "datacontenttype": "application/json; charset=utf-8",
        });
        if kind == Kind::Events {
            assert_eq!(stored.get("event_type"), json!("order.placed"));
            rest["data"] = json!({ "event_type": minimal(kind)["event_type"] });
        } else {
            rest["type"] = json!("order.placed");
        }
        assert_eq!(stored.get("attributes"), json!({ "cloudevent": rest }), "{kind}: nothing is lost");
    }
}

#[test]
fn an_event_needs_no_data_at_all() {
    let stored =
        structured(Kind::Events, &json!({ "specversion": "1.0", "id": "e-1", "source": "s", "type": "run.started" }))
            .stored();
    assert_eq!(stored.get("event_type"), json!("run.started"));
    assert_eq!(stored.created_at, now());
}

#[test]
fn what_the_envelope_leaves_open_the_data_says() {
    let data = json!({ "event_type": "e", "id": "inner", "timestamp": "2026-06-15T10:00:00Z", "source": "inner" });
    for envelope in [
        json!({ "specversion": "1.0", "data": data }),
        json!({ "specversion": "1.0", "id": null, "time": null, "source": null, "type": null, "data": data }),
    ] {
        let stored = structured(Kind::Events, &envelope).stored();
        assert_eq!(stored.id, Sent::with(Kind::Events, json!({ "id": "inner" })).stored().id);
        assert_eq!(stored.created_at, time("2026-06-15T10:00:00Z"), "{envelope}");
        assert_eq!((stored.get("source"), stored.get("event_type")), (json!("inner"), json!("e")));
    }
}

#[test]
fn what_the_envelope_overrides_is_kept() {
    for (name, value) in [
        ("created_at", json!("2026-06-15T10:00:00Z")),
        ("createdAt", json!("2026-06-15T10:00:00Z")),
        ("timestamp", json!("2026-06-15T10:00:00Z")),
        ("id", json!("inner")),
        ("source", json!("inner")),
        ("eventType", json!("inner")),
    ] {
        let stored = structured(
            Kind::Events,
            &json!({
                "specversion": "1.0", "id": "outer", "time": "2026-06-15T11:00:00Z", "source": "outer", "type": "outer",
                "data": { name: value },
            }),
        )
        .stored();
        assert_eq!(stored.created_at, time("2026-06-15T11:00:00Z"));
        assert_eq!((stored.get("source"), stored.get("event_type")), (json!("outer"), json!("outer")));
        assert_eq!(stored.get("attributes")["cloudevent"]["data"], json!({ name: value }));
    }
}

#[test]
fn agreeing_with_the_envelope_is_not_worth_keeping() {
    let stored = structured(
        Kind::Events,
        &json!({ "specversion": "1.0", "id": "e-1", "type": "e", "data": { "id": "e-1", "event_type": "e" } }),
    )
    .stored();
    assert_eq!(stored.get("attributes"), json!({ "cloudevent": { "specversion": "1.0" } }));
}

#[test]
fn a_member_called_cloudevent_is_kept_inside_ours() {
    let stored =
        structured(Kind::Events, &json!({ "specversion": "1.0", "type": "e", "data": { "cloudevent": [1], "x": 2 } }))
            .stored();
    assert_eq!(stored.get("attributes"), json!({ "cloudevent": { "specversion": "1.0", "cloudevent": [1] }, "x": 2 }));
}

#[test]
fn data_may_come_as_base64() {
    let data = STANDARD.encode(r#"{"container_id":"c-1","cpu_usage_percent":12.5}"#);
    for envelope in [
        json!({ "specversion": "1.0", "id": "m-1", "data_base64": data }),
        json!({ "specversion": "1.0", "id": "m-1", "data": null, "data_base64": data }),
    ] {
        let stored = structured(Kind::Metrics, &envelope).stored();
        assert_eq!((stored.get("container_id"), stored.get("cpu_usage_percent")), (json!("c-1"), json!(12.5)));
        assert_eq!(stored.get("attributes"), json!({ "cloudevent": { "specversion": "1.0" } }));
    }
    for bad in [json!("%%%"), json!(7), json!([])] {
        let sent = structured(Kind::Metrics, &json!({ "specversion": "1.0", "data_base64": bad }));
        assert_eq!(sent.refused(), "invalid_field:data_base64");
    }
}

#[test]
fn base64_beside_data_is_not_lost() {
    let stored = structured(
        Kind::Metrics,
        &json!({ "specversion": "1.0", "data": { "container_id": "c-1" }, "data_base64": "e30=" }),
    )
    .stored();
    assert_eq!(stored.get("attributes"), json!({ "cloudevent": { "specversion": "1.0", "data_base64": "e30=" } }));
}

#[test]
fn what_had_to_be_replaced_is_said_wherever_it_stood() {
    let nul = r#"{"container_id":"c\u0000"}"#;
    let in_base64 = json!({ "specversion": "1.0", "data_base64": STANDARD.encode(nul) });
    let bytes = STANDARD.encode(b"{\"container_id\":\"c\xff\"}");
    let bad_utf8 = json!({ "specversion": "1.0", "data_base64": bytes });
    for envelope in [in_base64, bad_utf8] {
        let stored = structured(Kind::Metrics, &envelope).stored();
        assert_eq!(stored.get("container_id"), json!("c\u{fffd}"));
        assert_eq!(stored.get("attributes")["sanitized"], json!(true), "{envelope}");
    }
    for source in ["a%00b", "a%FFb"] {
        let stored = binary(Kind::Metrics, &[("ce-source", source)], &json!({ "container_id": "c" })).stored();
        assert_eq!(stored.get("source"), json!("a\u{fffd}b"));
        assert_eq!(stored.get("attributes")["sanitized"], json!(true), "{source}");
    }
}

#[test]
fn headers_are_percent_decoded() {
    for (header, source) in [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("100%", "100%"),
        ("%4", "%4"),
        ("%zz%41", "%zzA"),
        ("%%41", "%A"),
        ("größe", "größe"),
        (r#"quote " and \u0000"#, r#"quote " and \u0000"#),
    ] {
        let stored = binary(Kind::Metrics, &[("ce-source", header)], &json!({ "container_id": "c" })).stored();
        assert_eq!(stored.get("source"), json!(source), "{header}");
        assert_eq!(stored.get("attributes"), json!({ "cloudevent": { "specversion": "1.0" } }), "{header}");
    }
}

#[test]
fn numbers_and_depth_survive_the_unwrapping() {
    let deep = "[".repeat(500) + &"]".repeat(500);
    let body = format!(
        r#"{{"specversion":"1.0","type":"e","data":{{"payload":{{"n":12345678901234567890123,"x":1.10}},"deep":{deep}}}}}"#
    );
    let stored = Sent::body(Kind::Events, body).header("content-type", STRUCTURED).stored();
    assert_eq!(stored.row.json_text("payload"), r#"{"n":12345678901234567890123,"x":1.10}"#);
    assert!(stored.row.json_text("attributes").contains(&deep));
}

#[test]
fn another_version_of_the_specification_is_refused() {
    for version in [json!("0.3"), json!("1.0.2"), json!("2.0"), json!(""), json!(1.0), Value::Null] {
        let sent = structured(Kind::Events, &json!({ "specversion": version, "type": "e", "data": {} }));
        assert_eq!(sent.refused(), "invalid_field:specversion", "{version}");
    }
    assert_eq!(structured(Kind::Events, &json!({ "type": "e", "data": {} })).refused(), "invalid_field:specversion");
    let sent = Sent::with(Kind::Events, json!({})).header("ce-specversion", "0.3");
    assert_eq!(sent.refused(), "invalid_field:specversion");
}

#[test]
fn data_that_is_no_object_is_refused() {
    for data in [json!("text"), json!([]), json!(3), json!(true)] {
        let sent = structured(Kind::Events, &json!({ "specversion": "1.0", "type": "e", "data": data }));
        assert_eq!(sent.refused(), "invalid_json:", "{data}");
        assert_eq!(binary(Kind::Events, &[("ce-type", "e")], &data).refused(), "invalid_json:", "{data}");
    }
    let base64 = structured(
        Kind::Events,
        &json!({ "specversion": "1.0", "type": "e", "data_base64": STANDARD.encode("<xml/>") }),
    );
    assert_eq!(base64.refused(), "invalid_json:");
    assert_eq!(Sent::body(Kind::Events, "[]").header("content-type", STRUCTURED).refused(), "invalid_json:");
}

#[test]
fn the_record_inside_is_held_to_the_contract() {
    for (envelope, refused) in [
        (json!({ "data": { "organization_id": "globex" } }), "organization_mismatch:organization_id"),
        (json!({ "time": "yesterday" }), "invalid_field:created_at"),
        (json!({ "time": "2001-01-01T00:00:00Z" }), "created_at_out_of_range:created_at"),
        (json!({ "id": "" }), "invalid_field:id"),
        (json!({ "type": "" }), "invalid_field:event_type"),
        (json!({ "type": null }), "missing_field:event_type"),
        (json!({ "data": { "payload": [] } }), "invalid_field:payload"),
    ] {
        let mut whole = json!({ "specversion": "1.0", "type": "e" });
        whole.as_object_mut().unwrap().extend(envelope.as_object().unwrap().clone());
        assert_eq!(structured(Kind::Events, &whole).refused(), refused, "{envelope}");
    }
}

#[test]
fn only_its_own_media_type_makes_a_message_structured() {
    let envelope = json!({ "specversion": "1.0", "type": "e", "data": {} });
    for media_type in [
        "application/cloudevents+json; charset=UTF-8",
        "Application/CloudEvents+JSON",
        " application/cloudevents+json ;x=y",
    ] {
        let sent = Sent::body(Kind::Events, envelope.to_string()).header("CONTENT-TYPE", media_type);
        assert_eq!(sent.stored().get("event_type"), json!("e"), "{media_type}");
    }
    for media_type in ["application/json", "application/cloudevents-batch+json", "application/cloudevents", ""] {
        let sent = Sent::body(Kind::Events, envelope.to_string()).header("content-type", media_type);
        assert_eq!(sent.refused(), "missing_field:event_type", "{media_type}");
        let plain = Sent::with(Kind::Events, json!({})).header("content-type", media_type);
        assert_eq!(plain.stored().get("attributes"), json!({}), "a plain record: {media_type}");
    }
}

#[test]
fn a_structured_one_without_the_header_is_recognized() {
    for &kind in Kind::ALL {
        let event = json!({
            "specversion": "1.0", "id": "order-17", "time": "2026-06-15T11:00:00Z", "source": "/shop", "type": "t",
            "traceparent": "00-4bf9", "data": minimal(kind),
        });
        let marked = structured(kind, &event).stored();
        assert_eq!(Sent::body(kind, event.to_string()).stored(), marked, "{kind}");
        let other = Sent::body(kind, event.to_string()).header("Content-Type", "application/json").stored();
        assert_eq!(other, marked, "{kind}: SDKs also call it plain JSON");
    }
    let encoded = json!({
        "specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data_base64": STANDARD.encode(r#"{"payload":{"a":1}}"#),
    });
    let stored = Sent::body(Kind::Events, encoded.to_string()).stored();
    assert_eq!((stored.get("event_type"), stored.get("payload")), (json!("t"), json!({ "a": 1 })));
}

#[test]
fn a_record_that_merely_has_such_fields_is_a_record() {
    for &kind in Kind::ALL {
        let such =
            json!({ "specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": { "event_type": "no" } });
        let stored = Sent::with(kind, such).stored();
        assert_eq!(stored.get("source"), json!("/s"), "{kind}");
        let kept = json!({ "specversion": "1.0", "type": "t", "data": { "event_type": "no" } });
        assert_eq!(stored.get("attributes"), kept, "{kind}");
    }
    // Without a required attribute, or with a member that no event may have, it is a record that lacks a field.
    for body in [
        json!({ "specversion": "1.0", "id": "1", "source": "/s" }),
        json!({ "id": "1", "source": "/s", "type": "t", "data": { "event_type": "x" } }),
        json!({ "specversion": "1.0", "id": "", "source": "/s", "type": "t" }),
        json!({ "specversion": 1.0, "id": "1", "source": "/s", "type": "t" }),
        json!({ "specversion": "1.0", "id": "1", "source": "/s", "type": "t", "run_id": "r" }),
    ] {
        assert!(Sent::body(Kind::Events, body.to_string()).refused().ends_with("_type") || body["id"] == "", "{body}");
    }
}

#[test]
fn a_binary_one_may_have_no_data() {
    let sent = Sent::body(Kind::Events, "").header("ce-specversion", "1.0").header("ce-id", "1");
    let stored = sent.header("ce-source", "/s").header("ce-type", "order.placed").stored();
    assert_eq!((stored.get("event_type"), stored.get("payload")), (json!("order.placed"), json!({})));
}
