//! What fields accept: spellings, nulls, defaults, numbers, addresses, lists.

use records::Kind;
use serde_json::{Map, Value, json};

use crate::support::property::camel_case;
use crate::support::{Sent, lines};

/// Returns every accepted fixture of every kind.
fn accepted() -> impl Iterator<Item = (Kind, Map<String, Value>)> {
    Kind::ALL.iter().flat_map(|&kind| {
        lines(kind.spec().fixtures.accepted).map(move |line| (kind, serde_json::from_str(line).unwrap()))
    })
}

#[test]
fn camel_case_means_the_same_as_snake_case() {
    for (kind, record) in accepted() {
        let camel: Map<_, _> = record
            .iter()
            .map(|(name, value)| {
                let known = kind.fields().any(|column| column == name);
                (if known { camel_case(name) } else { name.clone() }, value.clone())
            })
            .collect();
        let as_sent = Sent::body(kind, Value::Object(record).to_string());
        assert_eq!(Sent::body(kind, Value::Object(camel).to_string()).stored(), as_sent.stored());
    }
}

#[test]
fn null_means_absent() {
    for (kind, record) in accepted() {
        let mut nulls = record.clone();
        for name in kind.fields().filter(|name| *name != "received_at") {
            let camel = camel_case(name);
            if !record.contains_key(name) && !record.contains_key(&camel) {
                nulls.insert(camel, Value::Null);
            }
        }
        assert_eq!(
            Sent::body(kind, Value::Object(nulls).to_string()).stored(),
            Sent::body(kind, Value::Object(record).to_string()).stored()
        );
    }
}

#[test]
fn a_null_beside_the_other_spelling_hides_nothing() {
    let body = r#"{"trace_id":null,"traceId":"t-1","error_type":"E","message":"m"}"#;
    assert_eq!(Sent::body(Kind::Errors, body).stored().get("trace_id"), json!("t-1"));
}

