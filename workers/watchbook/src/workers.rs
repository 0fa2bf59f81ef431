//! The workers of a process: starts them, and stops them within the budget.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alerting::receiver::Receiver;
use alerts::{AlertWorker, Rules};
use anyhow::Context;
use bus::{Bus, BusError, Difference, StreamState};
use futures::future::join_all;
use gateway::Gateway;
use notifier::Notifier;
use records::Kind;
use retention::RetentionWorker;
use runtime::config::{HttpAddress, Streams};
use runtime::{Config, Health, Metrics, Probes, STOP_BUDGET};
use store::Database;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use writer::{Settings, Writer};

use crate::process;

/// The running workers of this process.
pub(crate) struct Workers {
    /// The address of the probes, and of the gateway if it runs here; `None` if neither is served.
    pub(crate) address: Option<SocketAddr>,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// The NATS connections that were opened for single workers.
    connections: Vec<Bus>,
}

/// A worker, as selected by `run --workers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Worker {
    /// Writes the records of a kind.
    Writer(Kind),
    /// Evaluates alert rules.
    Alerts,
    /// Delivers notifications.
    Notifier,
    /// Removes expired records.
    Retention,
    /// Serves the HTTP API.
    Gateway,
}

impl Worker {
    /// Returns every worker.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let others = [Self::Alerts, Self::Notifier, Self::Retention, Self::Gateway];
        Kind::ALL.iter().copied().map(Self::Writer).chain(others)
    }

    /// Returns every worker that the settings permit: without an address, or without keys to verify tokens, there is no
    /// gateway.
    pub(crate) fn all_of(config: &Config) -> Vec<Self> {
        let missing = gateway_lacks(config);
        if let Some(missing) = missing {
            tracing::info!("running without the gateway: {missing}");
        }
        Self::all().filter(|worker| *worker != Self::Gateway || missing.is_none()).collect()
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Writer(kind) => kind.name(),
            Self::Alerts => "alerts",
            Self::Notifier => "notifier",
            Self::Retention => "retention",
            Self::Gateway => "gateway",
        }
    }
}

impl Workers {
    /// Starts these workers. Problems that only a person can fix are found before any of them starts. Rules are read
    /// again from `file` when it changes.
    pub(crate) async fn start(
        config: &Config,
        file: Option<PathBuf>,
        bus: &Bus,
        database: &Database,
        workers: &[Worker],
    ) -> anyhow::Result<Self> {
        let kinds: Vec<Kind> = workers
            .iter()
            .filter_map(|worker| if let Worker::Writer(kind) = worker { Some(*kind) } else { None })
            .collect();
        let rules = crate::rules::of(config)?;
        process::check_migrations(database).await?;
        let silent = check_streams(config, bus, &kinds).await?;
        let (health, stop, tasks) = (Health::default(), CancellationToken::new(), TaskTracker::new());
        let metrics = Metrics::install()?;
        writer::describe_metrics();
        alerts::describe_metrics();
        notifier::describe_metrics();
        retention::describe_metrics();
        gateway::describe_metrics();
        let probes = Probes { health: health.clone(), metrics };
        let mut connections = Vec::new();
        let address = match config.http.address {
            _ if workers.contains(&Worker::Gateway) => {
                let gateway = gateway(config, bus, database, probes, &health).await?;
                connections.push(gateway.0.bus.clone());
                let listening = gateway.0.listen(gateway.1, stop.clone()).await?;
                let address = listening.address;
                tasks.spawn(listening.serve());
                Some(address)
            }
            HttpAddress::Off => None,
            HttpAddress::At(address) => {
                let (address, served) = runtime::serve_probes(address, probes, stop.clone()).await?;
                tasks.spawn(async move {
                    if let Ok(Err(error)) = served.await {
                        tracing::error!(%error, "the probes are no longer served");
                    }
                });
                Some(address)
            }
        };
        let writers = Writers { health: &health, stop: &stop, tasks: &tasks };
        writers.start(config, database, &kinds, &silent, &mut connections).await?;
        let rules = crate::rules::follow(file, rules, stop.clone());
        if workers.contains(&Worker::Alerts) {
            let alerts = AlertWorker {
                name: process::name(),
                bus: connect(config, &mut connections).await?,
                database: database.clone(),
                publisher: process::publisher(config, bus)?,
                rules: rules.clone(),
                settings: alerts::Settings::of(config),
                health: health.part(Worker::Alerts.name()),
            };
            tasks.spawn(alerts.run(stop.clone()));
        }
        if workers.contains(&Worker::Notifier) {
            let notifier = Notifier {
                name: process::name(),
                bus: connect(config, &mut connections).await?,
                database: database.clone(),
                receivers: receivers(rules, stop.clone()),
                settings: notifier::Settings::of(config),
                health: health.part(Worker::Notifier.name()),
            };
            tasks.spawn(notifier.run(stop.clone()));
        }
        if workers.contains(&Worker::Retention) {
            let retention = RetentionWorker {
                name: process::name(),
                database: database.clone(),
                publisher: process::publisher(config, bus)?,
                settings: retention::Settings::of(config),
                health: health.part(Worker::Retention.name()),
            };
            tasks.spawn(retention.run(stop.clone()));
        }
        tasks.spawn(offer(connect(config, &mut connections).await?, workers, health, stop.clone()));
        tasks.close();
        Ok(Self { address, stop, tasks, connections })
    }

