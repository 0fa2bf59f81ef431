//! Every limit: values at the limit and one above.

use records::Kind;
use serde_json::{Value, json};

use crate::support::Sent;

/// Returns the fields of a kind whose schema has a keyword, with its value.
fn fields_with(kind: Kind, keyword: &str) -> Vec<(String, Value)> {
    let schema = kind.schema();
    let properties = schema["properties"].as_object().unwrap();
    properties.iter().filter_map(|(name, property)| Some((name.clone(), property.get(keyword)?.clone()))).collect()
}

#[test]
fn texts_end_where_the_contract_says() {
    for &kind in Kind::ALL {
        for (name, limit) in fields_with(kind, "maxLength") {
            let limit = usize::try_from(limit.as_u64().unwrap()).unwrap();
            let is_name = name == "id" || name.ends_with("_id") || name.ends_with("_type") || name == "action";
            let contract = match name.as_str() {
                _ if is_name => 256,
                "stack" => 64 * 1024,
                _ => 4 * 1024,
            };
            assert_eq!(limit, contract, "{kind} {name}");
            Sent::with(kind, json!({ &name: "x".repeat(limit) })).stored();
            let too_large = format!("too_large:{name}");
            assert_eq!(Sent::with(kind, json!({ &name: "x".repeat(limit + 1) })).refused(), too_large, "{kind}");
            assert_eq!(
                Sent::with(kind, json!({ &name: "ä".repeat(limit / 2 + 1) })).refused(),
                too_large,
                "{kind}: bytes, not characters"
            );
            // An escape has six bytes on the wire and one in the row.
            let escaped = format!("\"{name}\":\"{}\"", "\\u0078".repeat(limit));
            let stored = Sent::with_text(kind, &escaped).stored();
            assert!(name == "id" || stored.get(&name) == json!("x".repeat(limit)), "{kind} {name}");
        }
    }
}

#[test]
fn every_text_has_a_limit() {
    for &kind in Kind::ALL {
        let schema = kind.schema();
        for (name, property) in schema["properties"].as_object().unwrap() {
            let is_text = property["type"] == "string" || property["type"] == json!(["string", "null"]);
            let bounded = ["maxLength", "pattern", "format"].iter().any(|keyword| property.get(keyword).is_some());
            let is_cut = kind == Kind::Logs && name == "message";
            assert!(!is_text || bounded || is_cut, "{kind} {name}");
        }
    }
}

