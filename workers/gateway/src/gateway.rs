//! The life of a gateway.

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

/// Connections to Postgres for queries and keys: more would only make it do more at once than it has cores for.
const DATABASE_CONNECTIONS: u32 = 16;
/// Queries of one caller that are asked at once: of the connections half, so that others find one however slow these are.
const QUERIES_PER_CALLER: usize = DATABASE_CONNECTIONS as usize / 2;
/// How often is looked whether NATS and Postgres are there, and whether anything is to be forgotten.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// What a look at Postgres may take before it counts as away.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);
/// Looks between two cleanings of budgets and keys: a minute.
const CLEAN_EVERY: u64 = 12;
/// Under which names the keys of cursors and of the ids of live events are kept.
const KEYS: [&str; 2] = ["cursors", "live"];

/// Answers HTTP.
#[derive(Debug)]
pub struct Gateway {
    /// Puts records into their streams.
    pub publisher: Publisher,
    /// Reads the streams for whoever watches them live.
    pub bus: Bus,
    /// Where queries are answered from.
    pub database: Database,
    /// How it behaves.
    pub settings: Settings,
    /// What is answered at `/healthz`, `/readyz` and `/metrics`.
    pub probes: Probes,
    /// How it tells how it is.
    pub health: Part,
}

/// A gateway that listens.
#[derive(Debug)]
pub struct Listening {
    /// Where.
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
    /// Listens. Everything that only a person can mend is found here.
    ///
    /// # Errors
    /// Where the address cannot be listened on, or the database does not give the keys that gateways share.
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
    /// Answers until the gateway is stopped, and then lets requests under way end.
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

/// The keys of [`KEYS`]. However tokens are checked, they are the database's: so all of its gateways understand each
/// other, and know nothing that an issuer of tokens does.
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

/// Looks whether what answers need is there, and forgets what is not needed any more. On a connection of its own: that
/// all others are busy is no outage.
async fn run_maintenance(app: &App, probe_pool: &PgPool, health: &Part) {
    let mut ticks = tokio::time::interval(CHECK_EVERY);
    for look in 0_u64.. {
        ticks.tick().await;
        let answers = tokio::time::timeout(ANSWERS_WITHIN, gateway_keys::ping(probe_pool)).await;
        match answers {
            _ if !app.publisher.is_connected() => health.failing("NATS is away: nothing can be posted"),
            Ok(Ok(())) => health.active(),
            Ok(Err(error)) => health.failing(format!("Postgres does not answer: {}", store::describe(&error))),
            Err(_) => health.failing("Postgres does not answer in time"),
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
    // Keys that stay a minute longer do no harm; an outage is told of by the look before.
    if let Err(error) = forget.await {
        tracing::debug!(error = store::describe(&error), "old idempotency keys are still there");
    }
}