    /// Stops the workers: they stop reading, and settle what they have read. Returns whether all of them ended within
    /// [`STOP_BUDGET`].
    pub(crate) async fn stop(self) -> bool {
        let started = Instant::now();
        self.stop.cancel();
        let clean = tokio::time::timeout(STOP_BUDGET, self.tasks.wait()).await.is_ok();
        join_all(self.connections.iter().map(Bus::close)).await;
        let took_ms = started.elapsed().as_millis();
        if clean {
            tracing::info!(took_ms, "stopped; what was read is settled");
        } else {
            tracing::warn!(took_ms, "stopped; what was not settled in time stays in the stream and is read again");
        }
        clean
    }
}

/// Opens a connection for one worker. [`Workers::stop`] closes it.
async fn connect(config: &Config, connections: &mut Vec<Bus>) -> anyhow::Result<Bus> {
    let bus = process::bus(config).await?;
    connections.push(bus.clone());
    Ok(bus)
}

/// The context in which writers run.
pub(crate) struct Writers<'w> {
    pub(crate) health: &'w Health,
    pub(crate) stop: &'w CancellationToken,
    pub(crate) tasks: &'w TaskTracker,
}

impl Writers<'_> {
    /// Starts a writer for each kind. The writer of a kind in `silent` first waits until its stream responds.
    pub(crate) async fn start(
        &self,
        config: &Config,
        database: &Database,
        kinds: &[Kind],
        silent: &[Kind],
        connections: &mut Vec<Bus>,
    ) -> anyhow::Result<()> {
        for &kind in kinds {
            let writer = Writer {
                kind,
                // One connection each, so that a failure in one kind does not affect the others.
                bus: connect(config, connections).await?,
                database: database.clone(),
                settings: Settings::of(config, kind, kinds.len()),
                health: self.health.part(kind.name()),
            };
            let (stop, streams) = (self.stop.clone(), silent.contains(&kind).then(|| config.streams.clone()));
            self.tasks.spawn(async move {
                if let Some(streams) = streams
                    && stop.run_until_cancelled(wait_for_stream(&streams, &writer)).await.is_none()
                {
                    return;
                }
                writer.run(stop).await;
            });
        }
        Ok(())
    }
}

/// Offers this process as a NATS service, with a status for each worker, until it stops.
fn offer(bus: Bus, workers: &[Worker], health: Health, stop: CancellationToken) -> impl Future<Output = ()> + use<> {
    let names: Vec<_> = workers.iter().map(|worker| worker.name()).collect();
    let status = move |worker: &str| {
        let part = health.report().parts.remove(worker);
        serde_json::to_vec(&part).unwrap_or_default().into()
    };
    async move {
        stop.run_until_cancelled(bus.offer(env!("CARGO_PKG_VERSION"), &names, status)).await;
    }
}

