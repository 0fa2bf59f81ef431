//! Starts, runs and stops a gateway.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use bus::Bus;
use publisher::Publisher;
use runtime::{Part, Probes};
use store::scoped_read::Reader;
use store::{Connection, Database, PgPool, gateway_keys, idempotency};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::app::{App, Parts};
use crate::auth::Verifier;
use crate::concurrency_limit::ConcurrencyLimit;
use crate::cursor::Cursors;
use crate::live::{Ids, Live};
use crate::queries::export;
use crate::quota::Quota;
use crate::rate_limit::RateLimits;
use crate::routes::{self, Route};
use crate::settings::Settings;
use crate::{body, response_memory, server};

/// Connections to Postgres for queries and keys. More would only run more queries at once than Postgres has cores.
const DATABASE_CONNECTIONS: u32 = 16;
/// Concurrent queries of one caller: half of the connections, so that slow queries of one caller leave some to others.
const QUERIES_PER_CALLER: usize = DATABASE_CONNECTIONS as usize / 2;
/// Interval of the checks of NATS and Postgres.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// Time limit of a check of Postgres, after which Postgres counts as unavailable.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);
/// Checks between two removals of idle budgets and old keys: one minute.
const CLEAN_EVERY: u64 = 12;
/// Names under which the keys for cursors and for ids of live events are stored.
const KEYS: [&str; 2] = ["cursors", "live"];

/// The HTTP API, not yet listening.
#[derive(Debug)]
pub struct Gateway {
    /// Publishes records to their streams.
    pub publisher: Publisher,
    /// Reads streams for live streams.
    pub bus: Bus,
    /// The database that queries read.
    pub database: Database,
    /// The settings.
    pub settings: Settings,
    /// Serves `/healthz`, `/readyz` and `/metrics`.
    pub probes: Probes,
    /// The gateway's part of the process's health.
    pub health: Part,
}

/// A gateway that listens.
#[derive(Debug)]
pub struct Listening {
    /// The bound address.
    pub address: SocketAddr,
    /// Every route.
    pub routes: Vec<Route>,
    listener: TcpListener,
    router: axum::Router,
    app: App,
    database: Database,
    health: Part,
}

impl Gateway {
    /// Binds the address and loads the shared keys. Errors that only a person can fix occur here.
    ///
    /// # Errors
    /// If the address cannot be bound, the keys that gateways share cannot be read from the database, or no client for
    /// the issuer's keys can be created.
    pub async fn listen(self, address: SocketAddr, stop: CancellationToken) -> anyhow::Result<Listening> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listen on {address}: set WATCHBOOK_HTTP_ADDR to another address"))?;
        let address = listener.local_addr().context("read the address that was bound")?;
        let [cursors, ids] = shared_keys(&self.database).await?;
        let memory = self.settings.gateway.memory.as_u64();
        let body_memory = Quota::new(memory, body::max_bytes_per_caller(&self.settings.gateway));
        let pool = self.database.pool("gateway", DATABASE_CONNECTIONS);
        let app = App::new(Parts {
            verifier: Verifier::new(&self.settings)?,
            rates: RateLimits::of(&self.settings.gateway),
            publisher: self.publisher,
            reader: Reader::new(pool.clone()),
            pool,
            cursors: Cursors::new(&cursors)?,
            query_limit: ConcurrencyLimit::new(QUERIES_PER_CALLER),
            body_memory,
            response_memory: Quota::new(response_memory::TOTAL_BYTES, response_memory::CALLER_BYTES),
            export_quota: Quota::new(export::AT_ONCE, export::PER_CALLER),
            live: Live::new(self.bus, Ids::new(&ids)?, &self.settings, &stop),
            stop,
            settings: self.settings,
        });
        let all = routes::all(&app);
        let (routes, router) = (all.table(), all.into_router(self.probes.router()));
        Ok(Listening { address, routes, listener, router, app, database: self.database, health: self.health })
    }
}

impl Listening {
    /// Serves requests until the gateway is stopped, then drains the requests in progress.
    pub async fn serve(self) {
        let stop = self.app.stop.clone();
        let connections = usize::try_from(self.app.settings.gateway.max_connections.get()).unwrap_or(usize::MAX);
        let connections = connections.min(Semaphore::MAX_PERMITS);
        let probe_pool = self.database.pool("gateway", 1);
        tokio::join!(
            server::serve(self.listener, self.router, connections, self.app.settings.reads_within, stop.clone()),
            stop.run_until_cancelled(run_maintenance(&self.app, &probe_pool, &self.health)),
            self_audit::run_publisher(self.database, self.app.publisher.clone(), stop.clone()),
        );
        tokio::join!(self.app.pool.close(), probe_pool.close());
    }
}

/// Returns the keys of [`KEYS`], which are stored in the database. All gateways of a database use the same keys,
/// however tokens are verified, and the keys are independent of the token issuer's.
async fn shared_keys(database: &Database) -> anyhow::Result<[Vec<u8>; 2]> {
    let mut connection = database.connect("gateway").await.context("connect for the keys that gateways share")?;
    let mut keys = KEYS.map(|_| Vec::new());
    for (key, name) in keys.iter_mut().zip(KEYS) {
        let candidate = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
        let found = gateway_keys::shared_key(&mut connection, name, &candidate).await;
        *key = found.with_context(|| format!("read the key of {name}"))?;
    }
    connection.close().await.ok();
    Ok(keys)
}

/// Checks NATS and Postgres, and removes idle budgets and old keys. Postgres is checked on a connection of its own,
/// because a busy pool is not an outage.
async fn run_maintenance(app: &App, probe_pool: &PgPool, health: &Part) {
    let mut ticks = tokio::time::interval(CHECK_EVERY);
    for look in 0_u64.. {
        ticks.tick().await;
        let answers = tokio::time::timeout(ANSWERS_WITHIN, gateway_keys::ping(probe_pool)).await;
        match answers {
            _ if !app.publisher.is_connected() => health.failing("NATS is not connected: records cannot be published"),
            Ok(Ok(())) => health.active(),
            Ok(Err(error)) => health.failing(format!("Postgres does not respond: {}", store::describe(&error))),
            Err(_) => health.failing("Postgres does not respond in time"),
        }
        if look % CLEAN_EVERY == CLEAN_EVERY - 1 {
            app.rates.evict_idle();
            app.query_limit.evict_idle();
            forget_keys(app).await;
        }
    }
}

async fn forget_keys(app: &App) {
    let forget = async {
        let mut connection = app.pool.acquire().await?;
        while idempotency::forget(&mut connection).await? {}
        Ok::<_, store::Error>(())
    };
    // Keys that stay a minute longer do no harm, and the check has already reported an outage.
    if let Err(error) = forget.await {
        tracing::debug!(error = store::describe(&error), "old idempotency keys cannot be removed; trying again");
    }
}
