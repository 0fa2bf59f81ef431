//! `watchbook config`: settings, checked or shown.

use crate::output;
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
        let config = crate::rules::load(sources)?;
        match self.action {
            Action::Check => match &sources.file {
                Some((path, _)) => output::say(format_args!("{}: no problems", path.display())),
                None => output::say("no file, and no problems in the environment"),
            },
            Action::Show => output::say(config.to_toml()?.trim_end()),
        }
        Ok(ExitCode::SUCCESS)
    }
}
