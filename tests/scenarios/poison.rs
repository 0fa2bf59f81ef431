//! Messages on which a NATS client closes its connection: nats-server stores any bytes that a producer sends.

use harness::World;
use harness::messages::event;
use records::Kind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world;

/// Publishes over the plain protocol what no client would send, and waits until the server has stored it.
async fn publish_raw(world: &World, headers: &[u8], body: &str) {
    let address = world.nats_url();
    let address = address.trim_start_matches("nats://");
    let mut link = TcpStream::connect(address).await.unwrap();
    let subject = world.subject(Kind::Events, "acme");
    let head = [b"NATS/1.0\r\n", headers, b"\r\n\r\n"].concat();
    let command = format!("HPUB {subject} {} {}\r\n", head.len(), head.len() + body.len());
    let connect = b"CONNECT {\"verbose\":false,\"headers\":true}\r\n".as_slice();
    let message = [connect, command.as_bytes(), &head, body.as_bytes(), b"\r\nPING\r\n"].concat();
    link.write_all(&message).await.unwrap();
    let mut said = Vec::new();
    while !said.windows(4).any(|window| window == b"PONG") {
        let mut piece = [0; 1024];
        let read = link.read(&mut piece).await.unwrap();
        assert!(read > 0, "the server said {}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&piece[..read]);
    }
}

#[tokio::test]
async fn a_message_on_which_the_client_gives_up_stops_nothing() {
    let world = world().own_nats().start().await;
    let worker = world.workers("events").await;
    world.publish(Kind::Events, &event(0)).await;
    world.settled_as(Kind::Events, [1, 0, 0, 0]).await;
    // A value that is not UTF-8, a line that is not a header, and a carriage return within a value, which ends the
    // client's task and not only its connection.
    for (n, headers) in [b"A: \xff".as_slice(), b"no header", b"A: b\rc"].into_iter().enumerate() {
        publish_raw(&world, headers, &event(n as u64 + 1).to_string()).await;
    }
    world.publish(Kind::Events, &event(4)).await;
    world.settled_as(Kind::Events, [5, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, 5).await;
    // Each broken connection left a consumer behind, which the server deletes by itself.
    world.readers_were_broken(30);
    world.finish([worker]).await;
}
