//! `watchbook run`: runs workers against existing servers.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use clap::builder::PossibleValuesParser;
use runtime::Config;

use crate::process;
use crate::workers::{Worker, Workers};

const ALL: &str = "all";

/// Run workers against NATS_URL and DATABASE_URL until SIGTERM or Ctrl-C.
///
/// Any number of processes may run the same workers. One process writes each kind, one evaluates alerts and one runs
/// retention; the others are standbys and take over within seconds. Notifiers share their work. Each process serves
/// /healthz, /readyz and /metrics on WATCHBOOK_HTTP_ADDR.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  watchbook run\n  watchbook run --workers events,audit,alerts,notifier")]
pub(crate) struct Run {
    /// Workers to run, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = ALL, value_parser = PossibleValuesParser::new(std::iter::once(ALL).chain(Worker::all().map(Worker::name))))]
    workers: Vec<String>,
}

impl Run {
    pub(crate) async fn run(self, config: Config, file: Option<PathBuf>) -> anyhow::Result<ExitCode> {
        let bus = process::bus(&config).await?;
        let database = process::database(&config).await?;
        let workers = Workers::start(&config, file, &bus, &database, &self.asked(&config)).await?;
        if let Some(address) = workers.address {
            tracing::info!("http://{address}: /healthz /readyz /metrics");
        }
        let signal = runtime::stop_signal().await?;
        tracing::info!(signal, "stopping");
        let clean = workers.stop().await;
        bus.close().await;
        Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Returns the workers to run: for `all`, those that the settings allow, and any that are named.
    fn asked(&self, config: &Config) -> Vec<Worker> {
        let named = Worker::all().filter(|worker| self.workers.iter().any(|name| name == worker.name()));
        if !self.workers.iter().any(|name| name == ALL) {
            return named.collect();
        }
        let mut workers = Worker::all_of(config);
        workers
            .extend(named.filter(|worker| *worker == Worker::Gateway && !workers.contains(worker)).collect::<Vec<_>>());
        workers
    }
}
