//! `watchbook migrate`: runs or lists migrations.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use runtime::Config;
use store::migrations::{self, State};

use crate::{output, process};

/// Run or list database migrations. `watchbook setup` also runs them.
#[derive(Debug, Args)]
pub(crate) struct Migrate {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Run pending migrations.
    Run,
    /// List applied, pending and changed migrations.
    ///
    /// Exits with 1 if a migration was changed after it was applied, or is unknown to this build.
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

impl Migrate {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let database = process::database(&config).await?;
        let mut connection = process::connect(&database).await?;
        match self.action {
            Action::Run => {
                migrations::run(&mut connection).await?;
                output::say(format_args!("database {}: all migrations are applied", database.address()));
                Ok(ExitCode::SUCCESS)
            }
            Action::Status { json } => {
                let migrations = migrations::status(&mut connection).await?;
                if json {
                    output::json(&migrations)?;
                } else {
                    let mut table = output::table(["VERSION", "STATE", "NAME"], &[0]);
                    for migration in &migrations {
                        let state = format!("{:?}", migration.state).to_lowercase();
                        table.add_row([migration.version.to_string(), state, migration.description.clone()]);
                    }
                    output::say(format_args!("{table}"));
                }
                let sound =
                    migrations.iter().all(|migration| matches!(migration.state, State::Applied | State::Pending));
                Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
        }
    }
}
