//! The process as a NATS service: `nats micro` lists it, and asks each of its workers how it is.
//!
//! By <https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-32.md>. The answers to `$SRV.PING`,
//! `INFO` and `STATS` are the client's; ours are the endpoints, one a worker, on `<prefix>.status.<worker>`.
//!
//! Nothing depends on it. A server that does not let this user listen refuses in silence, and the workers go on.

use std::time::Duration;

use async_nats::service::{Service, ServiceExt, endpoint::Endpoint};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{SelectAll, select_all};
use tokio::time::sleep;

use crate::Bus;

/// What `nats micro` calls every process.
const NAME: &str = "watchbook";
/// A client that takes no subscription has ended; somebody else makes it anew, and this is how often we look.
const OFFER_AGAIN: Duration = Duration::from_secs(5);

/// Requests to all endpoints, each with the worker that it asks for.
type Requests = SelectAll<futures::stream::BoxStream<'static, (&'static str, async_nats::service::Request)>>;

impl Bus {
    /// Offers one endpoint a worker, and answers each request with what `status` says of it. Never ends by itself:
    /// whoever is done drops it.
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
                Err(error) => tracing::debug!(%error, "this process is not offered as a service; trying again"),
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

/// Answers until the client ends. The service is held, because dropping it ends its endpoints.
async fn answer(_service: Service, mut requests: Requests, status: &impl Fn(&str) -> Bytes) {
    while let Some((worker, request)) = requests.next().await {
        if let Err(error) = request.respond(Ok(status(worker))).await {
            tracing::debug!(worker, %error, "an answer to a status request is lost");
        }
    }
}
