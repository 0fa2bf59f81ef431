//! A process as a NATS service: the requests of `nats micro` (ADR-32), and users who may not answer.

use std::time::Duration;

use futures::StreamExt;
use harness::servers::start_nats;
use harness::{BOUND, World, eventually};
use records::Kind;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::world;

/// The workers' user as in the shipped `nats-server.conf`, and one without the permissions for a service.
const USERS: &str = r#"
no_auth_user: admin
authorization { users: [
  { user: admin, password: admin }
  { user: writer, password: hunter2, permissions: {
      publish: ["$JS.API.>", "*.signals.*"]
      subscribe: ["_INBOX.>", "*.signals.*", "*.status.*", "$SRV.>"]
      allow_responses: true
  } }
  { user: older, password: hunter2, permissions: {
      publish: ["$JS.API.>", "*.signals.*"], subscribe: ["_INBOX.>", "*.signals.*"]
  } }
] }
"#;

async fn a_world() -> World {
    world().nats(start_nats(|options| options.extra_config = USERS.to_owned()).await).start().await
}

fn url_of(world: &World, user: &str) -> String {
    world.nats_url().replace("nats://", &format!("nats://{user}:hunter2@"))
}

/// Returns the response to a request, once there is a responder.
async fn answer(world: &World, subject: &str) -> Value {
    eventually(subject, async || {
        let answer = world.client().request(subject.to_owned(), "".into()).await.map_err(|error| error.to_string())?;
        serde_json::from_slice(&answer.payload).map_err(|error| error.to_string())
    })
    .await
}

#[tokio::test]
async fn a_process_is_a_service_and_its_workers_are_its_endpoints() {
    let world = a_world().await;
    let url = url_of(&world, "writer");
    let workers = world.spawn_with("events,logs", &[("NATS_URL", &url)]);
    workers.ready().await;
    let ping = answer(&world, "$SRV.PING").await;
    assert_eq!((&ping["name"], &ping["type"]), (&json!("watchbook"), &json!("io.nats.micro.v1.ping_response")));
    let (id, version) = (ping["id"].as_str().unwrap(), ping["version"].as_str().unwrap());
    assert!(!id.is_empty() && version.split('.').count() == 3, "{ping}");
    assert!(ping["metadata"].is_object() || ping["metadata"].is_null(), "{ping}");
    let info = answer(&world, &format!("$SRV.INFO.watchbook.{id}")).await;
    assert_eq!(info["type"], "io.nats.micro.v1.info_response");
    let mut endpoints: Vec<_> =
        info["endpoints"].as_array().unwrap().iter().map(|endpoint| &endpoint["subject"]).collect();
    endpoints.sort_by_key(|subject| subject.to_string());
    let subject = |worker: &str| format!("{}.status.{worker}", world.name());
    assert_eq!(endpoints, [&json!(subject("events")), &json!(subject("logs"))]);
    for _ in 0..3 {
        assert_eq!(answer(&world, &subject("events")).await, json!({ "ready": true, "state": "active" }));
    }
    let stats = answer(&world, "$SRV.STATS.watchbook").await;
    assert_eq!(stats["type"], "io.nats.micro.v1.stats_response");
    let requests = |name: &str| {
        let endpoint = stats["endpoints"].as_array().unwrap().iter().find(|endpoint| endpoint["name"] == name);
        endpoint.unwrap()["num_requests"].clone()
    };
    assert_eq!((requests("events"), requests("logs")), (json!(3), json!(0)));
    world.finish([workers]).await;
}

#[tokio::test]
async fn each_process_answers_for_itself() {
    let world = a_world().await;
    let url = url_of(&world, "writer");
    let both = [world.spawn_with("events", &[("NATS_URL", &url)]), world.spawn_with("events", &[("NATS_URL", &url)])];
    for workers in &both {
        workers.ready().await;
    }
    let inbox = world.client().new_inbox();
    let mut answers = world.client().subscribe(inbox.clone()).await.unwrap();
    let mut ids = std::collections::BTreeSet::new();
    while ids.len() < 2 {
        world.client().publish_with_reply("$SRV.PING.watchbook", inbox.clone(), "".into()).await.unwrap();
        while let Ok(Some(answer)) = timeout(Duration::from_millis(200), answers.next()).await {
            let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
            ids.insert(answer["id"].as_str().unwrap().to_owned());
        }
    }
    world.finish(both).await;
}

#[tokio::test]
async fn who_may_be_no_service_works_all_the_same() {
    let world = a_world().await;
    let url = url_of(&world, "older");
    let workers = world.spawn_with("events", &[("NATS_URL", &url)]);
    workers.ready().await;
    workers.logged("$SRV.PING").await;
    world.publish_records(Kind::Events, 0..10).await;
    timeout(BOUND, world.settled_as(Kind::Events, [10, 0, 0, 0])).await.unwrap();
    let silence = world.client().request("$SRV.PING", "".into()).await;
    assert!(silence.is_err(), "{silence:?}");
    world.finish([workers]).await;
}
