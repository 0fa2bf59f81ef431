//! Records as they come: to those who may see them, from where they were, and never more than fits.

use std::num::NonZeroU32;
use std::time::Duration;

use bytesize::ByteSize;
use gateway::Settings;
use gateway::auth::Role;
use harness::messages::{event, event_with, record, with};
use harness::{BOUND, World};
use records::Kind;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use crate::stand::{Stand, settings};
use crate::tokens::{claims, of, sign};

/// What stands between two empty lines, by its fields.
#[derive(Debug, Default, PartialEq)]
struct Block {
    id: Option<u64>,
    name: Option<String>,
    data: Value,
    comment: Option<String>,
    retry: Option<u64>,
}

impl Block {
    fn of(text: &str) -> Self {
        let mut block = Self::default();
        for line in text.lines() {
            match line.split_once(':').unwrap_or_else(|| panic!("{line:?}")) {
                ("id", id) => block.id = Some(id.trim().parse().unwrap()),
                ("event", name) => block.name = Some(name.trim().to_owned()),
                ("data", data) => block.data = serde_json::from_str(data).unwrap(),
                ("retry", after) => block.retry = Some(after.trim().parse().unwrap()),
                ("", comment) => block.comment = Some(comment.trim().to_owned()),
                other => panic!("{other:?}"),
            }
        }
        block
    }
}

/// Somebody who watches.
struct Watcher {
    response: reqwest::Response,
    read: String,
}

