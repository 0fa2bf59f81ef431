//! Streams in another domain or account than the server that `watchbook` connects to.

use harness::messages::event;
use harness::servers::{free_port, jetstream_answers, start_nats};
use harness::{Watchbook, World};
use records::Kind;

use crate::world;

/// Uses everything that JetStream is needed for: set-up, publishing, reading, settling, trimming, status, replay.
async fn works_end_to_end(world: &World, worker: &Watchbook) {
    world.run(&["setup"]).await.succeeded().prints("as it should be");
    let lines: String = (0..20).map(|n| format!("{}\n", event(n))).collect();
    world.run_with(&["publish", "events", "--org", "acme"], &[], &lines).await.succeeded();
    // Published without Watchbook's publisher, which would reject it, so that it becomes a dead letter.
    world.publish_bytes(Kind::Events, "no record").await;
    world.settled_as(Kind::Events, [20, 0, 1, 0]).await;
    world.holds_exactly(Kind::Events, 20).await;
    world.account_where(Kind::Events, "settled messages are purged", |account| account.messages == 0).await;
    let status = world.run(&["status", "--json"]).await.succeeded().json();
    let events = status.as_array().unwrap().iter().find(|kind| kind["kind"] == "events").unwrap().clone();
    assert_eq!((&events["last_sequence"], &events["pending"]), (&21.into(), &0.into()), "{events}");
    let doctor = world.run(&["doctor", "--json"]).await.json();
    let finding = |subject: &str| {
        let found = doctor.as_array().unwrap().iter().find(|finding| finding["subject"] == subject);
        found.unwrap_or_else(|| panic!("{subject} is not in {doctor}")).clone()
    };
    for subject in ["nats", &world.stream(Kind::Events), "events writer"] {
        assert_eq!(finding(subject)["verdict"], "fine", "{}", finding(subject));
    }
    worker.reports_ready(200, "").await;
}

#[tokio::test]
async fn a_leaf_node_reaches_the_streams_of_its_hub_by_their_domain() {
    let port = free_port();
    let hub = start_nats(|options| {
        options.domain = Some("hub".to_owned());
        options.extra_config = format!("leafnodes {{ listen: \"127.0.0.1:{port}\" }}");
    })
    .await;
    let remote = format!("leafnodes {{ remotes: [{{ url: \"nats-leaf://127.0.0.1:{port}\" }}] }}");
    let leaf = start_nats(|options| {
        options.domain = Some("leaf".to_owned());
        options.extra_config = remote.clone();
    })
    .await;
    jetstream_answers(&leaf.url(), "$JS.hub.API").await;
    let domain = "WATCHBOOK_NATS__JETSTREAM_DOMAIN";
    let world = world()
        .nats(hub)
        .with("NATS_URL", leaf.url())
        .with(domain, "hub")
        .with("WATCHBOOK_STREAMS__REPLAY_WINDOW", "2s")
        .start()
        .await;
    let worker = world.workers("events").await;
    works_end_to_end(&world, &worker).await;

    // A leaf node without a JetStream of its own works as well.
    let bare = start_nats(|options| {
        options.jetstream = false;
        options.extra_config = remote;
    })
    .await;
    jetstream_answers(&bare.url(), "$JS.hub.API").await;
    world.run_with(&["status"], &[("NATS_URL", &bare.url())], "").await.succeeded().prints("adds up");

    let finished = world.run_with(&["run", "--workers", "events"], &[(domain, "nowhere")], "").await;
    finished.ended_with(1).prints("no JetStream answers on `$JS.nowhere.API`").prints("jetstream_domain");
    let finished = world.run_with(&["up"], &[("NATS_URL", &leaf.url()), (domain, "nowhere")], "").await;
    finished.ended_with(1).prints("no JetStream answers on `$JS.nowhere.API`");
    world.finish([worker]).await;
}

const ACCOUNTS: &str = r#"
accounts {
  STREAMS {
    jetstream: enabled
    users: [{ user: owner, password: owner }]
    exports: [
      { service: "$JS.API.>", response_type: stream }
      { service: "*.events.>" }
    ]
  }
  WORKERS {
    users: [{ user: worker, password: hunter2 }]
    imports: [
      { service: { account: STREAMS, subject: "$JS.API.>" }, to: "JS.streams.API.>" }
      { service: { account: STREAMS, subject: "*.events.>" } }
    ]
  }
}
no_auth_user: owner
"#;

#[tokio::test]
async fn another_account_reaches_the_streams_by_the_prefix_of_their_api() {
    let server = start_nats(|options| options.extra_config = ACCOUNTS.to_owned()).await;
    let url = server.url().replace("nats://", "nats://worker:hunter2@");
    let prefix = "WATCHBOOK_NATS__JETSTREAM_API_PREFIX";
    let world = world()
        .nats(server)
        .with("NATS_URL", &url)
        .with(prefix, "JS.streams.API")
        .with("WATCHBOOK_STREAMS__REPLAY_WINDOW", "2s")
        .start()
        .await;
    let worker = world.workers("events").await;
    works_end_to_end(&world, &worker).await;

    let both = [("WATCHBOOK_NATS__JETSTREAM_DOMAIN", "hub")];
    world
        .run_with(&["status"], &both, "")
        .await
        .ended_with(1)
        .prints(&format!("{prefix}: set it or `jetstream_domain`"));
    world.finish([worker]).await;
}

#[tokio::test]
async fn up_brings_no_domain_of_its_own() {
    let world = world().without_setup().start().await;
    let config = world.directory().join("watchbook.toml");
    std::fs::write(&config, "[nats]\njetstream_domain = \"hub\"\n").unwrap();
    world.run_bare(&["up"]).await.ended_with(1).prints("set NATS_URL").prints("jetstream_domain");
    std::fs::remove_file(&config).unwrap();
    world.finish([]).await;
}
