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
    id: Option<String>,
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
                ("id", id) => block.id = Some(id.trim().to_owned()),
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
pub(crate) struct Watcher {
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

    /// The records of the next events, by their numbers.
    pub(crate) async fn numbers(&mut self, count: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            numbers.push(number(&self.event().await));
        }
        numbers
    }

    /// The next id, be it that of a heartbeat.
    async fn id(&mut self) -> String {
        loop {
            if let Some(id) = self.block().await.expect("the stream goes on").id {
                return id;
            }
        }
    }

    /// Nothing waits: what comes next is a heartbeat.
    pub(crate) async fn is_idle(&mut self) {
        let block = self.block().await.unwrap();
        assert_eq!(block.comment.as_deref(), Some("heartbeat"), "{block:?}");
    }
}

/// Which record an event brings.
fn number(event: &Block) -> u64 {
    event.data["record"]["n"].as_u64().unwrap_or_else(|| panic!("{event:?}"))
}

pub(crate) fn quick() -> Settings {
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

pub(crate) async fn watch(stand: &Stand, path: &str, token: &str, last_seen: Option<&str>) -> Watcher {
    let response = stand.open(path, token, last_seen).await;
    assert_eq!(response.status(), 200, "{path}");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let mut watcher = Watcher { response, read: String::new() };
    let head = watcher.block().await.unwrap();
    assert!(head.retry.is_some() && head.comment.is_some(), "{head:?}");
    watcher
}

/// The id of what is before all that will come.
async fn here(stand: &Stand, kind: Kind) -> String {
    watch(stand, &format!("/api/live/{kind}"), &sign(&claims("viewer", &["*"])), None).await.id().await
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
        assert_eq!(watcher.numbers(ids.len()).await, *ids);
        watcher.is_idle().await;
    }
    post(&stand, Kind::Events, "acme", &event(4)).await;
    let (of_all, seen) = (sees[0].0.event().await, sees[1].0.event().await);
    assert_eq!(of_all.id, seen.id, "an event has one id");
    assert_eq!((seen.id.as_ref().unwrap().len(), &seen.name), (43, &None));
    assert_eq!(seen.data["organization_id"], "acme");
    let members: Vec<_> = seen.data.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["organization_id", "received_at", "record", "subject"], "nothing that counts others");
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
    let mut unfiltered = watch(&stand, "/api/live/executions", &token, None).await;
    for (n, user, success) in [(1, "u 1", false), (2, "u 2", true), (3, "u 2", false), (4, "u 3", true)] {
        let mut body = record(Kind::Executions, n);
        with(&mut body, json!({ "user_id": user, "success": success, "id": null }));
        post(&stand, Kind::Executions, "acme", &body).await;
    }
    let mut camel = record(Kind::Executions, 5);
    camel.as_object_mut().unwrap().remove("user_id");
    with(&mut camel, json!({ "userId": "u 2", "success": false, "id": null }));
    post(&stand, Kind::Executions, "acme", &camel).await;
    assert_eq!(watcher.numbers(2).await, [3, 5]);
    // What is no record takes a sequence, and is left out.
    let subject = format!("{}.executions.acme.x", stand.world.name());
    stand.bus.client().request(subject, "no JSON".into()).await.unwrap();
    with(&mut camel, json!({ "n": 7 }));
    post(&stand, Kind::Executions, "acme", &camel).await;
    assert_eq!(watcher.numbers(1).await, [7]);
    assert_eq!(unfiltered.numbers(3).await, [1, 2, 3]);
    let fourth = unfiltered.event().await.id.unwrap();
    let mut all = watch(&stand, "/api/live/executions", &token, Some(&fourth)).await;
    assert_eq!(all.numbers(2).await, [5, 7]);
    for wrong in ["?user_id=", "?nonsense=1", "?event_type=x", "?organization_id=a.b", "?limit=1"] {
        stand.get(&format!("/api/live/executions{wrong}"), &token).await.problem(400);
    }
    stand.get("/api/live/logs", &token).await.problem(503);
    drop((watcher, unfiltered, all));
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
    let start = here(&stand, Kind::Events).await;
    let watching = async {
        let (mut seen, mut last) = (0, start.clone());
        while seen < total {
            // Again and again the connection breaks, in the middle of all that comes.
            let mut watcher = watch(&stand, "/api/live/events", &token, Some(&last)).await;
            for _ in 0..total.div_ceil(7).min(total - seen) {
                let event = watcher.event().await;
                if event.name.as_deref() == Some("lost") {
                    // With the id of the event before they are had again.
                    assert!(event.data["count"].as_u64().unwrap() > 0 && event.id.is_none(), "{event:?}");
                    break;
                }
                assert_eq!(number(&event), seen, "{event:?}");
                (seen, last) = (seen + 1, event.id.unwrap());
            }
        }
    };
    timeout(BOUND, async { tokio::join!(posting, watching) }).await.unwrap();
    stand.finish().await;
}

#[tokio::test]
async fn what_the_stream_does_not_hold_any_more_is_told() {
    let stand = stand(quick()).await;
    let (token, all) = (of(Role::Viewer), sign(&claims("viewer", &["*"])));
    let start = here(&stand, Kind::Events).await;
    for (n, organization) in [(1, "acme"), (2, "umbra"), (3, "acme"), (4, "acme"), (5, "acme")] {
        post(&stand, Kind::Events, organization, &event(n)).await;
    }
    let first = watch(&stand, "/api/live/events", &token, Some(&start)).await.event().await.id.unwrap();
    stand.bus.purge_up_to(Kind::Events, 3).await.unwrap();
    for (token, figures) in [(&all, json!({ "first": 2, "last": 3 })), (&token, json!({ "first": null, "last": null }))]
    {
        let mut watcher = watch(&stand, "/api/live/events", token, Some(&first)).await;
        let gap = watcher.event().await;
        assert_eq!((gap.name.as_deref(), &gap.data), (Some("gap"), &figures));
        assert_eq!(watcher.numbers(2).await, [4, 5]);
        // Who comes back behind the gap is not told of it again.
        let mut watcher = watch(&stand, "/api/live/events", token, gap.id.as_deref()).await;
        assert_eq!(watcher.numbers(2).await, [4, 5]);
    }
    stand.finish().await;
}