impl Watcher {
    async fn block(&mut self) -> Option<Block> {
        loop {
            if let Some((block, rest)) = self.read.split_once("\n\n") {
                let (block, rest) = (Block::of(block), rest.to_owned());
                self.read = rest;
                return Some(block);
            }
            let chunk = timeout(BOUND, self.response.chunk()).await.expect("something comes").unwrap()?;
            self.read.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next block that is more than a heartbeat.
    async fn event(&mut self) -> Block {
        loop {
            let block = self.block().await.expect("the stream goes on");
            if block.comment.is_none() {
                return block;
            }
        }
    }

    /// The ids of the next events.
    async fn ids(&mut self, count: usize) -> Vec<u64> {
        let mut ids = Vec::new();
        while ids.len() < count {
            ids.push(self.event().await.id.unwrap());
        }
        ids
    }

    /// Nothing waits: what comes next is a heartbeat.
    async fn is_idle(&mut self) {
        let block = self.block().await.unwrap();
        assert_eq!(block.comment.as_deref(), Some("heartbeat"), "{block:?}");
    }
}

fn quick() -> Settings {
    let mut settings = settings();
    settings.gateway.live_heartbeat = Duration::from_millis(300);
    settings
}

async fn stand(settings: Settings) -> Stand {
    let stand = Stand::with(World::builder("no binary").without_setup().start().await, settings).await;
    for kind in [Kind::Events, Kind::Executions] {
        stand.stream(kind, ByteSize::mib(64)).await;
    }
    stand
}

async fn watch(stand: &Stand, path: &str, token: &str, last_seen: Option<u64>) -> Watcher {
    let response = stand.open(path, token, last_seen.map(|id| id.to_string()).as_deref()).await;
    assert_eq!(response.status(), 200, "{path}");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let mut watcher = Watcher { response, read: String::new() };
    let head = watcher.block().await.unwrap();
    assert!(head.retry.is_some() && head.comment.is_some(), "{head:?}");
    watcher
}

fn producer(organization: &str) -> String {
    sign(&claims("producer", &[organization]))
}

async fn post(stand: &Stand, kind: Kind, organization: &str, body: &Value) {
    let answer = stand.post(&format!("/api/{kind}"), &producer(organization), &[], &body.to_string()).await;
    assert_eq!(answer.status, 202, "{answer:?}");
}

#[tokio::test]
async fn a_record_is_seen_by_those_who_may_and_by_nobody_else() {
    let stand = stand(quick()).await;
    let (acme, all) = (sign(&claims("viewer", &["acme"])), sign(&claims("viewer", &["*"])));
    let umbra = sign(&claims("viewer", &["umbra"]));
    let mut sees = Vec::new();
    for (path, token, ids) in [
        ("/api/live/events", &all, vec![1, 2, 3]),
        ("/api/live/events", &acme, vec![1, 3]),
        ("/api/live/events", &umbra, vec![2]),
        ("/api/live/events?organization_id=umbra", &all, vec![2]),
        ("/api/live/events?organization_id=umbra", &acme, vec![]),
        ("/api/live/executions", &all, vec![]),
    ] {
        sees.push((watch(&stand, path, token, None).await, ids));
    }
    for (n, organization) in [(1, "acme"), (2, "umbra"), (3, "acme")] {
        post(&stand, Kind::Events, organization, &event(n)).await;
    }
    for (watcher, ids) in &mut sees {
        assert_eq!(watcher.ids(ids.len()).await, *ids);
        watcher.is_idle().await;
    }
    post(&stand, Kind::Events, "acme", &event(4)).await;
    let seen = sees[1].0.event().await;
    assert_eq!((seen.id, &seen.name), (Some(4), &None));
    assert_eq!(seen.data["organization_id"], "acme");
    assert_eq!(seen.data["sequence"], 4);
    assert_eq!(seen.data["record"]["id"], event(4)["id"]);
    assert!(seen.data["subject"].as_str().unwrap().contains(".events.acme."), "{seen:?}");
    assert!(seen.data["received_at"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().is_ok());
    drop(sees);
    stand.finish().await;
}

#[tokio::test]
async fn fields_narrow_what_is_seen() {
    let stand = stand(quick()).await;
    let token = of(Role::Viewer);
    let path = "/api/live/executions?user_id=u+2&success=false";
    let mut watcher = watch(&stand, path, &token, None).await;
    for (user, success) in [("u 1", false), ("u 2", true), ("u 2", false), ("u 3", true)] {
        let mut body = record(Kind::Executions, 1);
        with(&mut body, json!({ "user_id": user, "success": success, "id": null }));
        post(&stand, Kind::Executions, "acme", &body).await;
    }
    let mut camel = record(Kind::Executions, 1);
    camel.as_object_mut().unwrap().remove("user_id");
    with(&mut camel, json!({ "userId": "u 2", "success": false, "id": null }));
    post(&stand, Kind::Executions, "acme", &camel).await;
    assert_eq!(watcher.ids(2).await, [3, 5]);
    // What is no record takes a sequence, and is left out.
    let subject = format!("{}.executions.acme.x", stand.world.name());
    stand.bus.client().request(subject, "no JSON".into()).await.unwrap();
    post(&stand, Kind::Executions, "acme", &camel).await;
    assert_eq!(watcher.ids(1).await, [7]);
    let mut all = watch(&stand, "/api/live/executions", &token, Some(4)).await;
    assert_eq!(all.ids(2).await, [5, 7]);
    for wrong in ["?user_id=", "?nonsense=1", "?event_type=x", "?organization_id=a.b", "?limit=1"] {
        stand.get(&format!("/api/live/executions{wrong}"), &token).await.problem(400);
    }
    for wrong in ["x", "-1", "18446744073709551615", ""] {
        assert_eq!(stand.open("/api/live/events", &token, Some(wrong)).await.status(), 400, "{wrong}");
    }
    stand.get("/api/live/logs", &token).await.problem(503);
    drop((watcher, all));
    stand.finish().await;
}

#[tokio::test]
async fn who_comes_back_misses_nothing_and_sees_nothing_twice() {
    let stand = stand(quick()).await;
    let (token, total) = (of(Role::Viewer), 6_000_u64);
    let posting = async {
        for part in 0..20_u64 {
            let bodies: Vec<_> =
                (part * 300..(part + 1) * 300).map(|n| event_with(n, json!({ "x": "x".repeat(500) }))).collect();
            post(&stand, Kind::Events, "acme", &json!(bodies)).await;
        }
    };
    let watching = async {
        let mut seen = 0;
        while seen < total {
            // Again and again the connection breaks, in the middle of all that comes.
            let mut watcher = watch(&stand, "/api/live/events", &token, Some(seen)).await;
            for _ in 0..total.div_ceil(7).min(total - seen) {
                let event = watcher.event().await;
                if event.name.as_deref() == Some("lost") {
                    assert_eq!(event.data["first"], seen + 1);
                    break;
                }
                assert_eq!(event.id, Some(seen + 1), "{event:?}");
                seen += 1;
            }
        }
    };
    timeout(BOUND, async { tokio::join!(posting, watching) }).await.unwrap();
    stand.finish().await;
}

#[tokio::test]
async fn what_the_stream_does_not_hold_any_more_is_told() {
    let stand = stand(quick()).await;
    let token = of(Role::Viewer);
    for n in 1..=5 {
        post(&stand, Kind::Events, "acme", &event(n)).await;
    }
    stand.bus.purge_up_to(Kind::Events, 3).await.unwrap();
    let mut watcher = watch(&stand, "/api/live/events", &token, Some(1)).await;
    let gap = watcher.event().await;
    assert_eq!((gap.name.as_deref(), gap.data), (Some("gap"), json!({ "first": 2, "last": 3 })));
    assert_eq!(watcher.ids(2).await, [4, 5]);
    // An id that this stream never gave: it is of another one, which had the same name.
    let mut other = stand.open("/api/live/events", &token, Some("77")).await;
    let text = String::from_utf8(other.chunk().await.unwrap().unwrap().to_vec()).unwrap();
    assert!(text.contains("event: gap\ndata: {\"first\":78,\"last\":null}\n\n"), "{text}");
    let mut other = Watcher { response: other, read: String::new() };
    post(&stand, Kind::Events, "acme", &event(6)).await;
    assert_eq!(other.ids(1).await, [6]);
    drop((watcher, other));
    stand.finish().await;
}

#[tokio::test]
async fn a_stream_that_was_made_anew_is_another_one() {
    let stand = stand(quick()).await;
    let token = of(Role::Viewer);
    let mut watcher = watch(&stand, "/api/live/events", &token, None).await;
    post(&stand, Kind::Events, "acme", &json!([event(1), event(2)])).await;
    assert_eq!(watcher.ids(2).await, [1, 2]);
    stand.bus.delete_stream(Kind::Events).await.unwrap();
    stand.stream(Kind::Events, ByteSize::mib(64)).await;
    // As many as before and more: the sequence alone would not tell.
    post(&stand, Kind::Events, "acme", &json!([event(3), event(4), event(5)])).await;
    let end = loop {
        let block = watcher.block().await.expect("it says why it ends");
        assert_eq!(block.id, None, "{block:?}");
        if block.retry.is_some() {
            break block;
        }
    };
    assert_eq!(end.comment.as_deref(), Some("the stream began anew"));
    assert!(watcher.block().await.is_none());
    let mut watcher = watch(&stand, "/api/live/events", &token, None).await;
    post(&stand, Kind::Events, "acme", &event(6)).await;
    assert_eq!(watcher.ids(1).await, [4]);
    drop(watcher);
    stand.finish().await;
}

#[tokio::test]
async fn who_is_slow_is_told_of_what_was_left_out() {
    let mut settings = quick();
    settings.gateway.live_queue = ByteSize::kib(64);
    let stand = stand(settings).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    let mut slow = socket.connect(stand.address).await.unwrap();
    let request = format!(
        "GET /api/live/events?event_type=large HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        of(Role::Viewer)
    );
    slow.write_all(request.as_bytes()).await.unwrap();
    // It is open, and nothing more is read of it.
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(": watching") {
        assert!(slow.read_buf(&mut read).await.unwrap() > 0);
    }
    let mut last = watch(&stand, "/api/live/events?event_type=last", &of(Role::Viewer), None).await;
    let (total, large) = (500_u64, "x".repeat(40_000));
    for part in 0..10 {
        let bodies: Vec<_> =
            (part * 50..(part + 1) * 50).map(|n| event_with(n, json!({ "event_type": "large", "x": large }))).collect();
        post(&stand, Kind::Events, "acme", &json!(bodies)).await;
    }
    post(&stand, Kind::Events, "acme", &event_with(1_000, json!({ "event_type": "last" }))).await;
    last.event().await;
    // Now it reads, and finds each of them or is told of it.
    let (mut seen, mut lost) = (0, 0);
    while seen + lost < total {
        assert!(timeout(BOUND, slow.read_buf(&mut read)).await.unwrap().unwrap() > 0, "{seen} and {lost}");
        let text = String::from_utf8_lossy(&read).into_owned();
        seen = text.matches("\nid: ").count() as u64;
        let told = text.split("event: lost\ndata: ").skip(1).filter_map(|rest| rest.split_once("\n\n"));
        lost = told.map(|(data, _)| serde_json::from_str::<Value>(data).unwrap()["count"].as_u64().unwrap()).sum();
    }
    assert_eq!(seen + lost, total);
    assert!(lost > 0 && seen > 0, "{seen} and {lost}");
    drop((slow, last));
    stand.finish().await;
}

#[tokio::test]
async fn all_streams_end_when_the_process_does() {
    let stand = stand(settings()).await;
    let mut watchers = Vec::new();
    for _ in 0..8 {
        watchers.push(watch(&stand, "/api/live/events", &of(Role::Viewer), None).await);
    }
    stand.stop.cancel();
    for watcher in &mut watchers {
        let end = watcher.block().await.unwrap();
        assert_eq!(end.comment.as_deref(), Some("the server stops"));
        assert!((1_000..5_000).contains(&end.retry.unwrap()));
        assert!(watcher.block().await.is_none());
    }
    stand.finish().await;
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let stand = stand(quick()).await;
    let mut short = claims("viewer", &["acme"]);
    // Within what clocks may differ, and soon beyond it.
    short["exp"] = json!(chrono::Utc::now().timestamp() - 25);
    let mut watcher = watch(&stand, "/api/live/events", &sign(&short), None).await;
    let end = loop {
        let block = watcher.block().await.expect("it says why it ends");
        if block.retry.is_some() {
            break block;
        }
    };
    assert_eq!(end.comment.as_deref(), Some("the token has expired"));
    assert!(watcher.block().await.is_none());
    stand.get("/api/live/events", &sign(&short)).await.problem(401);
    stand.finish().await;
}

#[tokio::test]
async fn there_is_room_for_so_many_and_no_more() {
    let mut settings = quick();
    settings.gateway.live_streams = NonZeroU32::new(2).unwrap();
    settings.gateway.live_streams_per_caller = NonZeroU32::MIN;
    let stand = stand(settings).await;
    let (viewer, admin, operator) = (of(Role::Viewer), of(Role::Admin), of(Role::Operator));
    let first = watch(&stand, "/api/live/events", &viewer, None).await;
    let refused = stand.get("/api/live/executions", &viewer).await;
    refused.problem(429);
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    let _second = watch(&stand, "/api/live/events", &admin, None).await;
    stand.get("/api/live/events", &operator).await.problem(503);
    drop(first);
    // The server notices when it writes next.
    let opened = timeout(BOUND, async {
        loop {
            let response = stand.open("/api/live/events", &operator, None).await;
            if response.status() == 200 {
                return response;
            }
        }
    });
    drop(opened.await.unwrap());
    drop(_second);
    stand.finish().await;
}

#[tokio::test]
async fn whoever_watches_the_audit_log_stands_in_it() {
    let stand = stand(quick()).await;
    let token = of(Role::Viewer);
    // Nothing takes the record: then nothing is shown.
    stand.get("/api/live/audit", &token).await.problem(503);
    stand.stream(Kind::Audit, ByteSize::mib(64)).await;
    drop(watch(&stand, "/api/live/audit?action=user.delete", &token, None).await);
    assert_eq!(stand.messages(Kind::Audit).await, 1);
    let mut watcher = watch(&stand, "/api/live/audit", &token, Some(0)).await;
    let told = watcher.event().await.data;
    assert_eq!(told["organization_id"], "acme");
    let record = &told["record"];
    assert_eq!((&record["actor_id"], &record["action"]), (&json!("a viewer"), &json!("audit.watch")), "{record}");
    assert_eq!(record["metadata"]["filters"], json!({ "action": "user.delete" }));
    assert_eq!(watcher.event().await.data["record"]["metadata"]["last_event_id"], 0);
    drop(watcher);
    stand.finish().await;
}

#[tokio::test]
async fn an_outage_of_nats_ends_no_stream_and_loses_nothing() {
    let world = World::builder("no binary").without_setup().proxies().start().await;
    let url = format!("nats://127.0.0.1:{}", world.nats_link().port());
    let stand = Stand::at(world, quick(), &url).await;
    stand.stream(Kind::Events, ByteSize::mib(64)).await;
    let mut watcher = watch(&stand, "/api/live/events", &of(Role::Viewer), None).await;
    let publish = async |n: u64| {
        let subject = format!("{}.events.acme.x", stand.world.name());
        stand.world.client().request(subject, event(n).to_string().into()).await.unwrap();
    };
    publish(1).await;
    assert_eq!(watcher.ids(1).await, [1]);
    stand.world.nats_link().cut();
    for n in 2..=50 {
        publish(n).await;
    }
    watcher.is_idle().await;
    stand.world.nats_link().restore();
    assert_eq!(watcher.ids(49).await, (2..=50).collect::<Vec<_>>());
    drop(watcher);
    stand.finish().await;
}

#[tokio::test]
async fn a_thousand_watch_at_once() {
    const WATCHERS: usize = 1_000;
    let mut settings = settings();
    settings.gateway.live_streams_per_caller = settings.gateway.live_streams;
    let stand = stand(settings).await;
    let (all, acme) = (sign(&claims("viewer", &["*"])), of(Role::Viewer));
    let mut watchers = Vec::new();
    for n in 0..WATCHERS {
        let token = if n % 2 == 0 { &all } else { &acme };
        watchers.push(watch(&stand, "/api/live/events", token, None).await);
    }
    for organization in ["acme", "umbra"] {
        let bodies: Vec<_> = (0..50).map(|n| event_with(n, json!({ "id": null }))).collect();
        post(&stand, Kind::Events, organization, &json!(bodies)).await;
    }
    let seen = watchers.iter_mut().enumerate().map(async |(n, watcher)| {
        let expected = if n % 2 == 0 { 100 } else { 50 };
        assert_eq!(watcher.ids(expected).await, (1..=expected as u64).collect::<Vec<_>>(), "{n}");
    });
    timeout(BOUND, futures::future::join_all(seen)).await.unwrap();
    drop(watchers);
    stand.finish().await;
}
