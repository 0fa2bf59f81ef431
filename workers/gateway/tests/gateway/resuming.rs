//! Tests that a live stream resumes where the client left off, whatever happened in between.

use bytesize::ByteSize;
use gateway::auth::Role;
use harness::messages::{event, event_with};
use harness::{BOUND, World};
use records::Kind;
use serde_json::json;
use tokio::time::timeout;

use crate::test_gateway::TestGateway;
use crate::tokens::{claims, of, sign};
use crate::watcher::{Watcher, gateway, here, number, post, quick, watch};

#[tokio::test]
async fn who_comes_back_misses_nothing_and_sees_nothing_twice() {
    let gateway = gateway(quick()).await;
    let (token, total) = (of(Role::Viewer), 6_000_u64);
    let posting = async {
        for part in 0..20_u64 {
            let bodies: Vec<_> =
                (part * 300..(part + 1) * 300).map(|n| event_with(n, json!({ "x": "x".repeat(500) }))).collect();
            post(&gateway, Kind::Events, "acme", &json!(bodies)).await;
        }
    };
    let start = here(&gateway, Kind::Events).await;
    let watching = async {
        let (mut seen, mut last) = (0, start.clone());
        while seen < total {
            // The connection breaks again and again, in the middle of the events.
            let mut watcher = watch(&gateway, "/api/live/events", &token, Some(&last)).await;
            for _ in 0..total.div_ceil(7).min(total - seen) {
                let event = watcher.event().await;
                if event.name.as_deref() == Some("lost") {
                    // The id of the previous event resumes the stream before them.
                    assert!(event.data["count"].as_u64().unwrap() > 0 && event.id.is_none(), "{event:?}");
                    break;
                }
                assert_eq!(number(&event), seen, "{event:?}");
                (seen, last) = (seen + 1, event.id.unwrap());
            }
        }
    };
    timeout(BOUND, async { tokio::join!(posting, watching) }).await.unwrap();
    gateway.finish().await;
}