#[tokio::test]
async fn what_is_no_id_is_refused_and_what_is_one_is_that_of_every_gateway() {
    let mut stand = stand(quick()).await;
    let (acme, umbra) = (of(Role::Viewer), sign(&claims("viewer", &["umbra"])));
    let start = here(&stand, Kind::Events).await;
    let changed = format!("{}{}", &start[..42], if start.ends_with('A') { "B" } else { "A" });
    for (path, wrong) in [
        ("/api/live/events", "x"),
        ("/api/live/events", ""),
        ("/api/live/events", "0"),
        ("/api/live/events", "4711"),
        ("/api/live/events", &changed),
        ("/api/live/events", &start[1..]),
        // Of another kind.
        ("/api/live/executions", &start),
    ] {
        let bearer = format!("Bearer {acme}");
        let answer = stand.ask("GET", path, &[("authorization", &bearer), ("last-event-id", wrong)], "").await;
        assert_eq!(answer.problem(400)["errors"][0]["field"], "Last-Event-ID", "{path}: {wrong}");
    }
    post(&stand, Kind::Events, "acme", &event(1)).await;
    stand.ask_another(quick()).await;
    post(&stand, Kind::Events, "umbra", &event(2)).await;
    // An id says where, and the token what is seen from there on.
    for (token, number) in [(&acme, 1), (&umbra, 2)] {
        let mut watcher = watch(&stand, "/api/live/events", token, Some(&start)).await;
        assert_eq!(watcher.numbers(1).await, [number]);
        watcher.is_idle().await;
    }
    stand.finish().await;
}

#[tokio::test]
async fn a_stream_that_was_made_anew_is_another_one() {
    let stand = stand(quick()).await;
    let token = of(Role::Viewer);
    let mut watcher = watch(&stand, "/api/live/events", &token, None).await;
    post(&stand, Kind::Events, "acme", &json!([event(1), event(2)])).await;
    assert_eq!(number(&watcher.event().await), 1);
    let seen = watcher.event().await;
    assert_eq!(number(&seen), 2);
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
    // Who comes back is told, and gets all of the new one.
    let response = stand.open("/api/live/events", &token, seen.id.as_deref()).await;
    let mut back = Watcher { response, read: String::new() };
    assert!(back.block().await.unwrap().retry.is_some());
    let gap = back.block().await.unwrap();
    assert_eq!((gap.name.as_deref(), gap.id), (Some("gap"), None));
    assert_eq!(gap.data, json!({ "first": null, "last": null }));
    assert_eq!(back.numbers(3).await, [3, 4, 5]);
    let mut watcher = watch(&stand, "/api/live/events", &token, None).await;
    post(&stand, Kind::Events, "acme", &event(6)).await;
    assert_eq!(watcher.numbers(1).await, [6]);
    assert_eq!(back.numbers(1).await, [6]);
    drop((watcher, back));
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
        // What is lost of others is not told.
        let other = event_with(part, json!({ "event_type": "large", "x": large }));
        post(&stand, Kind::Events, "umbra", &other).await;
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
    stand.stream(Kind::Audit, ByteSize::mib(64)).await;
    let start = here(&stand, Kind::Audit).await;
    let path = "/api/live/audit?action=audit.watch";
    let mut watcher = watch(&stand, path, &token, None).await;
    // It is written before the first line, and comes into the stream like any record.
    let told = watcher.event().await;
    assert_eq!(told.data["organization_id"], "acme");
    let record = &told.data["record"];
    assert_eq!((&record["actor_id"], &record["action"]), (&json!("a viewer"), &json!("audit.watch")), "{record}");
    let (ip_address, target) = (&record["ip_address"], &record["target_id"]);
    assert_eq!((ip_address, target), (&json!("127.0.0.1/32"), &json!("acme")), "{record}");
    let metadata = &record["metadata"];
    assert_eq!(metadata["filters"], json!({ "action": "audit.watch" }));
    assert_eq!((&metadata["last_event_id"], &metadata["organizations"]), (&Value::Null, &json!(["acme"])));
    let mut watcher = watch(&stand, path, &token, Some(&start)).await;
    assert_eq!(watcher.event().await.id, told.id);
    assert_eq!(watcher.event().await.data["record"]["metadata"]["last_event_id"], start);
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
    assert_eq!(watcher.numbers(1).await, [1]);
    stand.world.nats_link().cut();
    for n in 2..=50 {
        publish(n).await;
    }
    watcher.is_idle().await;
    stand.world.nats_link().restore();
    assert_eq!(watcher.numbers(49).await, (2..=50).collect::<Vec<_>>());
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
        let organizations = if n % 2 == 0 { 2 } else { 1 };
        let expected = (0..50).collect::<Vec<_>>().repeat(organizations);
        assert_eq!(watcher.numbers(expected.len()).await, expected, "{n}");
    });
    timeout(BOUND, futures::future::join_all(seen)).await.unwrap();
    drop(watchers);
    stand.finish().await;
}
