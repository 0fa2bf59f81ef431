//! `watchbook run`: workers against what is there.

use std::process::ExitCode;

use clap::Args;
use clap::builder::PossibleValuesParser;
use records::Kind;
use runtime::Config;

use crate::process;
use crate::workers::Workers;

const ALL: &str = "all";

/// Run workers against NATS_URL and DATABASE_URL until SIGTERM or Ctrl-C.
///
/// Any number of processes may run the same workers: of each kind one writes, the others stand by and
/// take over within seconds. Each process serves /healthz, /readyz and /metrics on WATCHBOOK_HTTP_ADDR.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Which workers, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = ALL, value_parser = PossibleValuesParser::new(std::iter::once(ALL).chain(Kind::ALL.iter().map(|kind| kind.name()))))]
    workers: Vec<String>,
}

impl Run {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let bus = process::bus(&config).await?;
        let database = process::database(&config).await?;
        let workers = Workers::start(&config, &bus, &database, &self.kinds()).await?;
        if let Some(address) = workers.address {
            tracing::info!("http://{address}: /healthz /readyz /metrics");
        }
        let signal = runtime::stop_signal().await?;
        tracing::info!(signal, "stopping");
        let clean = workers.stop().await;
        Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn kinds(&self) -> Vec<Kind> {
        let is_asked = |kind: &Kind| self.workers.iter().any(|name| name == ALL || name == kind.name());
        Kind::ALL.iter().copied().filter(is_asked).collect()
    }
}
