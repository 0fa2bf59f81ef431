//! `watchbook bench`: the figures of the README, on your machine.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use runtime::Config;

use crate::bench::{Alerts, Gateway, Pipeline, Retention};

/// Measure, beside the limit of this machine, on a stack that is started for it and removed.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Pipeline(Pipeline),
    Alerts(Alerts),
    Retention(Retention),
    Gateway(Gateway),
}

impl Bench {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        match self.what {
            What::Pipeline(pipeline) => pipeline.run(config).await,
            What::Alerts(alerts) => alerts.run(config).await,
            What::Retention(retention) => retention.run(config).await,
            What::Gateway(gateway) => gateway.run(config).await,
        }
    }
}
