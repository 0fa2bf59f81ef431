//! Batches of any number of records, any size and any days.

use async_nats::HeaderMap;
use chrono::{DateTime, Days, NaiveTime, TimeDelta, Utc};
use harness::messages::{MARKER, event, event_with, id, record, time};
use records::Kind;
use serde_json::{Value, json};

use crate::world;

/// The partition of each event, by record number.
const EVENTS_AND_PARTITIONS: &str =
    "SELECT (attributes->>'n')::int, (SELECT relname::text FROM pg_class WHERE oid = event_logs.tableoid)
       FROM watchbook.event_logs ORDER BY 1";

#[tokio::test]
async fn a_record_of_any_accepted_time_finds_its_partition() {
    let world = world().start().await;
    let worker = world.workers("events,audit").await;
    let midnight = (Utc::now() - TimeDelta::days(7)).with_time(NaiveTime::MIN).unwrap();
    let times: Vec<DateTime<Utc>> = (0..29)
        .map(|days| Utc::now() - Days::new(days))
        .chain([midnight, midnight - TimeDelta::microseconds(1), Utc::now() + TimeDelta::hours(23)])
        .collect();
    let bodies = (0..).zip(&times).map(|(n, at)| event_with(n, json!({ "created_at": time(*at) })));
    world.publish_all(Kind::Events, bodies).await;
    // Audit events are kept forever, in monthly partitions, so a batch of them can need many.
    let years = (0..36).map(|n| {
        let mut body = record(Kind::Audit, n);
        body["created_at"] = time(Utc::now() - TimeDelta::days(30 * n as i64)).into();
        body
    });
    world.publish_all(Kind::Audit, years).await;
    world.settled_as(Kind::Events, [times.len() as u64, 0, 0, 0]).await;
    world.settled_as(Kind::Audit, [36, 0, 0, 0]).await;

    let expected: Vec<_> =
        (0..).zip(&times).map(|(n, at)| (n, format!("event_logs_{}", at.format("%Y%m%d")))).collect();
    assert_eq!(world.query_all::<(i32, String)>(EVENTS_AND_PARTITIONS).await, expected);
    let misplaced = "SELECT count(*) FROM control_plane.audit_logs AS log JOIN pg_class ON pg_class.oid = log.tableoid
                      WHERE relname <> 'audit_logs_' || to_char(created_at AT TIME ZONE 'UTC', 'YYYYMM')";
    assert_eq!(world.count(misplaced).await, 0);
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_partition_that_was_dropped_meanwhile_is_made_again() {
    let world = world().start().await;
    let worker = world.workers("events").await;
    let at = Utc::now() - TimeDelta::days(3);
    let of_that_day = |n| event_with(n, json!({ "created_at": time(at) }));
    world.publish_all(Kind::Events, (0..10).map(of_that_day)).await;
    world.settled(Kind::Events).await;
    world.execute(&format!("DROP TABLE watchbook.event_logs_{}", at.format("%Y%m%d"))).await;
    world.rows_were_dropped();
    world.publish_all(Kind::Events, (0..30).map(of_that_day)).await;
    // The ten records that were dropped with the partition are new again.
    world.settled_as(Kind::Events, [40, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, 30).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_lone_record_and_batches_of_one_are_stored() {
    let world = world().with("WATCHBOOK_WRITER__BATCH_ROWS", 1).with("WATCHBOOK_WRITER__LANES", 1).start().await;
    let worker = world.workers("events").await;
    world.publish(Kind::Events, &event(0)).await;
    world.settled_as(Kind::Events, [1, 0, 0, 0]).await;
    world.publish_records(Kind::Events, 1..200).await;
    world.settled_as(Kind::Events, [200, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, 200).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn large_messages_are_cut_into_batches_by_their_bytes() {
    let world = world().with("WATCHBOOK_WRITER__MEMORY", "32MiB").start().await;
    let text = "x".repeat(200_000);
    let large = |n| event_with(n, json!({ "payload": { "text": text } }));
    // Each is larger than a tenth of what a lane may hold. Some become dead letters, which are stored whole as well.
    for round in 0..4 {
        world.publish_all(Kind::Events, (round * 25..(round + 1) * 25).map(large)).await;
        world.publish_bytes(Kind::Events, vec![b'x'; 1_000_000]).await;
    }
    let worker = world.workers("events").await;
    world.settled_as(Kind::Events, [100, 0, 4, 0]).await;
    world.holds_exactly(Kind::Events, 100).await;
    let kept = "SELECT count(*) FROM watchbook.dead_letters WHERE octet_length(payload) = 1000000";
    assert_eq!(world.count(kept).await, 4);
    let batches = world.count("SELECT count(DISTINCT xmin::text) FROM watchbook.event_logs").await;
    assert!(batches >= 4, "20 MB are more than one batch may hold, and came in {batches}");
    world.finish([worker]).await;
}

#[tokio::test]
async fn thousands_of_records_are_stored_in_few_transactions() {
    let world = world().start().await;
    world.publish_records(Kind::Events, 0..12_000).await;
    let worker = world.workers("events").await;
    world.settled_as(Kind::Events, [12_000, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, 12_000).await;
    let batches = world.count("SELECT count(DISTINCT xmin::text) FROM watchbook.event_logs").await;
    assert!(batches <= 60, "12,000 records that were all there came in {batches} transactions");
    world.finish([worker]).await;
}

#[tokio::test]
async fn what_postgres_cannot_hold_is_replaced_and_marked() {
    let world = world().start().await;
    let worker = world.workers("events,logs").await;
    world.publish_bytes(Kind::Events, r#"{"event_type":"a\u0000b","payload":{"x":"\u0000"},"n":0}"#).await;
    world.publish_bytes(Kind::Events, b"{\"event_type\":\"c\xff\",\"n\":1}".to_vec()).await;
    let mut line = record(Kind::Logs, 0);
    line["message"] = "é".repeat(10_000).into();
    world.publish(Kind::Logs, &line).await;
    world.settled_as(Kind::Events, [2, 0, 0, 0]).await;
    world.settled_as(Kind::Logs, [1, 0, 0, 0]).await;
    let events: Vec<(String, Value)> =
        world.query_all("SELECT event_type, attributes FROM watchbook.event_logs ORDER BY attributes->>'n'").await;
    assert_eq!(events[0], ("a\u{fffd}b".to_owned(), json!({ "n": 0, "sanitized": true })));
    assert_eq!(events[1], ("c\u{fffd}".to_owned(), json!({ "n": 1, "sanitized": true })));
    let (bytes, cut): (i32, i32) = world
        .query_one("SELECT octet_length(message), (attributes->>'truncated_bytes')::int FROM watchbook.container_logs")
        .await;
    assert_eq!((bytes, cut), (16 * 1024, 20_000 - 16 * 1024));
    world.finish([worker]).await;
}

#[tokio::test]
async fn cloud_events_are_the_records_that_they_carry() {
    let world = world().start().await;
    let worker = world.workers("events").await;
    let subject = world.subject(Kind::Events, "acme");
    let at = time(Utc::now() - TimeDelta::minutes(5));
    let mut structured = HeaderMap::new();
    structured.insert("Content-Type", "application/cloudevents+json");
    let body = json!({ "specversion": "1.0", "id": id(0), "source": "/ci", "type": "build.finished", "time": at,
                       "data": { "payload": { "text": MARKER }, "n": 0 } });
    world.try_publish_bytes(&subject, structured, body.to_string()).await.unwrap();
    let mut binary = HeaderMap::new();
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "17"),
        ("ce-source", "/ci"),
        ("ce-type", "build.started"),
        ("ce-time", &at),
    ];
    for (name, value) in headers {
        binary.insert(name, value);
    }
    world.try_publish_bytes(&subject, binary, json!({ "n": 1 }).to_string()).await.unwrap();
    world.settled_as(Kind::Events, [2, 0, 0, 0]).await;
    let stored: Vec<(String, DateTime<Utc>)> =
        world.query_all("SELECT event_type, created_at FROM watchbook.event_logs ORDER BY attributes->>'n'").await;
    let types: Vec<_> = stored.iter().map(|(event_type, _)| event_type.as_str()).collect();
    assert_eq!(types, ["build.finished", "build.started"]);
    assert!(stored.iter().all(|(_, created_at)| time(*created_at) == at), "{stored:?}, expected {at}");
    world.finish([worker]).await;
}
