//! `watchbook retention`: plans and runs retention, and manages holds.

mod history;
mod hold;
mod plan;
mod restore;
mod run;

use std::process::ExitCode;

use bytesize::ByteSize;
use clap::{Args, Subcommand};
use runtime::Config;

/// Plan and run retention; hold, release and restore records.
#[derive(Debug, Args)]
pub(crate) struct Retention {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Plan(plan::Plan),
    Run(run::Run),
    Hold(hold::Hold),
    Holds(hold::Holds),
    Release(hold::Release),
    History(history::History),
    Restore(restore::Restore),
}

impl Retention {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        match self.action {
            Action::Plan(command) => command.run(config).await,
            Action::Run(command) => command.run(config).await,
            Action::Hold(command) => command.run(config).await,
            Action::Holds(command) => command.run(config).await,
            Action::Release(command) => command.run(config).await,
            Action::History(command) => command.run(config).await,
            Action::Restore(command) => command.run(config).await,
        }
    }
}

/// Formats a number of bytes with a unit.
fn bytes(bytes: u64) -> String {
    ByteSize::b(bytes).to_string()
}
