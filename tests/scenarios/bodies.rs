//! Bodies as real services send them, from the subject to the row.

use std::io::Write;

use async_nats::HeaderMap;
use harness::World;
use harness::messages::record;
use records::Kind;
use serde_json::json;

use crate::world;

async fn publish_with(world: &World, kind: Kind, headers: &[(&str, &str)], body: Vec<u8>) {
    let mut map = HeaderMap::new();
    headers.iter().for_each(|(name, value)| map.insert(*name, *value));
    world.try_publish_bytes(&world.subject(kind, "acme"), map, body).await.unwrap();
}

async fn texts(world: &World, sql: &str) -> Vec<String> {
    world.query_all::<(String,)>(sql).await.into_iter().map(|(text,)| text).collect()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn compressed_marked_and_unmarked_bodies_become_rows() {
    let world = world().start().await;
    let worker = world.workers("events").await;
    let event = |n: u64| record(Kind::Events, n).to_string();
    let cloudevent = json!({ "specversion": "1.0", "id": "1", "source": "/shop", "type": "order.placed", "data": {} });
    publish_with(&world, Kind::Events, &[("Content-Encoding", "gzip")], gzip(event(1).as_bytes())).await;
    let zstd = zstd::encode_all(event(2).as_bytes(), 3).unwrap();
    publish_with(&world, Kind::Events, &[("Content-Encoding", "zstd")], zstd).await;
    publish_with(&world, Kind::Events, &[], format!("\u{feff}{}", event(3)).into_bytes()).await;
    publish_with(&world, Kind::Events, &[], cloudevent.to_string().into_bytes()).await;
    world.settled_as(Kind::Events, [4, 0, 0, 0]).await;

    let bomb = gzip(&vec![b' '; 64 * 1024 * 1024]);
    publish_with(&world, Kind::Events, &[("Content-Encoding", "gzip")], bomb).await;
    publish_with(&world, Kind::Events, &[], gzip(event(5).as_bytes())).await;
    publish_with(&world, Kind::Events, &[], Vec::new()).await;
    world.settled_as(Kind::Events, [4, 0, 3, 0]).await;
    let reasons =
        texts(&world, "SELECT reason || ': ' || detail FROM watchbook.dead_letters ORDER BY stream_seq").await;
    for (reason, words) in reasons.iter().zip(["too_large: unpacks", "invalid_json: ", "invalid_json: "]) {
        assert!(reason.starts_with(words), "{reason}");
    }
    assert!(reasons[1].contains("Content-Encoding: gzip") && reasons[2].contains("empty"), "{reasons:?}");
    world.finish([worker]).await;
}

/// Postgres refuses some of these values, and prints others a thousand times longer than they were sent. None of them
/// reaches Postgres.
#[tokio::test]
async fn json_that_postgres_cannot_hold_is_refused_before_it_is_asked() {
    let world = world().start().await;
    let worker = world.workers("events").await;
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let many = vec!["1e131000"; 2_000].join(",");
    for value in ["1e200000", &"7".repeat(200_000), &nested, &format!("[{many}]")] {
        let body = format!(r#"{{"event_type":"x","payload":{{"a":{value}}}}}"#);
        publish_with(&world, Kind::Events, &[], body.into_bytes()).await;
    }
    // The largest values that are accepted: Postgres prints as many bytes as the decoder expects.
    for value in ["1e131071", "1e-16383", &format!("{}{}", "[".repeat(999), "]".repeat(999))] {
        let body = format!(r#"{{"event_type":"x","payload":{{"a":{value}}}}}"#);
        publish_with(&world, Kind::Events, &[], body.into_bytes()).await;
    }
    world.settled_as(Kind::Events, [3, 0, 4, 0]).await;
    let reasons = texts(&world, "SELECT reason || ':' || field FROM watchbook.dead_letters ORDER BY stream_seq").await;
    assert_eq!(reasons, ["invalid_field:payload", "invalid_field:payload", "too_large:payload", "too_large:payload"]);
    let longest = texts(&world, "SELECT max(octet_length(payload::text))::text FROM watchbook.event_logs").await;
    assert_eq!(longest, ["131079"]);
    world.finish([worker]).await;
}

#[tokio::test]
async fn an_address_is_found_by_a_filter_however_it_was_written() {
    let world = world().start().await;
    let worker = world.workers("audit").await;
    for (n, address) in
        ["1.2.3.4", "1.2.3.4:8080", "::ffff:1.2.3.4", "1.2.3.4, 5.6.7.8", "unknown", ""].iter().enumerate()
    {
        let mut audit = record(Kind::Audit, n as u64);
        audit["ip_address"] = json!(address);
        world.publish(Kind::Audit, &audit).await;
    }
    world.settled_as(Kind::Audit, [6, 0, 0, 0]).await;
    let counts = texts(
        &world,
        "SELECT concat_ws(' ', host(ip_address), count(*), count(attributes->>'ip_address'))
         FROM control_plane.audit_logs GROUP BY ip_address ORDER BY 1",
    )
    .await;
    assert_eq!(counts, ["1.2.3.4 4 2", "2 2"]);
    world.finish([worker]).await;
}
