//! `watchbook audit`: the log of who did what.

mod export;
mod whole;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use runtime::Config;

/// Take the audit log along.
#[derive(Debug, Args)]
pub(crate) struct Audit {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Export(Box<export::Export>),
}

impl Audit {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        match self.action {
            Action::Export(command) => command.run(config).await,
        }
    }
}