/// Returns the reason why the settings permit no gateway; `None` if they do.
fn gateway_lacks(config: &Config) -> Option<&'static str> {
    if config.http.address == HttpAddress::Off {
        return Some("`address` in [http] (WATCHBOOK_HTTP_ADDR) is `off`");
    }
    let has_keys = config.http.jwt_secret.is_some() || config.gateway.jwks_url.is_some();
    (!has_keys).then_some(
        "it checks tokens by `jwt_secret` in [http] (WATCHBOOK_JWT_SECRET, at least 32 bytes: `openssl rand -hex 32`) or by `jwks_url` in [gateway], and neither is set",
    )
}

/// Returns the gateway and the address to listen on. The gateway also serves the probes.
async fn gateway(
    config: &Config,
    bus: &Bus,
    database: &Database,
    probes: Probes,
    health: &Health,
) -> anyhow::Result<(Gateway, SocketAddr)> {
    let lacks = || format!("no gateway: {}", gateway_lacks(config).unwrap_or("a setting is missing"));
    let HttpAddress::At(address) = config.http.address else { anyhow::bail!(lacks()) };
    let gateway = Gateway {
        publisher: process::impatient_publisher(config, bus)?,
        // A connection of its own, so that live streams do not slow down publishing.
        bus: process::bus(config).await?,
        database: database.clone(),
        settings: gateway::Settings::of(config).with_context(lacks)?,
        probes,
        health: health.part(Worker::Gateway.name()),
    };
    Ok((gateway, address))
}

/// Returns the receivers that are currently configured, and updates them when the rules change.
fn receivers(mut rules: watch::Receiver<Arc<Rules>>, stop: CancellationToken) -> watch::Receiver<Arc<Vec<Receiver>>> {
    let of = |rules: &Rules| Arc::new(rules.alerting.receivers.clone());
    let (sender, receivers) = watch::channel(of(&rules.borrow_and_update()));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = rules.changed() => if changed.is_err() { return },
            }
            let newest = of(&rules.borrow_and_update());
            // The notifier has ended.
            if sender.send(newest).is_err() {
                return;
            }
        }
    });
    receivers
}

/// The interval at which a stream that did not respond at the start is checked again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Checks that the streams of these kinds are safe to read. Returns the kinds whose stream does not respond although
/// others do, for example because it has no leader. Their writers check it later, and the other kinds are written
/// meanwhile.
async fn check_streams(config: &Config, bus: &Bus, kinds: &[Kind]) -> anyhow::Result<Vec<Kind>> {
    let states = join_all(kinds.iter().map(|&kind| bus.stream_state(kind))).await;
    // A missing permission looks like silence too, but only a person can fix it. The server reports it as a refusal.
    let is_outage = states.iter().any(Result::is_ok) && bus.refusals().is_empty();
    let mut silent = Vec::new();
    for (&kind, state) in kinds.iter().zip(states) {
        match state {
            Ok(state) => check_stream(&config.streams, bus, kind, &state)?,
            Err(error @ (BusError::Silent { .. } | BusError::Refused { .. })) if is_outage => {
                tracing::warn!(%kind, %error, "the stream does not answer; the other kinds are written meanwhile");
                silent.push(kind);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(silent)
}

/// Fails if the stream has settings that can lose records or prevent storing them. Logs every other difference.
fn check_stream(streams: &Streams, bus: &Bus, kind: Kind, state: &StreamState) -> anyhow::Result<()> {
    let differences = bus.stream_differences(kind, state, streams);
    let (dangerous, harmless): (Vec<_>, Vec<_>) = differences.iter().partition(|difference| difference.dangerous);
    let said = |difference: &Difference| format!("{difference}: {}", difference.mend(&state.name));
    anyhow::ensure!(
        dangerous.is_empty(),
        "the stream {} has settings that can lose records or prevent storing them: {}",
        state.name,
        dangerous.into_iter().map(said).collect::<Vec<_>>().join("; ")
    );
    for difference in harmless {
        let mend = difference.mend(&state.name);
        tracing::warn!(stream = state.name, %difference, mend, "the stream differs from the settings");
    }
    Ok(())
}

/// Waits until the stream of a writer responds and is safe to read.
async fn wait_for_stream(streams: &Streams, writer: &Writer) {
    loop {
        let problem = match writer.bus.stream_state(writer.kind).await {
            Ok(state) => match check_stream(streams, &writer.bus, writer.kind, &state) {
                Ok(()) => return,
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        writer.health.failing(problem);
        tokio::time::sleep(ASK_AGAIN).await;
    }
}
