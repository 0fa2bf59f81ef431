//! `watchbook replay`: publishes stored records again.

mod events;
mod message;
mod precheck;
mod publish;
mod rate_limiter;
mod source;
mod summary;
mod target;
mod time_slice;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use runtime::Config;

/// Publish stored events again.
#[derive(Debug, Args)]
pub(crate) struct Replay {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Events(Box<events::Events>),
}

impl Replay {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        match self.action {
            Action::Events(command) => command.run(config).await,
        }
    }
}
