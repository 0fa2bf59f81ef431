//! Tests live streams: records reach callers that may see them, within the memory budget.

use std::num::NonZeroU32;

use bytesize::ByteSize;
use gateway::auth::Role;
use harness::BOUND;
use harness::messages::{event, event_with, record, with};
use records::Kind;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use crate::test_gateway::settings;
use crate::tokens::{claims, of, sign};
use crate::watcher::{gateway, here, post, quick, watch};

#[tokio::test]
async fn a_record_is_seen_by_those_who_may_and_by_nobody_else() {
    let gateway = gateway(quick()).await;
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
        sees.push((watch(&gateway, path, token, None).await, ids));
    }
    for (n, organization) in [(1, "acme"), (2, "umbra"), (3, "acme")] {
        post(&gateway, Kind::Events, organization, &event(n)).await;
    }
    for (watcher, ids) in &mut sees {
        assert_eq!(watcher.numbers(ids.len()).await, *ids);
        watcher.is_idle().await;
    }
    post(&gateway, Kind::Events, "acme", &event(4)).await;
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
    gateway.finish().await;
}

#[tokio::test]
async fn fields_narrow_what_is_seen() {
    let gateway = gateway(quick()).await;
    let token = of(Role::Viewer);
    let path = "/api/live/executions?user_id=u+2&success=false";
    let mut watcher = watch(&gateway, path, &token, None).await;
    let mut unfiltered = watch(&gateway, "/api/live/executions", &token, None).await;
    for (n, user, success) in [(1, "u 1", false), (2, "u 2", true), (3, "u 2", false), (4, "u 3", true)] {
        let mut body = record(Kind::Executions, n);
        with(&mut body, json!({ "user_id": user, "success": success, "id": null }));
        post(&gateway, Kind::Executions, "acme", &body).await;
    }
    let mut camel = record(Kind::Executions, 5);
    camel.as_object_mut().unwrap().remove("user_id");
    with(&mut camel, json!({ "userId": "u 2", "success": false, "id": null }));
    post(&gateway, Kind::Executions, "acme", &camel).await;
    assert_eq!(watcher.numbers(2).await, [3, 5]);
    // A message that is not a record takes a sequence, and is left out.
    let subject = format!("{}.executions.acme.x", gateway.world.name());
    gateway.bus.client().request(subject, "no JSON".into()).await.unwrap();
    with(&mut camel, json!({ "n": 7 }));
    post(&gateway, Kind::Executions, "acme", &camel).await;
    assert_eq!(watcher.numbers(1).await, [7]);
    assert_eq!(unfiltered.numbers(3).await, [1, 2, 3]);
    let fourth = unfiltered.event().await.id.unwrap();
    let mut all = watch(&gateway, "/api/live/executions", &token, Some(&fourth)).await;
    assert_eq!(all.numbers(2).await, [5, 7]);
    for wrong in ["?user_id=", "?nonsense=1", "?event_type=x", "?organization_id=a.b", "?limit=1"] {
        gateway.get(&format!("/api/live/executions{wrong}"), &token).await.problem(400);
    }
    gateway.get("/api/live/logs", &token).await.problem(503);
    drop((watcher, unfiltered, all));
    gateway.finish().await;
}

#[tokio::test]
async fn who_is_slow_is_told_of_what_was_left_out() {
    let mut settings = quick();
    settings.gateway.live_queue = ByteSize::kib(64);
    let gateway = gateway(settings).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    let mut slow = socket.connect(gateway.address).await.unwrap();
    let request = format!(
        "GET /api/live/events?event_type=large HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        of(Role::Viewer)
    );
    slow.write_all(request.as_bytes()).await.unwrap();
    // The connection is open, and nothing more is read from it.
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(": watching") {
        assert!(slow.read_buf(&mut read).await.unwrap() > 0);
    }
    let mut last = watch(&gateway, "/api/live/events?event_type=last", &of(Role::Viewer), None).await;
    let (total, large) = (500_u64, "x".repeat(40_000));
    for part in 0..10 {
        // Lost records of other organizations are not reported.
        let other = event_with(part, json!({ "event_type": "large", "x": large }));
        post(&gateway, Kind::Events, "umbra", &other).await;
        let bodies: Vec<_> =
            (part * 50..(part + 1) * 50).map(|n| event_with(n, json!({ "event_type": "large", "x": large }))).collect();
        post(&gateway, Kind::Events, "acme", &json!(bodies)).await;
    }
    post(&gateway, Kind::Events, "acme", &event_with(1_000, json!({ "event_type": "last" }))).await;
    last.event().await;
    // From now on it reads, and gets each record or a report that it was lost.
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
    gateway.finish().await;
}

