//! `watchbook audit`: exports of the audit log.

mod atomic_file;
mod export;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use runtime::Config;

/// Export the audit log.
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
