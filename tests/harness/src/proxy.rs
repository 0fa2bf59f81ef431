//! A TCP proxy that can cut and freeze a connection.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// The state of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Open,
    /// Connections are closed, new ones as soon as they arrive.
    Cut,
    /// Connections are accepted and kept, but nothing passes, not even the end of a connection.
    Frozen,
}

/// Listens on its own port and forwards everything unless told otherwise. Dropping it cuts the link.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    link: watch::Sender<Link>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy to a port of this machine.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let own_port = listener.local_addr().expect("an address").port();
        let (link, seen) = watch::channel(Link::Open);
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let accepting = tokio::spawn(accept(listener, target, seen));
        Self { port: own_port, link, accepting }
    }

    /// Returns the port on which it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Closes every connection and refuses new ones.
    pub fn cut(&self) {
        self.link.send_replace(Link::Cut);
    }

    /// Keeps every connection but forwards nothing, like a network that drops packets.
    pub fn freeze(&self) {
        self.link.send_replace(Link::Frozen);
    }

    /// Forwards everything again.
    pub fn restore(&self) {
        self.link.send_replace(Link::Open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, link: watch::Receiver<Link>) {
    // Dropped with this task, which closes every connection.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted && *link.borrow() != Link::Cut {
                    connections.spawn(pass(stream, target, link.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn pass(near: TcpStream, target: SocketAddr, mut link: watch::Receiver<Link>) {
    let (mut before, there, back) = (link.clone(), link.clone(), link.clone());
    let passing = async {
        before.wait_for(|link| *link != Link::Frozen).await.ok()?;
        let far = TcpStream::connect(target).await.ok()?;
        // Small messages are sent at once, as without a proxy.
        near.set_nodelay(true).ok()?;
        far.set_nodelay(true).ok()?;
        let (near_read, near_write) = near.into_split();
        let (far_read, far_write) = far.into_split();
        tokio::select! {
            () = pump(near_read, far_write, there) => {}
            () = pump(far_read, near_write, back) => {}
        }
        Some(())
    };
    tokio::select! {
        _ = passing => {}
        _ = link.wait_for(|link| *link == Link::Cut) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut link: watch::Receiver<Link>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await;
        if link.wait_for(|link| *link != Link::Frozen).await.is_err() {
            return;
        }
        match read {
            Ok(0) | Err(_) => return,
            Ok(bytes) => {
                if to.write_all(&buffer[..bytes]).await.is_err() {
                    return;
                }
            }
        }
    }
}
