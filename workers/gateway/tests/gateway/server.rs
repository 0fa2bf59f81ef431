//! Tests connections: requests in progress when the process stops, and callers that do not read.

use std::num::NonZeroU32;
use std::time::Duration;

use bytesize::ByteSize;
use gateway::auth::Role;
use harness::messages::{event, event_with};
use harness::{BOUND, eventually};
use records::Kind;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::audit;
use crate::sample_rows::gateway_with_rows;
use crate::test_gateway::{TestGateway, settings};
use crate::tokens::{claims, of, sign};

/// Reads until the input contains this text, or to the end.
async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut read = Vec::new();
    loop {
        let came = stream.read_buf(&mut read).await.unwrap();
        let so_far = String::from_utf8_lossy(&read);
        if came == 0 || so_far.contains(text) {
            return so_far.into_owned();
        }
    }
}

#[tokio::test]
async fn a_request_under_way_ends_before_the_process_does() {
    let gateway = TestGateway::start().await;
    gateway.stream(Kind::Events, ByteSize::mib(16)).await;
    let (token, body) = (of(Role::Producer), event(1).to_string());
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let head = format!(
        "POST /api/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The handler waits for the body now.
    assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 100"));
    gateway.stop.cancel();
    stream.write_all(body.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "accepted").await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    assert_eq!(gateway.messages(Kind::Events).await, 1);
    gateway.finish().await;
}

#[tokio::test]
async fn answers_are_compressed_where_it_helps() {
    let gateway = TestGateway::start().await;
    let gzip = [("accept-encoding", "gzip")];
    assert_eq!(gateway.request("GET", "/api/openapi.json", &gzip, "").await.header("content-encoding"), "gzip");
    assert!(gateway.request("GET", "/healthz", &gzip, "").await.headers.get("content-encoding").is_none());
    gateway.finish().await;
}

/// Sends a request and reads only the first line of the response.
async fn ask_and_read_nothing(gateway: &TestGateway, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    let mut stream = socket.connect(gateway.address).await.unwrap();
    let token = of(Role::Viewer);
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    timeout(BOUND, stream.read_exact(&mut head)).await.expect("it is answered").unwrap();
    assert_eq!(&head, b"HTTP/1.1 200", "{path}");
    stream
}

#[tokio::test]
async fn who_does_not_read_makes_room_for_others() {
    let mut settings = settings();
    settings.reads_within = Duration::from_millis(200);
    settings.gateway.max_connections = NonZeroU32::MIN;
    let gateway = audit::gateway_with(settings).await;
    // More than fits into the buffers between the two ends.
    audit::audit_events(&gateway, "acme", 60_000).await;
    gateway
        .world
        .execute("UPDATE control_plane.audit_logs SET reason = repeat('x', 10000) WHERE actor_id = 'u-1'")
        .await;
    for path in ["/api/audit/export", "/api/audit?limit=1000&actor_id=u-1"] {
        let mut stalled = ask_and_read_nothing(&gateway, path).await;
        // There is room for one connection: this one is accepted when the other has ended, which has to be sooner than
        // the system would end it.
        let mut next = TcpStream::connect(gateway.address).await.unwrap();
        next.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let answer = timeout(BOUND / 2, read_until(&mut next, "\r\n\r\n")).await.expect("there is room");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let mut rest = Vec::new();
        // Reset or closed: either way the last chunk is missing.
        let _ = timeout(BOUND, stalled.read_to_end(&mut rest)).await.expect("it has ended");
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{} bytes of {path} look complete", rest.len());
    }
    gateway.finish().await;
}

/// Returns a token with a role for `acme` and this subject.
fn of_somebody(name: &str, role: Role) -> String {
    let mut claims = claims(role.name(), &["acme"]);
    claims["sub"] = json!(name);
    sign(&claims)
}

#[tokio::test]
async fn who_does_not_read_leaves_others_their_answers() {
    let gateway = audit::gateway_with(settings()).await;
    audit::audit_events(&gateway, "acme", 1_000).await;
    gateway.world.execute("UPDATE control_plane.audit_logs SET reason = repeat('x', 10000)").await;
    let (path, token) = ("/api/audit?limit=1000", of(Role::Viewer));
    let mut unread = Vec::new();
    let refused = loop {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        timeout(BOUND, stream.read_exact(&mut status)).await.expect("it is answered").unwrap();
        if &status != b"HTTP/1.1 200" {
            break timeout(BOUND, read_until(&mut stream, "unread-answers")).await.unwrap();
        }
        unread.push(stream);
        assert!(unread.len() < 100, "nothing bounds what is held");
    };
    assert!(refused.contains("retry-after") && refused.contains("unread-answers"), "{refused}");
    let somebody = of_somebody("somebody else", Role::Viewer);
    assert_eq!(gateway.get(path, &somebody).await.status, 200);
    assert_eq!(gateway.get("/api/audit?limit=1", &token).await.status, 200, "small answers are not held");
    drop(unread);
    eventually("what is not read any more is given back", async || {
        let status = gateway.get(path, &token).await.status;
        if status == 200 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    gateway.finish().await;
}

#[tokio::test]
async fn whose_questions_are_slow_leaves_others_the_database() {
    let gateway = gateway_with_rows().await;
    let mut locking = gateway.world.database().begin().await.unwrap();
    sqlx::query("LOCK TABLE watchbook.error_logs IN ACCESS EXCLUSIVE MODE").execute(&mut *locking).await.unwrap();
    let request = format!("GET /api/errors HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", of(Role::Viewer));
    let others = of_somebody("somebody else", Role::Viewer);
    let mut asking = Vec::new();
    // The callers of the first round disconnect while they wait, and their requests continue without them.
    for _ in 0..2 {
        asking.clear();
        for _ in 0..24 {
            let mut stream = TcpStream::connect(gateway.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            asking.push(stream);
        }
        eventually("as many wait as may", async || {
            let waiting =
                "SELECT count(*) FROM pg_locks WHERE relation = 'watchbook.error_logs'::regclass AND NOT granted";
            let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&mut *locking).await.unwrap();
            if waiting >= 8 { Ok(()) } else { Err(format!("{waiting} wait")) }
        })
        .await;
        for path in ["/api/events", "/api/audit"] {
            assert_eq!(gateway.get(path, &others).await.status, 200, "{path}");
        }
    }
    locking.rollback().await.unwrap();
    for stream in &mut asking {
        let answer = timeout(BOUND, read_until(stream, "\r\n\r\n")).await.expect("it is answered");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn who_sends_slowly_leaves_others_their_bodies() {
    let gateway = TestGateway::start().await;
    gateway.stream(Kind::Events, ByteSize::mib(16)).await;
    let (slow, body) = (of(Role::Producer), event(1).to_string());
    let mut sending = Vec::new();
    // Half of [gateway] memory, of which no byte is sent.
    for _ in 0..8 {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        let head = format!(
            "POST /api/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {slow}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
            4 << 20
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 100"));
        sending.push(stream);
    }
    let refused = gateway.post("/api/events", &slow, &[], &body).await;
    refused.problem(429);
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    let other = of_somebody("somebody else", Role::Producer);
    assert_eq!(gateway.post("/api/events", &other, &[], &body).await.status, 202);
    let sign_in = json!({ "token": other }).to_string();
    let signed_in = gateway.request("POST", "/api/session", &[("content-type", "application/json")], &sign_in).await;
    assert_eq!(signed_in.status, 200, "{signed_in:?}");
    drop(sending);
    eventually("what does not come any more is given back", async || {
        let status = gateway.post("/api/events", &slow, &[], &body).await.status;
        if status == 202 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    gateway.finish().await;
}

#[tokio::test]
async fn who_watches_and_does_not_read_gives_up_the_place() {
    let mut settings = settings();
    settings.reads_within = Duration::from_millis(200);
    settings.gateway.live_streams = NonZeroU32::MIN;
    let gateway = TestGateway::with(harness::World::builder("no binary").without_setup().start().await, settings).await;
    gateway.stream(Kind::Events, ByteSize::mib(256)).await;
    let mut stalled = ask_and_read_nothing(&gateway, "/api/live/events").await;
    let (body, producer) =
        (json!(vec![event_with(1, json!({ "id": null, "x": "x".repeat(40_000) })); 50]), of(Role::Producer));
    let freed = async {
        loop {
            // Until all buffers are full, and the permit is free.
            assert_eq!(gateway.post("/api/events", &producer, &[], &body.to_string()).await.status, 202);
            let response = gateway.open("/api/live/events", &producer, None).await;
            if response.status() == 200 {
                return response;
            }
        }
    };
    drop(timeout(BOUND / 2, freed).await.expect("the place is free"));
    let _ = timeout(BOUND, stalled.read_to_end(&mut Vec::new())).await.expect("it has ended");
    gateway.finish().await;
}

#[tokio::test]
async fn who_reads_is_left_alone_however_little_there_is() {
    let mut settings = settings();
    settings.reads_within = Duration::from_millis(1);
    settings.gateway.live_heartbeat = Duration::from_millis(50);
    let gateway = TestGateway::with(harness::World::builder("no binary").without_setup().start().await, settings).await;
    gateway.stream(Kind::Events, ByteSize::mib(16)).await;
    let mut stream = ask_and_read_nothing(&gateway, "/api/live/events").await;
    for _ in 0..5 {
        let read = timeout(BOUND, read_until(&mut stream, ": heartbeat")).await.unwrap();
        assert!(read.contains(": heartbeat"), "{read}");
    }
    drop(stream);
    gateway.finish().await;
}
