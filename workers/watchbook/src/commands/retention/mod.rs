//! `watchbook retention`: what would go, what went, and what must stay.

mod history;
mod hold;
mod plan;
mod restore;
mod run;

use std::process::ExitCode;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, Subcommand};
use runtime::Config;
use store::PgConnection;

use crate::process;

/// Show, remove and keep what is too old.
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

/// How long NATS may take to take what a command has to say of itself: it is written already.
const TELL_WITHIN: Duration = Duration::from_secs(5);

/// Publishes the audit record of what a command did. Where NATS is away it waits in Postgres, for the worker.
pub(crate) async fn tell(config: &Config, connection: &mut PgConnection) {
    let told = async {
        let bus = process::bus(config).await?;
        let publisher = process::publisher(config, &bus)?;
        let published = telling::publish_own_records(connection, &publisher).await?;
        bus.close().await;
        anyhow::Ok(published)
    };
    let problem = match tokio::time::timeout(TELL_WITHIN, told).await {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => "NATS does not answer".to_owned(),
    };
    eprintln!("The audit record of this waits in Postgres, and the retention worker publishes it: {problem}");
}

/// A number of bytes, for people.
fn bytes(bytes: u64) -> String {
    ByteSize::b(bytes).to_string()
}