/// Returns a JSON object of exactly `bytes` bytes.
fn object_of(bytes: usize) -> String {
    format!("{{\"k\":\"{}\"}}", "v".repeat(bytes - r#"{"k":""}"#.len()))
}

#[test]
fn json_objects_end_at_256_kib() {
    let limit = 256 * 1024;
    for &kind in Kind::ALL {
        for (name, kinds) in fields_with(kind, "type") {
            if kinds != json!("object") && kinds != json!(["object", "null"]) {
                continue;
            }
            let sent = |bytes| Sent::with_text(kind, &format!("\"{name}\":{}", object_of(bytes)));
            assert_eq!(sent(limit).stored().row.json_text(&name).len(), limit);
            assert_eq!(sent(limit + 1).refused(), format!("too_large:{name}"));
        }
    }
}

#[test]
fn attributes_end_at_256_kib_wherever_they_come_from() {
    let limit = 256 * 1024;
    for &kind in Kind::ALL {
        let unknown = |bytes| {
            let object = object_of(bytes);
            Sent::with_text(kind, &object[1..object.len() - 1])
        };
        assert_eq!(unknown(limit).stored().row.json_text("attributes").len(), limit);
        assert_eq!(unknown(limit + 1).refused(), "too_large:attributes");

        let sent = |bytes| Sent::with_text(kind, &format!("\"attributes\":{}", object_of(bytes)));
        assert_eq!(sent(limit).stored().row.json_text("attributes").len(), limit);
        assert_eq!(sent(limit + 1).refused(), "too_large:attributes");
    }
}

#[test]
fn a_message_ends_at_1_mib() {
    for &kind in Kind::ALL {
        Sent::padded(kind, 1024 * 1024).stored();
        let reject = Sent::padded(kind, 1024 * 1024 + 1).encode().unwrap_err();
        assert_eq!((reject.reason.name(), reject.field), ("too_large", None));
    }
}

#[test]
fn a_list_of_classes_ends_at_4096() {
    let list = |count: usize| Sent::with(Kind::Executions, json!({ "classes_found": vec!["C"; count] }));
    assert_eq!(list(4096).stored().get("classes_found").as_array().map(Vec::len), Some(4096));
    assert_eq!(list(4097).refused(), "too_large:classes_found");
    let text = |count: usize| Sent::with(Kind::Executions, json!({ "classes_found": vec!["C"; count].join(",") }));
    assert_eq!(text(4096).stored().get("classes_found").as_array().map(Vec::len), Some(4096));
    assert_eq!(text(4097).refused(), "too_large:classes_found");
}

#[test]
fn a_log_line_is_cut_at_a_character_and_says_by_how_much() {
    let limit = 16 * 1024;
    for (message, kept, truncated) in [
        ("x".repeat(limit), limit, None),
        ("x".repeat(limit + 1), limit, Some(1)),
        ("x".repeat(limit - 1) + "ä", limit - 1, Some(2)),
        ("x".repeat(limit - 2) + "ä", limit, None),
        ("x".repeat(limit - 3) + "😀!", limit - 3, Some(5)),
        ("😀".repeat(200_000), limit, Some(800_000 - limit)),
    ] {
        let attributes = truncated.map_or(json!({}), |bytes| json!({ "truncated_bytes": bytes }));
        let plain = Sent::with(Kind::Logs, json!({ "message": message })).stored();
        assert_eq!(plain.get("message"), json!(message[..kept]));
        assert_eq!(plain.get("attributes"), attributes);

        if message.len() < 2 * limit {
            let escapes: String = message.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            let escaped = Sent::with_text(Kind::Logs, &format!("\"message\":\"{escapes}\"")).stored();
            assert_eq!(escaped.row, plain.row, "escapes make no difference");
        }
    }
}

/// Returns the JSON columns of a kind.
fn json_columns(kind: Kind) -> Vec<String> {
    let schema = kind.schema();
    let properties = schema["properties"].as_object().unwrap();
    let is_object = |property: &Value| property["type"] == "object" || property["type"] == json!(["object", "null"]);
    let objects = properties.iter().filter(|(_, property)| is_object(property)).map(|(name, _)| name.clone());
    objects.chain(["attributes".to_owned()]).collect()
}

#[test]
fn numbers_that_postgres_cannot_hold_are_refused_by_name() {
    let digits = "7".repeat(200_000);
    for &kind in Kind::ALL {
        for column in json_columns(kind) {
            for number in ["1e200000", "-1e131072", "1e-20000", digits.as_str()] {
                let sent = Sent::with_text(kind, &format!("\"{column}\":{{\"a\":[{{\"b\":{number}}}]}}"));
                assert_eq!(sent.refused(), format!("invalid_field:{column}"), "{kind} {number:.9}");
                sent.check();
            }
        }
        let unknown = Sent::with_text(kind, "\"unknown\":1e200000");
        assert_eq!(unknown.refused(), "invalid_field:attributes", "{kind}");
    }
}

#[test]
fn numbers_written_out_stay_within_the_limit_of_a_column() {
    for &kind in Kind::ALL {
        for column in json_columns(kind) {
            let numbers = |count: usize, number: &str| {
                let list = vec![number; count].join(",");
                Sent::with_text(kind, &format!("\"{column}\":{{\"a\":[{list}]}}"))
            };
            numbers(2, "1e131000").stored();
            assert_eq!(numbers(2_000, "1e131000").refused(), format!("too_large:{column}"), "{kind}");
            assert_eq!(numbers(20, "1.5e-16000").refused(), format!("too_large:{column}"), "{kind}");
        }
    }
}

#[test]
fn json_is_nested_1000_levels_deep_at_most() {
    for &kind in Kind::ALL {
        for column in json_columns(kind) {
            let nested = |depth: usize| {
                let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
                Sent::with_text(kind, &format!("\"{column}\":{{\"a\":{open}{close}}}"))
            };
            nested(1_000).stored();
            assert_eq!(nested(1_001).refused(), format!("too_large:{column}"), "{kind}");
            assert_eq!(nested(100_000).refused(), format!("too_large:{column}"), "{kind}");
        }
    }
}
