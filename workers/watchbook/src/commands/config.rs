//! `watchbook config`: checks or shows the settings.

use crate::output;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use runtime::config::Sources;

/// Check or show the settings.
#[derive(Debug, Args)]
pub(crate) struct ConfigCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Check the file and the environment. Each problem names its file and line, or its variable.
    Check,
    /// Print the effective settings as TOML, with secrets hidden.
    Show,
}

impl ConfigCommand {
    pub(crate) fn run(self, sources: &Sources) -> anyhow::Result<ExitCode> {
        let config = crate::rules::load(sources)?;
        match self.action {
            Action::Check => match &sources.file {
                Some((path, _)) => output::say(format_args!("{}: no problems", path.display())),
                None => output::say("no configuration file; no problems in the environment"),
            },
            Action::Show => output::say(config.to_toml()?.trim_end()),
        }
        Ok(ExitCode::SUCCESS)
    }
}
