//! Connections: accepted within bounds, ended where the other end does not read, and drained when the process stops.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use runtime::STOP_BUDGET;
#[cfg(target_os = "linux")]
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutWriter;
use tokio_util::sync::CancellationToken;

use crate::metrics;
use crate::request_context::Peer;

/// What a request's head may take to arrive, and how long a connection may wait for its next request: who keeps one
/// open for nothing takes it from others.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// A request's head at the most: a token of 8 KiB, twice, and what browsers send besides.
const HEAD_BYTES: usize = 64 * 1024;
/// What the other end may leave unacknowledged before the system ends the connection: one that lost its power or its
/// network says nothing, and would be written to for a quarter of an hour otherwise.
#[cfg(target_os = "linux")]
const ACKNOWLEDGES_WITHIN: Duration = Duration::from_secs(60);
/// What requests under way get to end when the process stops. The rest of the budget is for reporting that they did not.
const DRAIN_WITHIN: Duration = STOP_BUDGET.saturating_sub(Duration::from_secs(2));
/// Before accepting again, where the process has no file descriptor left: others have to end first.
const OUT_OF_FILES: Duration = Duration::from_millis(100);

/// Counts itself while it is there.
struct Connected;

impl Connected {
    fn new() -> Self {
        ::metrics::gauge!(metrics::CONNECTIONS).increment(1);
        Self
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        ::metrics::gauge!(metrics::CONNECTIONS).decrement(1);
    }
}

/// Serves connections until `stop`, and then lets requests under way end. One whose other end takes nothing for
/// `reads_within` is ended, whatever is under way: an answer is asked for its next part only when there is room for it,
/// so it would not even notice a stop.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    connections: usize,
    reads_within: Duration,
    stop: CancellationToken,
) {
    let (permit, graceful) = (Arc::new(Semaphore::new(connections)), GracefulShutdown::new());
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(HEAD_BYTES);
    let accepted = async || {
        // Nobody closes the semaphore.
        let permit = Arc::clone(&permit).acquire_owned().await.ok();
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => return (stream, peer, permit),
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(OUT_OF_FILES).await;
                }
            }
        }
    };
    while let Some((stream, peer, permit)) = stop.run_until_cancelled(accepted()).await {
        prepare(&stream);
        let mut stream = TimeoutWriter::new(stream);
        stream.set_timeout(Some(reads_within));
        let connection = http.serve_connection(TokioIo::new(Box::pin(stream)), from(Peer(peer.ip()), router.clone()));
        let connection = graceful.watch(connection);
        let connected = Connected::new();
        tokio::spawn(async move {
            // That the other side went away is its own business.
            connection.await.ok();
            drop((connected, permit));
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_WITHIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were broken off: they did not end in time");
    }
}

/// What the system is told of a connection. Where it cannot do it, it is done without.
fn prepare(stream: &TcpStream) {
    // An answer is written in one go: waiting for more would only delay it.
    stream.set_nodelay(true).ok();
    #[cfg(target_os = "linux")]
    SockRef::from(stream).set_tcp_user_timeout(Some(ACKNOWLEDGES_WITHIN)).ok();
}

/// The router, told whose connection it is that a request came by.
fn from(
    peer: Peer,
    router: Router,
) -> impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> {
    let router = TowerToHyperService::new(router);
    service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        router.call(request)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_system_gives_up_who_does_not_acknowledge() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        prepare(&stream);
        assert_eq!(SockRef::from(&stream).tcp_user_timeout().unwrap(), Some(ACKNOWLEDGES_WITHIN));
        assert!(stream.nodelay().unwrap());
    }
}
