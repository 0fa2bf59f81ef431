//! `watchbook alerts`: rules, alert states, silences and acknowledgements.

mod ack;
mod backtest;
mod list;
mod rules;
mod silence;
mod test;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use runtime::Config;

/// Show rules and alerts; test, silence and acknowledge alerts.
#[derive(Debug, Args)]
pub(crate) struct Alerts {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Rules(rules::Rules),
    List(list::List),
    Test(test::Test),
    Silence(silence::Silence),
    Ack(ack::Ack),
    Backtest(backtest::Backtest),
}

impl Alerts {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        match self.action {
            Action::Rules(command) => command.run(config).await,
            Action::List(command) => command.run(config).await,
            Action::Test(command) => command.run(config).await,
            Action::Silence(command) => command.run(config).await,
            Action::Ack(command) => command.run(config).await,
            Action::Backtest(command) => command.run(config).await,
        }
    }
}

/// Formats labels as `name=value` pairs; `-` if there are none.
fn words(labels: &alerting::notification::Labels) -> String {
    let pairs: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if pairs.is_empty() { "-".to_owned() } else { pairs.join(" ") }
}
