//! `watchbook config`: settings, checked or shown.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use runtime::config::Sources;

/// Check or show settings.
#[derive(Debug, Args)]
pub(crate) struct ConfigCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Check the file and the environment; problems name file and line, or the variable.
    Check,
    /// Show the effective settings as TOML, secrets hidden.
    Show,
}

impl ConfigCommand {
    pub(crate) fn run(self, sources: &Sources) -> anyhow::Result<ExitCode> {
        let config = sources.load()?;
        match self.action {
            Action::Check => match &sources.file {
                Some((path, _)) => println!("{}: no problems", path.display()),
                None => println!("no file, and no problems in the environment"),
            },
            Action::Show => print!("{}", config.to_toml()?),
        }
        Ok(ExitCode::SUCCESS)
    }
}
