//! The measured process, which runs all workers including the gateway.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Context;
use gateway::auth::Role;
use runtime::config::Secret;
use tokio::net::TcpListener;
use tokio::time::sleep;
use uuid::Uuid;

use super::client::Client;
use crate::bench::stack::BenchStack;
use crate::bench::worker::Worker;
use crate::token::{Grant, sign};

/// How long a process may take to become ready, and how often it is asked.
const READY_WITHIN: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Lifetime of tokens, longer than any bench.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Rate limit that the bench cannot reach, since it measures the work and not the limit.
const UNBOUNDED: &str = "1000000";

pub(super) struct Serving {
    pub(super) worker: Worker,
    address: SocketAddr,
    secret: Secret,
}

impl Serving {
    /// Starts the process and waits until it is ready. Allows `streams` live streams and 1,024 further connections.
    pub(super) async fn start(stack: &BenchStack, streams: u32) -> anyhow::Result<Self> {
        let address = free_address().await?;
        let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let settings = [
            ("WATCHBOOK_HTTP_ADDR", address.to_string()),
            ("WATCHBOOK_JWT_SECRET", secret.clone()),
            ("WATCHBOOK_GATEWAY__MAX_CONNECTIONS", (streams + 1_024).to_string()),
            ("WATCHBOOK_GATEWAY__LIVE_STREAMS", streams.max(1).to_string()),
            ("WATCHBOOK_GATEWAY__REQUESTS_PER_SECOND", UNBOUNDED.to_owned()),
            ("WATCHBOOK_GATEWAY__REQUEST_BURST", UNBOUNDED.to_owned()),
            ("WATCHBOOK_GATEWAY__PUBLISHES_PER_SECOND", UNBOUNDED.to_owned()),
            ("WATCHBOOK_GATEWAY__PUBLISH_BURST", UNBOUNDED.to_owned()),
        ];
        let mut worker = Worker::start_with(stack, "all", &settings)?;
        let started = Instant::now();
        while !is_ready(address).await {
            worker.check()?;
            let is_late = started.elapsed() > READY_WITHIN;
            anyhow::ensure!(!is_late, "the process was not ready within {} s", READY_WITHIN.as_secs());
            sleep(ASK_EVERY).await;
        }
        Ok(Self { worker, address, secret: Secret::new(secret) })
    }

    /// Connects a client with a role and an organization; `*` stands for all organizations.
    pub(super) async fn client(
        &self,
        stack: &BenchStack,
        subject: &str,
        role: Role,
        organization: &str,
    ) -> anyhow::Result<Client> {
        let organizations = [organization.to_owned()];
        let grant = Grant { subject, organizations: &organizations, role, ttl: TOKEN_TTL };
        Client::connect(self.address, &sign(&self.secret, &stack.config, &grant)?).await
    }
}

/// Returns an address whose port was free a moment ago.
async fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("ask for a free port")?;
    listener.local_addr().context("read the address that was bound")
}

/// Returns whether `/readyz` reports ready. It needs no token.
async fn is_ready(address: SocketAddr) -> bool {
    match Client::connect(address, "").await {
        Ok(mut client) => client.get("/readyz").await.is_ok(),
        Err(_) => false,
    }
}
