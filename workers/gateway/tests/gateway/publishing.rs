//! Tests publishing: all records or none, each stored once.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytesize::ByteSize;
use chrono::TimeDelta;
use futures::future::join_all;
use gateway::auth::Role;
use harness::World;
use harness::messages::{event, record};
use records::Kind;
use runtime::Health;
use serde_json::{Value, json};
use store::Database;
use tokio_util::sync::CancellationToken;
use writer::{Settings as WriterSettings, Writer};

use crate::test_gateway::{TestGateway, settings};
use crate::tokens::{claims, of, sign};

const ROOM: ByteSize = ByteSize::mib(16);
const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

async fn gateway() -> TestGateway {
    let gateway = TestGateway::start().await;
    gateway.stream(Kind::Events, ROOM).await;
    gateway
}

#[tokio::test]
async fn one_many_and_lines_are_acknowledged() {
    let gateway = gateway().await;
    let token = of(Role::Producer);
    let one = gateway.post("/api/events", &token, &[], &event(1).to_string()).await;
    assert_eq!(one.status, 202, "{one:?}");
    assert_eq!(one.json(), json!({ "accepted": 1, "ids": [event(1)["id"]] }));
    let many = gateway.post("/api/events", &token, &[], &json!([event(2), event(3)]).to_string()).await;
    assert_eq!(many.json(), json!({ "accepted": 2, "ids": [event(2)["id"], event(3)["id"]] }));
    let lines: String = (4..2_004).map(|n| format!("{}\n", event(n))).collect();
    let lines = gateway.post("/api/events", &token, &[NDJSON], &lines).await;
    assert_eq!(lines.json()["accepted"], 2_000, "{lines:?}");
    assert_eq!(gateway.messages(Kind::Events).await, 2_003);
    gateway.finish().await;
}

