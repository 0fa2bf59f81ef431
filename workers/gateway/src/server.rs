//! Connections: accepted up to a limit, closed if the client does not read, and drained when the process stops.

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

/// Time limit for receiving a request's head, and for an idle connection. Idle connections would use up the limit on
/// connections.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// Maximum size of a request's head: room for two tokens of 8 KiB, and for the other headers of browsers.
const HEAD_BYTES: usize = 64 * 1024;
/// `TCP_USER_TIMEOUT`: how long sent data may stay unacknowledged before the system closes the connection. Without it,
/// the system retransmits for a quarter of an hour to a client that lost its power or its network.
#[cfg(target_os = "linux")]
const ACKNOWLEDGES_WITHIN: Duration = Duration::from_secs(60);
/// Time for requests in progress to end when the process stops. The rest of the budget is for reporting that they did
/// not.
const DRAIN_WITHIN: Duration = STOP_BUDGET.saturating_sub(Duration::from_secs(2));
/// Wait before accepting again if the process has no file descriptors left: other connections must close first.
const OUT_OF_FILES: Duration = Duration::from_millis(100);

/// Counts an open connection until it is dropped.
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

/// Serves connections until `stop`, then drains the requests in progress. A connection whose client reads nothing for
/// `reads_within` is closed in any case: a response body is only polled when the connection has room, so it would not
/// even notice a stop.
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
        // The semaphore is never closed, so this cannot fail.
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
            // Errors of a connection, such as a disconnect, concern only its client. They are not logged.
            connection.await.ok();
            drop((connected, permit));
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_WITHIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were aborted: they did not end in time");
    }
}

/// Sets the socket options of a connection. Errors are ignored.
fn prepare(stream: &TcpStream) {
    // A response is written at once, so waiting for more data would only delay it.
    stream.set_nodelay(true).ok();
    #[cfg(target_os = "linux")]
    SockRef::from(stream).set_tcp_user_timeout(Some(ACKNOWLEDGES_WITHIN)).ok();
}

/// Wraps the router, and adds the peer of the connection to each request.
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
