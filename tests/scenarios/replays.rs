//! `watchbook replay events`: publishes stored events again, in order.

use async_nats::jetstream::stream;
use chrono::{TimeDelta, Utc};
use futures::StreamExt;
use harness::messages::{event_with, id, time};
use harness::servers::start_nats;
use harness::{BOUND, Signal, World};
use records::Kind;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use store::partitions::{Partition, Partitions};

use crate::world;

/// A stream of another system, and its subject.
struct Elsewhere {
    name: String,
    subject: String,
}

impl Elsewhere {
    async fn of(world: &World, config: stream::Config) -> Self {
        let (name, subject) = (format!("ELSEWHERE_{}", world.name()), format!("elsewhere.{}", world.name()));
        let config = stream::Config { name: name.clone(), subjects: vec![subject.clone()], ..config };
        world.jetstream().create_stream(config).await.unwrap();
        Self { name, subject }
    }

    /// Returns all messages in order, with the time of their replay.
    async fn all(&self, world: &World) -> Vec<(Value, String)> {
        let mut stream = world.jetstream().get_stream(&self.name).await.unwrap();
        let state = stream.info().await.unwrap().state.clone();
        let mut all = Vec::new();
        for sequence in state.first_sequence.max(1)..=state.last_sequence {
            let message = stream.get_raw_message(sequence).await.unwrap();
            let replayed_at = message.headers.get("Watchbook-Replayed-At").unwrap().to_string();
            all.push((serde_json::from_slice(&message.payload).unwrap(), replayed_at));
        }
        all
    }

    async fn ids(&self, world: &World) -> Vec<Value> {
        self.all(world).await.into_iter().map(|(record, _)| record["id"].clone()).collect()
    }

    async fn finish(self, world: World, running: Vec<harness::Watchbook>) {
        world.jetstream().delete_stream(&self.name).await.unwrap();
        finish(world, running).await;
    }
}

/// Ends a world in which commands wrote audit events of their replays, which are stored as well.
async fn finish(world: World, running: Vec<harness::Watchbook>) {
    let worker = world.workers("audit").await;
    world.settled(Kind::Audit).await;
    world.finish(running.into_iter().chain([worker])).await;
}

fn ids(numbers: impl IntoIterator<Item = u64>) -> Vec<Value> {
    numbers.into_iter().map(|n| json!(id(n))).collect()
}

/// Returns a world with `count` stored events, alternately of two runs.
async fn stored(count: u64) -> (World, harness::Watchbook) {
    let world = world().start().await;
    let worker = world.workers("events").await;
    // Newest first: the order of a stream is not the order of `created_at`.
    let event = |n| event_with(n, json!({ "run_id": format!("run-{}", n % 2), "project_id": "p" }));
    world.publish_all(Kind::Events, (0..count).rev().map(event)).await;
    world.settled_as(Kind::Events, [count, 0, 0, 0]).await;
    (world, worker)
}

