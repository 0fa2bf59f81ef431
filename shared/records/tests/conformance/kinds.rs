//! The specifications of kinds, and the typed records that producers publish.

use std::collections::BTreeSet;

use records::audit::Address;
use records::{
    AuditRecord, Entity, ErrorRecord, Event, Execution, Json, Kind, LogLine, MetricSample, Outgoing, Record,
};
use serde_json::{Map, json};
use uuid::Uuid;

use crate::support::{Sent, Stored, time};

#[test]
fn names_and_tables_are_the_contracts() {
    let tables: Vec<_> = Kind::ALL.iter().map(|kind| (kind.name(), kind.spec().table)).collect();
    for named in [
        ("events", "watchbook.event_logs"),
        ("errors", "watchbook.error_logs"),
        ("metrics", "watchbook.container_metrics"),
        ("logs", "watchbook.container_logs"),
        ("audit", "control_plane.audit_logs"),
        ("executions", "watchbook.sandbox_execution_logs"),
        ("directory", "watchbook.entities"),
    ] {
        assert!(tables.contains(&named), "{named:?}");
    }
    for &kind in Kind::ALL {
        assert_eq!(kind.name().parse::<Kind>().unwrap(), kind);
    }
    assert!("nothing".parse::<Kind>().unwrap_err().to_string().contains("events, errors"));
}

#[test]
fn no_column_is_filled_twice() {
    for &kind in Kind::ALL {
        let names: BTreeSet<_> = kind.columns().collect();
        assert_eq!(names.len(), kind.columns().count(), "{kind}");
    }
}

/// Publishes a typed record as a producer does, and reads its row.
fn published<R: Record>(record: R) -> Stored {
    let out = Outgoing {
        id: Uuid::from_u128(7),
        created_at: time("2026-06-15T11:59:59.123456789Z"),
        source: Some("test".to_owned()),
        attributes: Map::from_iter([("region".to_owned(), json!("eu"))]),
        record,
    };
    let stored = Sent::body(R::KIND, serde_json::to_vec(&out).unwrap()).stored();
    assert_eq!(stored.id, out.id);
    assert_eq!(stored.get("created_at"), json!("2026-06-15T11:59:59.123456Z"));
    assert_eq!(stored.get("source"), json!("test"));
    assert_eq!(stored.get("attributes"), json!({ "region": "eu" }), "every field of the type is one of the contract");
    stored
}

#[test]
fn what_the_types_publish_is_stored_field_by_field() {
    let event = published(Event {
        event_type: "build.finished".into(),
        payload: Json::of(&json!({ "ms": 7 })).unwrap(),
        ..Event::default()
    });
    assert_eq!((event.get("event_type"), event.get("payload")), (json!("build.finished"), json!({ "ms": 7 })));

    let error = published(ErrorRecord {
        trace_id: "t-1".into(),
        error_type: "TimeoutError".into(),
        message: "too late".into(),
        detail: Some(Json::default()),
        ..ErrorRecord::default()
    });
    assert_eq!((error.get("severity"), error.get("detail")), (json!("error"), json!({})));

    let sample = published(MetricSample {
        container_id: "c-1".into(),
        cpu_usage_percent: Some(212.5),
        memory_usage_bytes: Some(i64::MAX),
        ..MetricSample::default()
    });
    assert_eq!((sample.get("cpu_usage_percent"), sample.get("memory_usage_bytes")), (json!(212.5), json!(i64::MAX)));

    let line = published(LogLine { container_id: "c-1".into(), message: "ready".into(), ..LogLine::default() });
    assert_eq!((line.get("stream"), line.get("message")), (json!("stdout"), json!("ready")));

    let audit = published(AuditRecord {
        actor_id: "system".into(),
        action: "retention.run".into(),
        target_type: "table".into(),
        target_id: "event_logs".into(),
        ip_address: Some(Address::from(std::net::IpAddr::from([192, 0, 2, 1]))),
        ..AuditRecord::default()
    });
    assert_eq!((audit.get("actor_type"), audit.get("ip_address")), (json!("system"), json!("192.0.2.1/32")));

    let execution = published(Execution {
        user_id: "usr_42".into(),
        strategy_id: "str_1".into(),
        execution_time_ms: 12,
        classes_found: Some(vec!["A".to_owned(), "B,C".to_owned()]),
        ..Execution::default()
    });
    assert!(execution.failed, "a success has to be said");
    assert_eq!(execution.get("classes_found"), json!(["A", "B,C"]));

    let entity = published(Entity { entity_id: "usr_42".into(), name: Some("Ada".into()), ..Entity::default() });
    assert_eq!((entity.get("entity"), entity.get("name")), (json!("user"), json!("Ada")));
}
