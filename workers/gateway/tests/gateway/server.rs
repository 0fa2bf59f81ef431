//! Connections: what is under way when the process stops, and heads that no server should take.

use gateway::auth::Role;
use harness::messages::event;
use records::Kind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stand::Stand;
use crate::tokens::of;

/// Reads until this stands in what came, or to the end.
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
    let stand = Stand::start().await;
    stand.stream(Kind::Events, bytesize::ByteSize::mib(16)).await;
    let (token, body) = (of(Role::Producer), event(1).to_string());
    let mut stream = TcpStream::connect(stand.address).await.unwrap();
    let head = format!(
        "POST /api/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The handler waits for the body now.
    assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 100"));
    stand.stop.cancel();
    stream.write_all(body.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "accepted").await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    assert_eq!(stand.messages(Kind::Events).await, 1);
    stand.finish().await;
}

#[tokio::test]
async fn answers_are_compressed_where_it_helps() {
    let stand = Stand::start().await;
    let gzip = [("accept-encoding", "gzip")];
    assert_eq!(stand.ask("GET", "/api/openapi.json", &gzip, "").await.header("content-encoding"), "gzip");
    assert!(stand.ask("GET", "/healthz", &gzip, "").await.headers.get("content-encoding").is_none());
    stand.finish().await;
}
