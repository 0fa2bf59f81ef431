//! `/healthz`, `/readyz` and `/metrics`, which every process serves.

use std::net::SocketAddr;

use anyhow::Context;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Health, Metrics};

/// The state that the probes report.
#[derive(Debug, Clone)]
pub struct Probes {
    /// The readiness of each part, for `/readyz`.
    pub health: Health,
    /// The metrics, for `/metrics`.
    pub metrics: Metrics,
}

impl Probes {
    /// Returns the routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(async || Json(serde_json::json!({ "status": "alive" }))))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self)
    }
}

async fn readyz(State(probes): State<Probes>) -> impl IntoResponse {
    let report = probes.health.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report))
}

async fn metrics(State(probes): State<Probes>) -> impl IntoResponse {
    // The content type of Prometheus' text format.
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], probes.metrics.render())
}

/// Listens on `address` and serves the probes until `stop` is cancelled. Returns the bound address and the serving
/// task.
///
/// # Errors
/// If the address cannot be bound.
pub async fn serve_probes(
    address: SocketAddr,
    probes: Probes,
    stop: CancellationToken,
) -> anyhow::Result<(SocketAddr, tokio::task::JoinHandle<std::io::Result<()>>)> {
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("listen on {address}: set WATCHBOOK_HTTP_ADDR to another address, or to `off` for none")
    })?;
    let address = listener.local_addr().context("read the address that was bound")?;
    let served =
        async move { axum::serve(listener, probes.router()).with_graceful_shutdown(stop.cancelled_owned()).await };
    Ok((address, tokio::spawn(served)))
}
