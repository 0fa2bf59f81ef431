//! Workers: which there are, and their life within a process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use alerting::receiver::Receiver;
use alerts::{AlertWorker, Rules};
use bus::Bus;
use notifier::Notifier;
use records::Kind;
use retention::RetentionWorker;
use runtime::config::HttpAddress;
use runtime::{Config, Health, Metrics, Probes, STOP_BUDGET};
use store::Database;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use writer::{Settings, Writer};

use crate::process;

/// Workers of one process, running.
pub(crate) struct Workers {
    /// Where the probes are served.
    pub(crate) address: Option<SocketAddr>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A worker, by what `run --workers` calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Worker {
    /// Writes a kind.
    Writer(Kind),
    /// Evaluates the rules.
    Alerts,
    /// Delivers notifications.
    Notifier,
    /// Removes what is too old.
    Retention,
}

impl Worker {
    /// Every worker.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Kind::ALL.iter().copied().map(Self::Writer).chain([Self::Alerts, Self::Notifier, Self::Retention])
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Writer(kind) => kind.name(),
            Self::Alerts => "alerts",
            Self::Notifier => "notifier",
            Self::Retention => "retention",
        }
    }
}

impl Workers {
    /// Starts these workers. Everything that only a person can mend is found here, before any of them starts.
    /// `file` is where the rules are read again when it changes.
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
        check_streams(config, bus, &kinds).await?;
        let (health, stop, tasks) = (Health::default(), CancellationToken::new(), TaskTracker::new());
        let metrics = Metrics::install()?;
        writer::describe_metrics();
        alerts::describe_metrics();
        notifier::describe_metrics();
        retention::describe_metrics();
        let address = match config.http.address {
            HttpAddress::Off => None,
            HttpAddress::At(address) => {
                let probes = Probes { health: health.clone(), metrics };
                let (address, served) = runtime::serve_probes(address, probes, stop.clone()).await?;
                tasks.spawn(async move {
                    if let Ok(Err(error)) = served.await {
                        tracing::error!(%error, "the probes are not served any more");
                    }
                });
                Some(address)
            }
        };
        for &kind in &kinds {
            let writer = Writer {
                kind,
                // Of its own: what breaks the connection of one kind leaves the others alone.
                bus: process::bus(config).await?,
                database: database.clone(),
                settings: Settings::of(config, kind, kinds.len()),
                health: health.part(kind.name()),
            };
            tasks.spawn(writer.run(stop.clone()));
        }
        let rules = crate::rules::follow(file, rules, stop.clone());
        if workers.contains(&Worker::Alerts) {
            let alerts = AlertWorker {
                name: process::name(),
                bus: process::bus(config).await?,
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
                bus: process::bus(config).await?,
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
        tasks.close();
        Ok(Self { address, stop, tasks })
    }

    /// Stops reading, flushes, settles, and says whether that was clean: every worker ended within the budget.
    pub(crate) async fn stop(self) -> bool {
        let started = Instant::now();
        self.stop.cancel();
        let clean = tokio::time::timeout(STOP_BUDGET, self.tasks.wait()).await.is_ok();
        let took_ms = started.elapsed().as_millis();
        if clean {
            tracing::info!(took_ms, "stopped; what was read is settled");
        } else {
            tracing::warn!(took_ms, "stopped; what was not settled in time stays in the stream and is read again");
        }
        clean
    }
}

/// The receivers of the rules in force.
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
            // Nobody listens any more: the notifier has ended.
            if sender.send(newest).is_err() {
                return;
            }
        }
    });
    receivers
}

async fn check_streams(config: &Config, bus: &Bus, kinds: &[Kind]) -> anyhow::Result<()> {
    for &kind in kinds {
        let state = bus.stream_state(kind).await?;
        for difference in bus.stream_differences(kind, &state, &config.streams) {
            if difference.dangerous {
                anyhow::bail!(
                    "the stream {} has settings with which records can be lost: {difference}. `watchbook setup --update` changes what can be changed; a stream of another storage or retention has to be made anew",
                    state.name
                );
            }
            tracing::warn!(stream = state.name, %difference, "the stream differs from the settings; `watchbook setup --update` changes it");
        }
    }
    Ok(())
}
