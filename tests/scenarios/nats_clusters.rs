//! A cluster of nats-servers, one of which is down.

use async_nats::jetstream::stream::{Config, DiscardPolicy, Placement};
use harness::servers::{jetstream_answers, start_nats_cluster};
use harness::{World, eventually};
use records::{Kind, subject};
use serde_json::{Value, json};

use crate::world;

/// Creates every stream as `setup` does, with one replica on a server with this tag.
async fn create_streams(world: &World, tag_of: impl Fn(Kind) -> &'static str) {
    for &kind in Kind::ALL {
        let config = Config {
            name: world.stream(kind),
            subjects: vec![subject::filter(world.name(), kind, None)],
            discard: DiscardPolicy::New,
            max_bytes: 64 << 20,
            max_message_size: 2 << 20,
            allow_atomic_publish: true,
            num_replicas: 1,
            placement: Some(Placement { tags: vec![tag_of(kind).to_owned()], ..Placement::default() }),
            ..Config::default()
        };
        eventually(&format!("{kind} is created"), async || {
            world.jetstream().create_stream(&config).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }
}

fn of<'v>(kinds: &'v Value, key: &str, name: &str) -> Vec<&'v Value> {
    kinds.as_array().unwrap().iter().filter(|entry| entry[key] == name).collect()
}

#[tokio::test]
async fn a_stream_without_a_leader_hides_no_other() {
    let mut servers = start_nats_cluster(3).await;
    let away = servers.pop().unwrap();
    let second = servers.pop().unwrap();
    let first = servers.pop().unwrap();
    let urls = format!("{},{}", first.url(), second.url());
    let first_url = first.url();
    let world = world().nats(first).with("NATS_URL", &urls).without_setup().start().await;
    create_streams(&world, |kind| if kind == Kind::Events { "node-2" } else { "node-0" }).await;
    world.run(&["setup"]).await.succeeded().does_not_print("differs");
    let mut worker = world.workers("events,logs").await;
    world.publish_records(Kind::Events, 0..10).await;
    world.publish_records(Kind::Logs, 0..5).await;
    world.settled_as(Kind::Events, [10, 0, 0, 0]).await;
    world.settled_as(Kind::Logs, [5, 0, 0, 0]).await;

    away.kill().await.unwrap();
    // Two of three are a majority: they elect a leader of the cluster, but none for streams that only the third one
    // holds.
    jetstream_answers(&first_url, "$JS.API").await;
    let events = world.stream(Kind::Events);
    let status = world.run(&["status", "--json"]).await.ended_with(1).json();
    assert_eq!(status.as_array().unwrap().len(), Kind::ALL.len());
    for kind in status.as_array().unwrap() {
        assert_eq!(kind["adds_up"], json!(true), "{kind}");
        assert_eq!(kind.get("problem").is_some(), kind["kind"] == "events", "{kind}");
    }
    let [lost] = of(&status, "kind", "events")[..] else { panic!("{status}") };
    assert!(lost["problem"].as_str().unwrap().contains(&events), "{lost}");
    assert_eq!(
        (&lost["stored"], &lost["settled"], &lost["last_sequence"], &lost["pending"]),
        (&json!(10), &json!(10), &json!(null), &json!(null)),
        "{lost}"
    );
    let [sound] = of(&status, "kind", "logs")[..] else { panic!("{status}") };
    assert_eq!((&sound["stored"], &sound["last_sequence"], &sound["pending"]), (&json!(5), &json!(5), &json!(0)));
    world.run(&["status"]).await.ended_with(1).prints(&events).prints("adds up");

    let doctor = world.run(&["doctor", "--json"]).await.ended_with(1).json();
    for &kind in Kind::ALL {
        let stream = world.stream(kind);
        let [finding] = of(&doctor, "subject", &stream)[..] else { panic!("{stream} in {doctor}") };
        assert_eq!(finding["verdict"], if kind == Kind::Events { "wrong" } else { "fine" }, "{finding}");
        if kind == Kind::Events {
            assert!(finding["mend"].as_str().unwrap().contains(&format!("nats stream info {stream}")), "{finding}");
        }
    }
    let [writer] = of(&doctor, "subject", "events writer")[..] else { panic!("{doctor}") };
    assert_ne!(writer["verdict"], "fine", "nobody knows whether something waits: {writer}");
    let [writer] = of(&doctor, "subject", "logs writer")[..] else { panic!("{doctor}") };
    assert_eq!(writer["verdict"], "fine", "{writer}");

    // A worker that starts now writes the other kinds.
    worker.stop().await;
    let worker = world.spawn("events,logs");
    worker.writes(Kind::Logs).await;
    world.publish_records(Kind::Logs, 5..10).await;
    world.settled_as(Kind::Logs, [10, 0, 0, 0]).await;
    worker.reports_ready(503, &events).await;

    away.restart().await.unwrap();
    eventually("the stream is back", async || world.try_account(Kind::Events).await).await;
    worker.ready().await;
    world.publish_records(Kind::Events, 10..20).await;
    world.settled_as(Kind::Events, [20, 0, 0, 0]).await;
    world.readers_were_broken(2);
    world.finish([worker]).await;
}
