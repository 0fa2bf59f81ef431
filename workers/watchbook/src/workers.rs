//! Workers: which there are, and their life within a process.

use std::net::SocketAddr;
use std::time::Instant;

use bus::Bus;
use records::Kind;
use runtime::config::HttpAddress;
use runtime::{Config, Health, Metrics, Probes, STOP_BUDGET};
use store::Database;
use store::migrations::{self, State};
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

impl Workers {
    /// Starts writers for `kinds`. Everything that only a person can mend is found here, before any
    /// of them starts.
    pub(crate) async fn start(config: &Config, bus: &Bus, database: &Database, kinds: &[Kind]) -> anyhow::Result<Self> {
        check_migrations(database).await?;
        check_streams(config, bus, kinds).await?;
        let (health, stop, tasks) = (Health::default(), CancellationToken::new(), TaskTracker::new());
        let metrics = Metrics::install()?;
        writer::describe_metrics();
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
        for &kind in kinds {
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

async fn check_migrations(database: &Database) -> anyhow::Result<()> {
    let mut connection = process::connect(database).await?;
    let migrations = migrations::status(&mut connection).await?;
    let count = |state| migrations.iter().filter(|migration| migration.state == state).count();
    let (pending, changed) = (count(State::Pending), count(State::Changed));
    anyhow::ensure!(pending == 0, "{pending} migrations are pending on {}: run `watchbook setup`", database.address());
    anyhow::ensure!(
        changed == 0,
        "{changed} migrations of {} were changed after they were run: see `watchbook migrate status`",
        database.address()
    );
    Ok(())
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