#[test]
fn of_equal_names_the_last_one_counts() {
    let stored = Sent::body(Kind::Events, r#"{"event_type":"first","x":1,"event_type":"last","x":2}"#).stored();
    assert_eq!(stored.get("event_type"), json!("last"));
    assert_eq!(stored.get("attributes"), json!({ "x": 2 }));
    let stored = Sent::with_text(Kind::Audit, r#""reason":"first","reason":null"#).stored();
    assert_eq!(stored.get("reason"), Value::Null);
}

#[test]
fn names_may_be_written_with_escapes() {
    let stored = Sent::body(Kind::Events, r#"{"event\u005ftype":"a\u0062\n","payload":{"k":"\u00e9"}}"#).stored();
    assert_eq!(stored.get("event_type"), json!("ab\n"));
    assert_eq!(stored.get("payload"), json!({ "k": "é" }));
}

#[test]
fn white_space_around_and_inside_is_no_matter() {
    let stored = Sent::body(Kind::Events, " \r\n\t{ \"event_type\" :\n\"e\" , \"payload\" : { } }\n ").stored();
    assert_eq!((stored.get("event_type"), stored.get("payload")), (json!("e"), json!({})));
}

#[test]
fn defaults_stand_where_nothing_is_said() {
    for (kind, column, default) in [
        (Kind::Events, "payload", json!({})),
        (Kind::Events, "actor_type", json!("system")),
        (Kind::Errors, "severity", json!("error")),
        (Kind::Errors, "detail", Value::Null),
        (Kind::Metrics, "cpu_usage_percent", Value::Null),
        (Kind::Audit, "status", json!("SUCCESS")),
        (Kind::Audit, "metadata", json!({})),
        (Kind::Audit, "ip_address", Value::Null),
        (Kind::Executions, "timed_out", json!(false)),
        (Kind::Executions, "error_count", json!(0)),
        (Kind::Executions, "warning_count", json!(0)),
        (Kind::Executions, "classes_found", Value::Null),
        (Kind::Executions, "metadata", Value::Null),
        (Kind::Directory, "deleted", json!(false)),
    ] {
        assert_eq!(Sent::with(kind, json!({})).stored().get(column), default, "{kind} {column}");
    }
}

#[test]
fn integers_may_be_written_as_javascript_and_python_write_them() {
    for (text, value) in [
        ("3", json!(3)),
        ("3.0", json!(3)),
        ("3e2", json!(300)),
        ("-0", json!(0)),
        ("-0.0", json!(0)),
        ("9223372036854775807", json!(i64::MAX)),
        ("9007199254740991.0", json!(9_007_199_254_740_991_i64)),
    ] {
        let stored = Sent::with_text(Kind::Metrics, &format!("\"memory_usage_bytes\":{text}")).stored();
        assert_eq!(stored.get("memory_usage_bytes"), value, "{text}");
    }
    for text in
        ["-1", "0.5", "9223372036854775808", "1e300", "1e400", "9007199254740993.0", "\"3\"", "true", "[]", "{}"]
    {
        let sent = Sent::with_text(Kind::Metrics, &format!("\"memory_usage_bytes\":{text}"));
        assert_eq!(sent.refused(), "invalid_field:memory_usage_bytes", "{text}");
    }
}

#[test]
fn floats_are_the_nearest_double_and_never_less_than_zero() {
    for (text, value) in [
        ("0", 0.0),
        ("-0.0", 0.0),
        ("412.5", 412.5),
        ("0.30000000000000004", 0.1 + 0.2),
        ("1e-400", 0.0),
        ("123456789.12345678", 123_456_789.123_456_78),
        ("1.7976931348623157e308", f64::MAX),
    ] {
        let stored = Sent::with_text(Kind::Metrics, &format!("\"cpu_usage_percent\":{text}")).stored();
        assert_eq!(stored.get("cpu_usage_percent").as_f64(), Some(value), "{text}");
    }
    for text in ["-0.1", "1e309", "-1e309", "\"1\"", "\"NaN\"", "true"] {
        let sent = Sent::with_text(Kind::Metrics, &format!("\"cpu_usage_percent\":{text}"));
        assert_eq!(sent.refused(), "invalid_field:cpu_usage_percent", "{text}");
    }
    let negative = Sent::with(Kind::Executions, json!({ "cpu_usage_percent": -1.5, "memory_used_mb": -1 })).stored();
    assert_eq!(negative.get("cpu_usage_percent"), json!(-1.5), "the contract bounds these for metrics alone");
}

#[test]
fn a_system_actor_is_called_system() {
    for (actor_id, actor_type, stored_as) in [
        ("system", Some("system"), Ok("system")),
        ("system", None, Ok("system")),
        ("system", Some("user"), Ok("user")),
        ("usr_42", None, Ok("user")),
        ("usr_42", Some("api_key"), Ok("api_key")),
        ("usr_42", Some("system"), Err("invalid_field:actor_id")),
        ("System", Some("system"), Err("invalid_field:actor_id")),
    ] {
        let sent = Sent::with(Kind::Audit, json!({ "actor_id": actor_id, "actor_type": actor_type }));
        match stored_as {
            Ok(stored_as) => assert_eq!(sent.stored().get("actor_type"), json!(stored_as)),
            Err(refused) => assert_eq!(sent.refused(), refused),
        }
    }
    let event = Sent::with(Kind::Events, json!({ "actor_type": "system", "actor_id": "scheduler" })).stored();
    assert_eq!(event.get("actor_id"), json!("scheduler"), "the rule is audit's alone");
}

#[test]
fn addresses_are_ipv4_or_ipv6_with_or_without_a_length() {
    for (text, stored_as) in [
        ("203.0.113.7", "203.0.113.7/32"),
        ("10.1.2.3/16", "10.1.2.3/16"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:db8::1", "2001:db8::1/128"),
        ("2001:DB8:0:0:0:0:0:1/64", "2001:db8::1/64"),
        ("::", "::/128"),
        ("::ffff:192.0.2.128", "192.0.2.128/32"),
        ("[::1]", "::1/128"),
        (" 1.2.3.4", "1.2.3.4/32"),
    ] {
        let stored = Sent::with(Kind::Audit, json!({ "ip_address": text })).stored();
        assert_eq!(stored.get("ip_address"), json!(stored_as), "{text}");
        assert_eq!(stored.get("attributes"), json!({}), "{text}");
    }
    for text in [
        "localhost",
        "1.2.3",
        "1.2.3.4.5",
        "300.1.1.1",
        "1.2.3.4/33",
        "1.2.3.4/",
        "1.2.3.4/-1",
        "1.2.3.4/+8",
        "::1/129",
        "1.2.3.4:65536",
        "010.1.2.3",
    ] {
        let sent = Sent::with(Kind::Audit, json!({ "ip_address": text }));
        assert_eq!(sent.refused(), "invalid_field:ip_address", "{text:?}");
    }
}

#[test]
fn what_stands_beside_an_address_is_kept_in_attributes() {
    for (text, stored_as) in [
        ("1.2.3.4:8080", json!("1.2.3.4/32")),
        ("[2001:db8::1]:443", json!("2001:db8::1/128")),
        ("fe80::1%eth0", json!("fe80::1/128")),
        ("1.2.3.4, 5.6.7.8", json!("1.2.3.4/32")),
        ("", Value::Null),
        ("unknown", Value::Null),
    ] {
        for name in ["ip_address", "ipAddress"] {
            let stored = Sent::with(Kind::Audit, json!({ name: text })).stored();
            assert_eq!(stored.get("ip_address"), stored_as, "{text}");
            assert_eq!(stored.get("attributes"), json!({ "ip_address": text }), "{text}");
        }
    }
    let long = vec!["2001:db8::1"; 100].join(", ");
    let stored = Sent::with(Kind::Audit, json!({ "ip_address": long })).stored();
    assert_eq!(stored.get("ip_address"), json!("2001:db8::1/128"), "a list may be longer than an id");
    let beside = json!({ "ip_address": "1.2.3.4:80", "attributes": { "ip_address": "5.6.7.8", "a": 1 } });
    let stored = Sent::with(Kind::Audit, beside).stored();
    let both = json!({ "attributes": { "ip_address": "5.6.7.8", "a": 1 }, "ip_address": "1.2.3.4:80" });
    assert_eq!(stored.get("attributes"), both, "neither hides the other");
}

#[test]
fn words_of_closed_lists_stand_in_any_case() {
    for (kind, field, word, stored_as) in [
        (Kind::Audit, "status", "success", "SUCCESS"),
        (Kind::Audit, "status", "Failure", "FAILURE"),
        (Kind::Audit, "actor_type", "API_KEY", "api_key"),
        (Kind::Events, "actor_type", "User", "user"),
        (Kind::Errors, "severity", "CRITICAL", "critical"),
        (Kind::Logs, "stream", "STDERR", "stderr"),
        (Kind::Executions, "execution_type", "validation", "VALIDATION"),
        (Kind::Directory, "entity", "Project", "project"),
    ] {
        let stored = Sent::with(kind, json!({ field: word })).stored();
        assert_eq!(stored.get(field), json!(stored_as), "{kind} {word}");
        assert_eq!(stored.get("attributes"), json!({}), "{kind} {word}: the same word");
    }
    assert!(Sent::with(Kind::Audit, json!({ "status": "failure" })).stored().failed, "and counts as it is stored");
    for (kind, field, word) in [
        (Kind::Audit, "status", "OK"),
        (Kind::Errors, "severity", "debug"),
        (Kind::Errors, "severity", "warnings"),
        (Kind::Logs, "stream", "out"),
        (Kind::Executions, "execution_type", ""),
        (Kind::Directory, "entity", "usér"),
    ] {
        assert_eq!(Sent::with(kind, json!({ field: word })).refused(), format!("invalid_field:{field}"), "{word}");
    }
}

#[test]
fn severities_are_known_by_their_usual_names() {
    for (word, stored_as) in [
        ("warn", "warning"),
        ("WARN", "warning"),
        ("info", "warning"),
        ("err", "error"),
        ("fatal", "critical"),
        ("panic", "critical"),
        ("crit", "critical"),
        ("Emergency", "critical"),
    ] {
        let stored = Sent::with(Kind::Errors, json!({ "severity": word })).stored();
        assert_eq!(stored.get("severity"), json!(stored_as), "{word}");
        assert_eq!(stored.get("attributes"), json!({ "severity": word }), "{word}");
        assert_eq!(stored.failed, stored_as != "warning", "{word}");
    }
}

#[test]
fn classes_found_come_as_a_list_or_as_one_text() {
    for (sent, stored_as) in [
        (json!(["A", "B"]), json!(["A", "B"])),
        (json!("A,B"), json!(["A", "B"])),
        (json!(" A , ,B, "), json!(["A", "B"])),
        (json!("A"), json!(["A"])),
        (json!(["A, B", "", " c "]), json!(["A, B", "", " c "])),
        (json!([]), json!([])),
        (json!(""), json!([])),
        (Value::Null, Value::Null),
    ] {
        let stored = Sent::with(Kind::Executions, json!({ "classes_found": sent })).stored();
        assert_eq!(stored.get("classes_found"), stored_as, "{sent}");
    }
}

#[test]
fn executions_know_their_older_names() {
    for (alias, name, value) in [
        ("execution_time", "execution_time_ms", json!(87)),
        ("memory_used", "memory_used_mb", json!(64)),
        ("cpu_usage", "cpu_usage_percent", json!(12.5)),
    ] {
        for alias in [alias.to_owned(), camel_case(alias)] {
            let stored = Sent::with(Kind::Executions, json!({ alias.as_str(): value, name: null })).stored();
            assert_eq!(stored.get(name), value, "{alias} beside a null {name}");
            assert_eq!(stored.get("attributes"), json!({}));

            let stored = Sent::with(Kind::Executions, json!({ alias.as_str(): 1, name: value })).stored();
            assert_eq!(stored.get(name), value, "{name} before {alias}");
            assert_eq!(stored.get("attributes"), json!({ alias.as_str(): 1 }), "nothing is lost");
        }
    }
}

#[test]
fn failures_are_marked_for_the_roll_ups() {
    for (kind, members, failed) in [
        (Kind::Executions, json!({ "success": true }), false),
        (Kind::Executions, json!({ "success": false }), true),
        (Kind::Audit, json!({ "status": "SUCCESS" }), false),
        (Kind::Audit, json!({ "status": "FAILURE" }), true),
        (Kind::Errors, json!({ "severity": "warning" }), false),
        (Kind::Errors, json!({ "severity": "error" }), true),
        (Kind::Errors, json!({ "severity": "critical" }), true),
        (Kind::Events, json!({ "event_type": "run.failed" }), false),
        (Kind::Metrics, json!({}), false),
        (Kind::Logs, json!({ "stream": "stderr" }), false),
        (Kind::Directory, json!({ "deleted": true }), false),
    ] {
        assert_eq!(Sent::with(kind, members.clone()).stored().failed, failed, "{kind} {members}");
    }
}