#[tokio::test]
async fn every_kind_can_be_posted() {
    let gateway = TestGateway::start().await;
    for &kind in Kind::ALL {
        gateway.stream(kind, ROOM).await;
        let answer =
            gateway.post(&format!("/api/{kind}"), &of(Role::Producer), &[], &record(kind, 1).to_string()).await;
        assert_eq!(answer.status, 202, "{kind}: {answer:?}");
        assert_eq!(gateway.messages(kind).await, 1);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_bad_record_among_good_ones_publishes_nothing() {
    let mut settings = settings();
    settings.keep = Arc::new(BTreeMap::from([(Kind::Events, TimeDelta::days(30))]));
    let gateway = TestGateway::with(World::builder("no binary").without_setup().start().await, settings).await;
    gateway.stream(Kind::Events, ROOM).await;
    let bad = json!([
        event(1), {}, { "event_type": 7 }, 3,
        { "event_type": "x", "organization_id": "umbra" },
        { "event_type": "x", "created_at": "2001-01-01T00:00:00Z" },
        { "event_type": "x".repeat(300) }, event(2),
    ]);
    let problem = gateway.post("/api/events", &of(Role::Producer), &[], &bad.to_string()).await.problem(400);
    let named: Vec<_> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| (fault["index"].clone(), fault["field"].clone(), fault["code"].clone()))
        .collect();
    let expected = [
        (1, "event_type", "missing_field"),
        (2, "event_type", "invalid_field"),
        (3, "", "invalid_json"),
        (4, "organization_id", "organization_mismatch"),
        (5, "created_at", "created_at_out_of_range"),
        (6, "event_type", "too_large"),
    ];
    assert_eq!(named, expected.map(|(index, field, code)| (json!(index), json!(field), json!(code))));
    let lines = format!("{}\nnonsense\n", event(1));
    let problem = gateway.post("/api/events", &of(Role::Producer), &[NDJSON], &lines).await.problem(400);
    assert_eq!(problem["errors"][0]["index"], 1);
    assert_eq!(gateway.messages(Kind::Events).await, 0);
    gateway.finish().await;
}

#[tokio::test]
async fn bodies_that_cannot_be_are_refused() {
    let gateway = gateway().await;
    let token = of(Role::Producer);
    let good = event(1).to_string();
    for (headers, body, status) in [
        (vec![("content-type", "text/plain")], good.as_str(), 415),
        (vec![("content-type", "application/x-www-form-urlencoded")], &good, 415),
        (vec![("content-encoding", "br")], &good, 415),
        (vec![], "", 400),
        (vec![], "[]", 400),
        (vec![], "[{}", 400),
        (vec![NDJSON], "\n\n", 400),
        (vec![("idempotency-key", "")], &good, 400),
        (vec![("x-organization", "a.b")], &good, 400),
        (vec![], &" ".repeat(5 * 1024 * 1024), 413),
        (vec![NDJSON], &"{}\n".repeat(10_001), 413),
    ] {
        let answer = gateway.post("/api/events", &token, &headers, body).await;
        assert_eq!(answer.status.as_u16(), status, "{headers:?} {}", &body[..body.len().min(40)]);
        answer.problem(status);
    }
    assert_eq!(gateway.messages(Kind::Events).await, 0);
    gateway.finish().await;
}

#[tokio::test]
async fn the_organization_is_the_callers() {
    let gateway = gateway().await;
    let post = async |organizations: &[&str], header: Option<&str>| {
        let token = sign(&claims("producer", organizations));
        let headers: Vec<_> = header.map(|header| ("x-organization", header)).into_iter().collect();
        gateway.post("/api/events", &token, &headers, r#"{"event_type":"x"}"#).await.status.as_u16()
    };
    assert_eq!(post(&["acme"], None).await, 202);
    assert_eq!(post(&["acme", "umbra"], Some("umbra")).await, 202);
    assert_eq!(post(&["*"], Some("globex")).await, 202);
    assert_eq!(post(&["*"], None).await, 202);
    assert_eq!(post(&["acme", "umbra"], None).await, 400);
    assert_eq!(post(&["acme"], Some("umbra")).await, 403);
    assert_eq!(post(&["acme"], Some("_")).await, 403);
    assert_eq!(post(&[], None).await, 403);
    let mut organizations = Vec::new();
    for sequence in 1..=gateway.messages(Kind::Events).await {
        let message = gateway.bus.message(Kind::Events, sequence).await.unwrap().unwrap();
        organizations.push(message.subject.split('.').nth(2).unwrap().to_owned());
    }
    assert_eq!(organizations, ["acme", "umbra", "globex", "_"]);
    gateway.finish().await;
}

#[tokio::test]
async fn a_full_stream_refuses() {
    let gateway = TestGateway::start().await;
    gateway.stream(Kind::Events, ByteSize::kib(64)).await;
    let body = json!({ "event_type": "x", "payload": { "text": "x".repeat(100 * 1024) } }).to_string();
    let answer = gateway.post("/api/events", &of(Role::Producer), &[], &body).await;
    answer.problem(503);
    assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
    let missing = gateway.post("/api/audit", &of(Role::Producer), &[], &record(Kind::Audit, 1).to_string()).await;
    missing.problem(503);
    assert_eq!(gateway.messages(Kind::Events).await, 0);
    gateway.finish().await;
}

#[tokio::test]
async fn while_nats_is_away_it_is_said_and_passes() {
    let world = World::builder("no binary").without_setup().proxies().start().await;
    let url = format!("nats://127.0.0.1:{}", world.nats_link().port());
    let gateway = TestGateway::at(world, settings(), &url).await;
    gateway.stream(Kind::Events, ROOM).await;
    gateway.world.nats_link().cut();
    let token = of(Role::Producer);
    let answer = gateway.post("/api/events", &token, &[], &event(1).to_string()).await;
    answer.problem(503);
    assert!(answer.headers.contains_key("retry-after"));
    gateway.world.nats_link().restore();
    harness::eventually("records are taken again", async || {
        let answer = gateway.post("/api/events", &token, &[], &event(1).to_string()).await;
        if answer.status == 202 { Ok(()) } else { Err(answer.text) }
    })
    .await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_request_that_was_not_valid_is_mended_under_its_key() {
    let (gateway, token) = (gateway().await, of(Role::Producer));
    let post = async |body: &str| gateway.post("/api/events", &token, &[("idempotency-key", "one")], body).await;
    post(r#"[{"event_type":"x"},{"event_typo":"x"}]"#).await.problem(400);
    let mended = post(r#"[{"event_type":"x"},{"event_type":"y"}]"#).await;
    assert_eq!(mended.status, 202, "{mended:?}");
    assert_eq!(post(r#"[{"event_type":"x"},{"event_type":"y"}]"#).await.json(), mended.json());
    for another in [r#"{"event_typo":"x"}"#, r#"{"event_type":"x"}"#] {
        post(another).await.problem(422);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn the_same_request_sent_again_is_stored_once() {
    let gateway = gateway().await;
    let (health, stop) = (Health::default(), CancellationToken::new());
    let writer = Writer {
        kind: Kind::Events,
        bus: gateway.bus.clone(),
        database: Database::new(gateway.world.database_url(), "tests writer").unwrap(),
        settings: WriterSettings::of(&runtime::Config::default(), Kind::Events, 1),
        health: health.part("events"),
    };
    let writing = tokio::spawn(writer.run(stop.clone()));
    let token = of(Role::Producer);
    let body = json!([{ "event_type": "x" }, { "event_type": "x" }, event(7), { "event_type": "x", "id": "a name" }])
        .to_string();
    let post = async |key: &str| gateway.post("/api/events", &token, &[("idempotency-key", key)], &body).await;
    let answers = join_all((0..4).map(|_| post("one"))).await;
    let ids: Vec<Value> = answers.iter().map(|answer| answer.json()["ids"].clone()).collect();
    assert!(ids.iter().all(|each| *each == ids[0] && each.as_array().unwrap().len() == 4), "{ids:?}");
    let other = post("two").await.json()["ids"].clone();
    assert_ne!(other[0], ids[0][0]);
    assert_eq!(other[2], event(7)["id"], "a record's own id stays");
    let reused = gateway.post("/api/events", &token, &[("idempotency-key", "one")], r#"{"event_type":"y"}"#).await;
    reused.problem(422);
    let stranger = gateway.post("/api/events", &of(Role::Admin), &[("idempotency-key", "one")], &body).await;
    assert_ne!(stranger.json()["ids"][0], ids[0][0], "another caller's key is another key");
    // Two without an id, and one with a name but no time, for each of three keys; and one that is the same everywhere.
    let account = gateway.world.settled(Kind::Events).await;
    assert_eq!((account.last_sequence, account.stored), (24, 3 * 3 + 1), "{account:?}");
    stop.cancel();
    writing.await.unwrap();
    gateway.finish_written(&[Kind::Events]).await;
}