#[tokio::test]
async fn what_the_stream_does_not_hold_any_more_is_told() {
    let gateway = gateway(quick()).await;
    let (token, all) = (of(Role::Viewer), sign(&claims("viewer", &["*"])));
    let start = here(&gateway, Kind::Events).await;
    for (n, organization) in [(1, "acme"), (2, "umbra"), (3, "acme"), (4, "acme"), (5, "acme")] {
        post(&gateway, Kind::Events, organization, &event(n)).await;
    }
    let first = watch(&gateway, "/api/live/events", &token, Some(&start)).await.event().await.id.unwrap();
    gateway.bus.purge_up_to(Kind::Events, 3).await.unwrap();
    for (token, figures) in [(&all, json!({ "first": 2, "last": 3 })), (&token, json!({ "first": null, "last": null }))]
    {
        let mut watcher = watch(&gateway, "/api/live/events", token, Some(&first)).await;
        let gap = watcher.event().await;
        assert_eq!((gap.name.as_deref(), &gap.data), (Some("gap"), &figures));
        assert_eq!(watcher.numbers(2).await, [4, 5]);
        // A client that resumes after the gap does not get a report of it again.
        let mut watcher = watch(&gateway, "/api/live/events", token, gap.id.as_deref()).await;
        assert_eq!(watcher.numbers(2).await, [4, 5]);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn what_is_no_id_is_refused_and_what_is_one_is_that_of_every_gateway() {
    let mut gateway = gateway(quick()).await;
    let (acme, umbra) = (of(Role::Viewer), sign(&claims("viewer", &["umbra"])));
    let start = here(&gateway, Kind::Events).await;
    let changed = format!("{}{}", &start[..42], if start.ends_with('A') { "B" } else { "A" });
    for (path, wrong) in [
        ("/api/live/events", "x"),
        ("/api/live/events", ""),
        ("/api/live/events", "0"),
        ("/api/live/events", "4711"),
        ("/api/live/events", &changed),
        ("/api/live/events", &start[1..]),
        // An id of another kind.
        ("/api/live/executions", &start),
    ] {
        let bearer = format!("Bearer {acme}");
        let answer = gateway.request("GET", path, &[("authorization", &bearer), ("last-event-id", wrong)], "").await;
        assert_eq!(answer.problem(400)["errors"][0]["field"], "Last-Event-ID", "{path}: {wrong}");
    }
    post(&gateway, Kind::Events, "acme", &event(1)).await;
    gateway.ask_another(quick()).await;
    post(&gateway, Kind::Events, "umbra", &event(2)).await;
    // The id decides on the position, the token on what is visible from there on.
    for (token, number) in [(&acme, 1), (&umbra, 2)] {
        let mut watcher = watch(&gateway, "/api/live/events", token, Some(&start)).await;
        assert_eq!(watcher.numbers(1).await, [number]);
        watcher.is_idle().await;
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_stream_that_was_made_anew_is_another_one() {
    let gateway = gateway(quick()).await;
    let token = of(Role::Viewer);
    let mut watcher = watch(&gateway, "/api/live/events", &token, None).await;
    post(&gateway, Kind::Events, "acme", &json!([event(1), event(2)])).await;
    assert_eq!(number(&watcher.event().await), 1);
    let seen = watcher.event().await;
    assert_eq!(number(&seen), 2);
    gateway.bus.delete_stream(Kind::Events).await.unwrap();
    gateway.stream(Kind::Events, ByteSize::mib(64)).await;
    // As many messages as before and more: the sequence alone does not reveal the change.
    post(&gateway, Kind::Events, "acme", &json!([event(3), event(4), event(5)])).await;
    let end = loop {
        let block = watcher.block().await.expect("it says why it ends");
        assert_eq!(block.id, None, "{block:?}");
        if block.retry.is_some() {
            break block;
        }
    };
    assert_eq!(end.comment.as_deref(), Some("the stream began anew"));
    assert!(watcher.block().await.is_none());
    // A client that resumes is told, and gets all of the new stream.
    let response = gateway.open("/api/live/events", &token, seen.id.as_deref()).await;
    let mut back = Watcher { response, read: String::new() };
    assert!(back.block().await.unwrap().retry.is_some());
    let gap = back.block().await.unwrap();
    assert_eq!((gap.name.as_deref(), gap.id), (Some("gap"), None));
    assert_eq!(gap.data, json!({ "first": null, "last": null }));
    assert_eq!(back.numbers(3).await, [3, 4, 5]);
    let mut watcher = watch(&gateway, "/api/live/events", &token, None).await;
    post(&gateway, Kind::Events, "acme", &event(6)).await;
    assert_eq!(watcher.numbers(1).await, [6]);
    assert_eq!(back.numbers(1).await, [6]);
    drop((watcher, back));
    gateway.finish().await;
}

#[tokio::test]
async fn an_outage_of_nats_ends_no_stream_and_loses_nothing() {
    let world = World::builder("no binary").without_setup().proxies().start().await;
    let url = format!("nats://127.0.0.1:{}", world.nats_link().port());
    let gateway = TestGateway::at(world, quick(), &url).await;
    gateway.stream(Kind::Events, ByteSize::mib(64)).await;
    let mut watcher = watch(&gateway, "/api/live/events", &of(Role::Viewer), None).await;
    let publish = async |n: u64| {
        let subject = format!("{}.events.acme.x", gateway.world.name());
        gateway.world.client().request(subject, event(n).to_string().into()).await.unwrap();
    };
    publish(1).await;
    assert_eq!(watcher.numbers(1).await, [1]);
    gateway.world.nats_link().cut();
    for n in 2..=50 {
        publish(n).await;
    }
    watcher.is_idle().await;
    gateway.world.nats_link().restore();
    assert_eq!(watcher.numbers(49).await, (2..=50).collect::<Vec<_>>());
    drop(watcher);
    gateway.finish().await;
}
