//! `watchbook bench`: the figures of the guide, on your machine.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use runtime::Config;

use crate::bench::{Alerts, Gateway, Pipeline, Retention};

/// Run benchmarks and compare them with the limits of this machine.
///
/// Each benchmark starts its own NATS and Postgres in a temporary directory and removes them afterwards.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  watchbook bench pipeline --rows 500000 --rounds 3")]
pub(crate) struct Bench {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    Pipeline(Pipeline),
    Alerts(Alerts),
    Retention(Retention),
    Gateway(Gateway),
}

impl Bench {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        match self.scenario {
            Scenario::Pipeline(pipeline) => pipeline.run(config).await,
            Scenario::Alerts(alerts) => alerts.run(config).await,
            Scenario::Retention(retention) => retention.run(config).await,
            Scenario::Gateway(gateway) => gateway.run(config).await,
        }
    }
}