#[tokio::test]
async fn all_streams_end_when_the_process_does() {
    let gateway = gateway(settings()).await;
    let mut watchers = Vec::new();
    for _ in 0..8 {
        watchers.push(watch(&gateway, "/api/live/events", &of(Role::Viewer), None).await);
    }
    gateway.stop.cancel();
    for watcher in &mut watchers {
        let end = watcher.block().await.unwrap();
        assert_eq!(end.comment.as_deref(), Some("the server stops"));
        assert!((1_000..5_000).contains(&end.retry.unwrap()));
        assert!(watcher.block().await.is_none());
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let gateway = gateway(quick()).await;
    let mut short = claims("viewer", &["acme"]);
    // Within the allowed clock difference now, and soon beyond it.
    short["exp"] = json!(chrono::Utc::now().timestamp() - 25);
    let mut watcher = watch(&gateway, "/api/live/events", &sign(&short), None).await;
    let end = loop {
        let block = watcher.block().await.expect("it says why it ends");
        if block.retry.is_some() {
            break block;
        }
    };
    assert_eq!(end.comment.as_deref(), Some("the token has expired"));
    assert!(watcher.block().await.is_none());
    gateway.get("/api/live/events", &sign(&short)).await.problem(401);
    gateway.finish().await;
}

#[tokio::test]
async fn there_is_room_for_so_many_and_no_more() {
    let mut settings = quick();
    settings.gateway.live_streams = NonZeroU32::new(2).unwrap();
    settings.gateway.live_streams_per_caller = NonZeroU32::MIN;
    let gateway = gateway(settings).await;
    let (viewer, admin, operator) = (of(Role::Viewer), of(Role::Admin), of(Role::Operator));
    let first = watch(&gateway, "/api/live/events", &viewer, None).await;
    let refused = gateway.get("/api/live/executions", &viewer).await;
    refused.problem(429);
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    let _second = watch(&gateway, "/api/live/events", &admin, None).await;
    gateway.get("/api/live/events", &operator).await.problem(503);
    drop(first);
    // The server notices at its next write.
    let opened = timeout(BOUND, async {
        loop {
            let response = gateway.open("/api/live/events", &operator, None).await;
            if response.status() == 200 {
                return response;
            }
        }
    });
    drop(opened.await.unwrap());
    drop(_second);
    gateway.finish().await;
}

#[tokio::test]
async fn whoever_watches_the_audit_log_stands_in_it() {
    let gateway = gateway(quick()).await;
    let token = of(Role::Viewer);
    gateway.stream(Kind::Audit, ByteSize::mib(64)).await;
    let start = here(&gateway, Kind::Audit).await;
    let path = "/api/live/audit?action=audit.watch";
    let mut watcher = watch(&gateway, path, &token, None).await;
    // The audit event is written before the first line, and reaches the stream like any record.
    let told = watcher.event().await;
    assert_eq!(told.data["organization_id"], "acme");
    let record = &told.data["record"];
    assert_eq!((&record["actor_id"], &record["action"]), (&json!("a viewer"), &json!("audit.watch")), "{record}");
    let (ip_address, target) = (&record["ip_address"], &record["target_id"]);
    assert_eq!((ip_address, target), (&json!("127.0.0.1/32"), &json!("acme")), "{record}");
    let metadata = &record["metadata"];
    assert_eq!(metadata["filters"], json!({ "action": "audit.watch" }));
    assert_eq!((&metadata["last_event_id"], &metadata["organizations"]), (&Value::Null, &json!(["acme"])));
    let mut watcher = watch(&gateway, path, &token, Some(&start)).await;
    assert_eq!(watcher.event().await.id, told.id);
    assert_eq!(watcher.event().await.data["record"]["metadata"]["last_event_id"], start);
    drop(watcher);
    gateway.finish().await;
}

#[tokio::test]
async fn a_thousand_watch_at_once() {
    const WATCHERS: usize = 1_000;
    let mut settings = settings();
    settings.gateway.live_streams_per_caller = settings.gateway.live_streams;
    let gateway = gateway(settings).await;
    let (all, acme) = (sign(&claims("viewer", &["*"])), of(Role::Viewer));
    let mut watchers = Vec::new();
    for n in 0..WATCHERS {
        let token = if n % 2 == 0 { &all } else { &acme };
        watchers.push(watch(&gateway, "/api/live/events", token, None).await);
    }
    for organization in ["acme", "umbra"] {
        let bodies: Vec<_> = (0..50).map(|n| event_with(n, json!({ "id": null }))).collect();
        post(&gateway, Kind::Events, organization, &json!(bodies)).await;
    }
    let seen = watchers.iter_mut().enumerate().map(async |(n, watcher)| {
        let organizations = if n % 2 == 0 { 2 } else { 1 };
        let expected = (0..50).collect::<Vec<_>>().repeat(organizations);
        assert_eq!(watcher.numbers(expected.len()).await, expected, "{n}");
    });
    timeout(BOUND, futures::future::join_all(seen)).await.unwrap();
    drop(watchers);
    gateway.finish().await;
}
