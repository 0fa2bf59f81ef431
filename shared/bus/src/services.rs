//! The process as a NATS service: `nats micro` lists it and requests the status of each worker.
//!
//! See <https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-32.md>. The client answers
//! `$SRV.PING`, `INFO` and `STATS`. This module adds one endpoint per worker, on `<prefix>.status.<worker>`.
//!
//! Nothing depends on the service. If this user may not subscribe, the server does not answer, and the workers go on.

use std::time::Duration;

use async_nats::service::{Service, ServiceExt, endpoint::Endpoint};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{SelectAll, select_all};
use tokio::time::sleep;

use crate::Bus;

/// The name of every process in `nats micro`.
const NAME: &str = "watchbook";
/// Time between attempts to register the service. A client that accepts no subscription has ended, and another task
/// replaces it.
const OFFER_AGAIN: Duration = Duration::from_secs(5);

/// Requests to all endpoints, each with its worker.
type Requests = SelectAll<futures::stream::BoxStream<'static, (&'static str, async_nats::service::Request)>>;

impl Bus {
    /// Registers one endpoint per worker, and answers each request with `status` of the worker. Never returns: the
    /// caller drops it.
    pub async fn offer(&self, version: &str, workers: &[&'static str], status: impl Fn(&str) -> Bytes) {
        loop {
            let offered = async {
                let service = self.client().service_builder().description("Watchbook's workers").start(NAME, version);
                let service = service.await?;
                let requests = self.endpoints(&service, workers).await?;
                Ok::<_, async_nats::Error>((service, requests))
            };
            match offered.await {
                Ok((service, requests)) => answer(service, requests, &status).await,
                Err(error) => tracing::debug!(%error, "cannot register as a NATS service; trying again"),
            }
            // The client has ended.
            sleep(OFFER_AGAIN).await;
        }
    }

    async fn endpoints(&self, service: &Service, workers: &[&'static str]) -> Result<Requests, async_nats::Error> {
        let group = service.group(format!("{}.status", self.prefix));
        let mut endpoints = Vec::with_capacity(workers.len());
        for &worker in workers {
            let endpoint: Endpoint = group.endpoint_builder().name(worker).add(worker).await?;
            endpoints.push(endpoint.map(move |request| (worker, request)).boxed());
        }
        Ok(select_all(endpoints))
    }
}

/// Answers requests until the client ends. Keeps the service, because dropping it ends its endpoints.
async fn answer(_service: Service, mut requests: Requests, status: &impl Fn(&str) -> Bytes) {
    while let Some((worker, request)) = requests.next().await {
        if let Err(error) = request.respond(Ok(status(worker))).await {
            tracing::debug!(worker, %error, "cannot answer a status request");
        }
    }
}