#[tokio::test]
async fn a_stream_gets_them_in_the_order_in_which_they_happened() {
    const EVENTS: u64 = 6_000;
    let (world, worker) = stored(EVENTS).await;
    // A stream that accepts atomic batches, and one that does not.
    for allow_atomic_publish in [true, false] {
        let elsewhere = Elsewhere::of(&world, stream::Config { allow_atomic_publish, ..Default::default() }).await;
        let replay = ["replay", "events", "--to", &elsewhere.subject, "--rate", "unlimited"];
        let tried = world.run(&[&replay[..], &["--dry-run", "--json"]].concat()).await;
        tried.succeeded().prints("all stored events: 6,000 events").prints(&elsewhere.name);
        assert_eq!((&tried.json()["events"], &tried.json()["published"]), (&json!(EVENTS), &json!(0)));
        assert_eq!(elsewhere.ids(&world).await, ids([]));

        let replayed = world.run(&[&replay[..], &["--json"]].concat()).await;
        replayed.succeeded().prints("6,000 events published");
        let summary = replayed.json();
        assert_eq!((&summary["published"], &summary["stopped"]), (&json!(EVENTS), &json!(false)));
        assert_eq!((&summary["stream"], &summary["last"]["id"]), (&json!(elsewhere.name), &json!(id(EVENTS - 1))));
        assert!(elsewhere.ids(&world).await == ids(0..EVENTS), "each once, the oldest first");

        let from = time(harness::messages::created_at(1_000));
        let to = time(harness::messages::created_at(1_099));
        let narrowed = ["--run", "run-1", "--project", "p", "--org", "acme", "--from", &from, "--to-time", &to];
        world.run(&[&replay[..], &narrowed].concat()).await.succeeded().prints("50 events from");
        let all = elsewhere.all(&world).await;
        let run = all[EVENTS as usize..].iter();
        assert_eq!(
            run.clone().map(|(record, _)| record["id"].clone()).collect::<Vec<_>>(),
            ids((1_001..1_100).step_by(2))
        );
        assert!(run.clone().all(|(_, at)| *at == all[EVENTS as usize].1) && all[0].1 != all[EVENTS as usize].1);
        for (option, value) in [("--run", "run-2"), ("--org", "globex"), ("--from", "2199-01-01T00:00:00Z")] {
            let to_time = if option == "--from" { &["--to-time", "2200-01-01T00:00:00Z"][..] } else { &[] };
            let none = world.run(&[&replay[..], &[option, value], to_time].concat()).await;
            none.succeeded().prints("0 events published");
        }
        assert_eq!(elsewhere.all(&world).await.len(), all.len());
        world.jetstream().delete_stream(&elsewhere.name).await.unwrap();
    }
    finish(world, vec![worker]).await;
}

#[tokio::test]
async fn back_on_its_own_subject_everything_stays_stored_once() {
    let (world, worker) = stored(300).await;
    let nobodys = world.subject(Kind::Events, "_");
    let other = world.subject(Kind::Events, "globex");
    for n in 0..20 {
        for subject in [&nobodys, &other] {
            let body = json!({ "event_type": "other", "n": n }).to_string();
            world.try_publish_bytes(subject, Default::default(), body).await.unwrap();
        }
    }
    world.settled_as(Kind::Events, [340, 0, 0, 0]).await;
    let rows = async || -> Vec<(Value,)> {
        world.query_all("SELECT to_jsonb(e) FROM watchbook.event_logs AS e ORDER BY id").await
    };
    let before = rows().await;
    let acme = format!("{}.events.acme.again", world.name());
    for (subject, published, duplicates) in
        [(&acme, 300, 300), (&nobodys, 20, 320), (&other, 20, 340), (&acme, 300, 640)]
    {
        let replayed = world.run(&["replay", "events", "--to", subject, "--rate", "unlimited"]).await;
        replayed.succeeded().prints(&format!("{published} events published")).prints(&world.stream(Kind::Events));
        world.settled_as(Kind::Events, [340, duplicates, 0, 0]).await;
    }
    assert!(rows().await == before, "rows have changed");

    let refused = world.run(&["replay", "events", "--to", &acme, "--org", "globex"]).await;
    refused.ended_with(1).prints("takes only events of `acme`");
    for (subject, said) in
        [("logs.acme.x", "is for logs"), ("signals.rollups", "Watchbook itself"), ("events", "organization")]
    {
        let subject = format!("{}.{subject}", world.name());
        world.run(&["replay", "events", "--to", &subject]).await.ended_with(1).prints(said);
    }
    for wrong in ["a.*", "a.>", "a b", "$JS.API.INFO"] {
        world.run(&["replay", "events", "--to", wrong]).await.ended_with(2);
    }
    for wrong in [&["--rate", "0"][..], &["--org", "_"], &["--from", "yesterday"]] {
        world.run(&[&["replay", "events", "--to", "a"], wrong].concat()).await.ended_with(2);
    }
    world.settled_as(Kind::Events, [340, 640, 0, 0]).await;
    finish(world, vec![worker]).await;
}

#[tokio::test]
async fn what_comes_is_the_record_as_it_was() {
    let (world, other) = (world().start().await, world().start().await);
    let (worker, writer) = (world.workers("events").await, other.workers("events").await);
    let strange = [
        json!({}),
        json!({ "payload": { "n": 1, "text": "ä \u{1f600} \" \\ \n" }, "project_id": "p", "run_id": "r", "user_id": "u",
                "actor_type": "user", "actor_id": "a", "source": "s" }),
        json!({ "attributes": { "x": 1 }, "y": [1, 2, { "z": null }] }),
        json!({ "attributes": { "x": 1, "timestamp": "then" }, "x": 2 }),
        json!({ "attributes": "no object" }),
        json!({ "payload": { "nul": "a\u{0}b" } }),
        json!({ "payload": { "list": [[1, 2], [3, "  spaces  , : "]], "wide": "x".repeat(250_000) } }),
        json!({ "organization_id": "acme", "createdAt": "ignored", "sanitized": false }),
    ];
    let mut count = 0;
    for members in strange {
        world.publish(Kind::Events, &event_with(count, members)).await;
        count += 1;
    }
    // Numbers that a double cannot represent.
    let mut body = event_with(count, json!({ "payload": "HERE" })).to_string();
    body = body.replace("\"HERE\"", r#"{"n": 12345678901234567890.123456789, "m": [9007199254740993]}"#);
    world.publish_bytes(Kind::Events, body).await;
    world.settled_as(Kind::Events, [count + 1, 0, 0, 0]).await;

    let elsewhere = Elsewhere::of(&world, stream::Config::default()).await;
    world.run(&["replay", "events", "--to", &elsewhere.subject]).await.succeeded();
    let stream = world.jetstream().get_stream(&elsewhere.name).await.unwrap();
    for sequence in 1..=count + 1 {
        other.publish_bytes(Kind::Events, stream.get_raw_message(sequence).await.unwrap().payload).await;
    }
    other.settled_as(Kind::Events, [count + 1, 0, 0, 0]).await;
    let rows = async |world: &World| -> Vec<(String,)> {
        world.query_all("SELECT (to_jsonb(e) - 'received_at')::text FROM watchbook.event_logs AS e ORDER BY id").await
    };
    assert_eq!(rows(&world).await, rows(&other).await);
    other.finish([writer]).await;
    elsewhere.finish(world, vec![worker]).await;
}

#[tokio::test]
async fn without_a_stream_those_who_listen_get_it() {
    let (world, worker) = stored(250).await;
    let subject = format!("listening.{}", world.name());
    let mut messages = world.client().subscribe(subject.clone()).await.unwrap();
    world.client().flush().await.unwrap();
    let replayed = world.run(&["replay", "events", "--to", &subject, "--rate", "5000", "--by", "ann", "--json"]).await;
    replayed.succeeded().prints(&format!("no stream captures {subject}: only current subscribers receive them"));
    assert_eq!((&replayed.json()["stream"], &replayed.json()["published"]), (&Value::Null, &json!(250)));
    let mut heard = Vec::new();
    while heard.len() < 250 {
        let message = tokio::time::timeout(BOUND, messages.next()).await.expect("it comes in time").unwrap();
        heard.push(serde_json::from_slice::<Value>(&message.payload).unwrap()["id"].clone());
    }
    assert_eq!(heard, ids(0..250));

    let audit = world.workers("audit").await;
    world.settled(Kind::Audit).await;
    let told: Vec<(String, String, Value)> = world
        .query_all("SELECT actor_id, target_id, metadata FROM control_plane.audit_logs WHERE action = 'events.replay'")
        .await;
    let [(who, target, metadata)] = &told[..] else { panic!("one record: {told:?}") };
    assert_eq!((who.as_str(), target, &metadata["events"]), ("ann", &subject, &json!(250)));
    world.finish([worker, audit]).await;
}

#[tokio::test]
async fn what_may_not_be_published_is_no_success() {
    const USERS: &str = r#"
no_auth_user: admin
authorization { users: [
  { user: admin, password: admin }
  { user: operator, password: hunter2, permissions: { publish: { deny: "elsewhere.>" } } }
] }
"#;
    let world = world().nats(start_nats(|options| options.extra_config = USERS.to_owned()).await).start().await;
    let worker = world.workers("events").await;
    world.publish_records(Kind::Events, 0..40).await;
    world.settled(Kind::Events).await;
    let url = world.nats_url().replace("nats://", "nats://operator:hunter2@");
    for rate in ["unlimited", "50"] {
        let replay = ["replay", "events", "--to", "elsewhere.x", "--rate", rate];
        let refused = world.run_with(&replay, &[("NATS_URL", &url)], "").await;
        refused
            .ended_with(1)
            .prints("NATS refused some of the events")
            .prints("Permissions Violation")
            .does_not_print("hunter2");
    }
    finish(world, vec![worker]).await;
}

#[tokio::test]
async fn one_that_is_refused_is_named_and_the_others_are_out() {
    let (world, worker) = stored(30).await;
    let fat = json!({ "payload": { "fat": "x".repeat(5_000) }, "run_id": "run-0" });
    world.publish(Kind::Events, &event_with(30, fat)).await;
    world.publish_all(Kind::Events, (31..40).map(|n| event_with(n, json!({})))).await;
    world.settled_as(Kind::Events, [40, 0, 0, 0]).await;
    for allow_atomic_publish in [true, false] {
        let config = stream::Config { allow_atomic_publish, max_message_size: 2_000, ..Default::default() };
        let elsewhere = Elsewhere::of(&world, config).await;
        let replay = ["replay", "events", "--to", &elsewhere.subject, "--json"];
        let refused = world.run(&replay).await;
        let at = time(harness::messages::created_at(30));
        refused.ended_with(1).prints(&id(30).to_string()).prints(&format!("--from {at}")).prints("too large");
        let summary = refused.json();
        assert_eq!((&summary["published"], &summary["last"]["id"]), (&json!(30), &json!(id(29))));
        let taken = elsewhere.ids(&world).await;
        assert_eq!(taken[..30], ids(0..30));
        let later = time(harness::messages::created_at(31));
        world.run(&[&replay[..], &["--from", &later]].concat()).await.succeeded();
        let taken = elsewhere.ids(&world).await;
        assert_eq!(taken[taken.len() - 9..], ids(31..40));
        world.jetstream().delete_stream(&elsewhere.name).await.unwrap();
    }
    finish(world, vec![worker]).await;
}

#[tokio::test]
async fn what_a_writer_would_refuse_is_not_sent_to_it() {
    let (world, worker) = stored(5).await;
    let old = Utc::now() - TimeDelta::days(40);
    let mut connection = PgConnection::connect(world.database_url()).await.unwrap();
    Partitions::default().ensure(&mut connection, Partition::of(Kind::Events, old).unwrap()).await.unwrap();
    connection.close().await.unwrap();
    world.rows_were_dropped();
    world
        .execute(&format!(
            "INSERT INTO watchbook.event_logs (event_type, payload, actor_type, id, organization_id, created_at, received_at, attributes)
             VALUES ('old', '{{}}', 'system', gen_random_uuid(), 'acme', '{old}', '{old}', '{{}}')"
        ))
        .await;
    let own = world.subject(Kind::Events, "acme");
    let refused = world.run(&["replay", "events", "--to", &own]).await;
    // The event is reported and skipped, and the others are published.
    refused.ended_with(1).prints("would be a dead letter").prints("created_at").prints("5 events published, 1 skipped");
    world.settled_as(Kind::Events, [5, 5, 0, 0]).await;
    let from = time(old + TimeDelta::days(1));
    world.run(&["replay", "events", "--to", &own, "--from", &from]).await.succeeded();
    world.settled_as(Kind::Events, [5, 10, 0, 0]).await;
    // Other streams accept it.
    world
        .run(&["replay", "events", "--to", &format!("x.{}", world.name())])
        .await
        .succeeded()
        .prints("6 events published");
    finish(world, vec![worker]).await;
}

#[tokio::test]
async fn an_organizations_are_found_through_weeks_in_which_it_was_quiet() {
    let (world, worker) = stored(3).await;
    let mut connection = PgConnection::connect(world.database_url()).await.unwrap();
    for ago in 0..=25 {
        let day = Utc::now() - TimeDelta::days(ago);
        Partitions::default().ensure(&mut connection, Partition::of(Kind::Events, day).unwrap()).await.unwrap();
    }
    connection.close().await.unwrap();
    world.rows_were_dropped();
    // At the beginning, more events with the same time than fit into a part; then events of others, and a few in
    // between.
    world
        .execute(
            "INSERT INTO watchbook.event_logs (event_type, payload, actor_type, id, organization_id, created_at, received_at, attributes)
             SELECT 'old', jsonb_build_object('fat', repeat('x', CASE WHEN n <= 60 THEN 200000 ELSE 1 END)), 'system', gen_random_uuid(),
                    CASE WHEN n <= 60 OR n % 97 = 0 THEN 'quiet' ELSE 'acme' END,
                    CASE WHEN n <= 60 THEN date_trunc('day', now()) - interval '24 days' ELSE now() - interval '23 days' + n * interval '5 minutes' END,
                    now(), '{}'
               FROM generate_series(1, 6000) AS n",
        )
        .await;
    let elsewhere = Elsewhere::of(&world, stream::Config::default()).await;
    for (options, condition) in [(&["--org", "quiet"][..], "organization_id = 'quiet'"), (&[], "true")] {
        let replay = ["replay", "events", "--to", &elsewhere.subject, "--rate", "unlimited", "--json"];
        let replayed = world.run(&[&replay[..], options].concat()).await;
        let summary = replayed.succeeded().json();
        let stored: Vec<(String,)> = world
            .query_all(&format!(
                "SELECT e.id::text FROM watchbook.event_logs AS e WHERE {condition} ORDER BY e.created_at, e.id"
            ))
            .await;
        assert_eq!((&summary["events"], &summary["published"]), (&json!(stored.len()), &json!(stored.len())));
        let found = elsewhere.ids(&world).await;
        let found = &found[found.len() - stored.len()..];
        let other = stored.iter().zip(found).position(|((id,), found)| *found != json!(id));
        assert_eq!(other, None, "{options:?}: the first that is not where it should be");
    }
    elsewhere.finish(world, vec![worker]).await;
}

#[tokio::test]
async fn who_stops_it_is_told_how_to_go_on() {
    const EVENTS: u64 = 400;
    let (world, worker) = stored(EVENTS).await;
    let elsewhere = Elsewhere::of(&world, stream::Config::default()).await;
    let replay = ["replay", "events", "--to", &elsewhere.subject];
    let mut replaying = world.spawn_command(&[&replay[..], &["--rate", "20", "--json"]].concat(), &[]);
    harness::eventually("some are out", async || match elsewhere.ids(&world).await.len() {
        3.. => Ok(()),
        few => Err(few.to_string()),
    })
    .await;
    replaying.signal(Signal::Interrupt).await;
    assert_eq!(replaying.ended().await.code(), Some(1), "{}", replaying.log());
    let summary: Value = serde_json::from_str(&replaying.output()).unwrap();
    let published = elsewhere.ids(&world).await.len() as u64;
    assert!(published < EVENTS, "it was stopped");
    assert_eq!((&summary["published"], &summary["stopped"]), (&json!(published), &json!(true)));
    let log = replaying.log();
    let (_, from) = log.split_once("--from ").unwrap();
    let from = from.split_once('`').unwrap().0;
    assert_eq!(from, time(harness::messages::created_at(published - 1)));
    world.run(&[&replay[..], &["--from", from, "--rate", "unlimited"]].concat()).await.succeeded();
    // The event at which it stopped is published again.
    let expected = ids((0..published).chain(published - 1..EVENTS));
    assert_eq!(elsewhere.ids(&world).await, expected);
    elsewhere.finish(world, vec![worker, replaying]).await;
}
