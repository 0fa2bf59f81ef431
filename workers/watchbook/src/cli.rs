//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use runtime::config::{Config, Sources};

use crate::{commands, rules};

/// Records of what happens: from NATS JetStream into Postgres, exactly once.
///
/// Services publish events, errors, metrics, logs, audit records and executions as JSON to
/// `watchbook.<kind>.<organization>.<detail>`; workers store each once, at the speed of COPY.
///
/// `watchbook up --demo` brings everything up on this machine, with traffic to look at.
#[derive(Debug, Parser)]
#[command(
    name = "watchbook",
    version,
    max_term_width = 100,
    after_help = "Settings come from watchbook.toml and the environment: `watchbook config show` lists them.\nExit codes: 0 done, 1 failed, 2 wrong usage."
)]
pub(crate) struct Arguments {
    /// The configuration file; `watchbook.toml` here where it exists.
    #[arg(long, global = true, env = "WATCHBOOK_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on this machine: NATS, Postgres and all workers.
    Up(commands::up::Up),
    /// Run workers against NATS_URL and DATABASE_URL.
    Run(commands::run::Run),
    /// Create what is missing: migrations, streams, partitions. Safe to repeat.
    Setup(commands::setup::Setup),
    /// Run or list migrations.
    Migrate(commands::migrate::Migrate),
    /// Publish records, one JSON object a line, each acknowledged.
    Publish(commands::publish::Publish),
    /// Follow live records.
    Tail(commands::tail::Tail),
    /// Show where each kind's writer stands, and whether it adds up.
    Status(commands::status::Status),
    /// List, show, replay and discard dead letters.
    Dead(commands::dead::Dead),
    /// Publish stored records again.
    Replay(commands::replay::Replay),
    /// Show rules and alerts, test, silence and acknowledge them.
    Alerts(commands::alerts::Alerts),
    /// Show, remove and keep what is too old.
    Retention(commands::retention::Retention),
    /// Erase what is stored of a user or a strategy.
    Erase(commands::erase::Erase),
    /// Take the audit log along.
    Audit(commands::audit::Audit),
    /// Make tokens for the gateway.
    Token(commands::token::Token),
    /// Check or show settings.
    Config(commands::config::ConfigCommand),
    /// Find what is wrong, with how to mend it.
    Doctor(commands::doctor::Doctor),
    /// Measure, beside the limit of this machine.
    Bench(commands::bench::Bench),
}

impl Command {
    /// What is logged unless the settings say: a worker's life is of interest, a command's is not.
    fn log_filter(&self) -> &'static str {
        match self {
            // The NATS client tells again what we tell ourselves, and the scheduler how it is made.
            Self::Up(_) | Self::Run(_) => "info,async_nats=warn,tokio_cron_scheduler=warn",
            _ => "warn",
        }
    }
}

impl Arguments {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let sources = Sources::of_process(self.config.as_deref())?;
        // Checked before anything starts, and shown even where it is wrong.
        if let Command::Config(command) = self.command {
            return command.run(&sources);
        }
        let config: Config = rules::load(&sources)?;
        let filter = config.log.filter.as_deref().unwrap_or(self.command.log_filter());
        runtime::start_logging(config.log.format, filter)?;
        match self.command {
            Command::Up(command) => command.run(config, self.config).await,
            Command::Run(command) => command.run(config, self.config).await,
            Command::Setup(command) => command.run(config).await,
            Command::Migrate(command) => command.run(config).await,
            Command::Publish(command) => command.run(config).await,
            Command::Tail(command) => command.run(config).await,
            Command::Status(command) => command.run(config).await,
            Command::Dead(command) => command.run(config).await,
            Command::Replay(command) => command.run(config).await,
            Command::Alerts(command) => command.run(config).await,
            Command::Retention(command) => command.run(config).await,
            Command::Erase(command) => command.run(config).await,
            Command::Audit(command) => command.run(config).await,
            Command::Token(command) => command.run(&config),
            Command::Doctor(command) => command.run(config).await,
            // The largest of these futures: on the heap, so that every other command need not carry its size.
            Command::Bench(command) => Box::pin(command.run(config)).await,
            Command::Config(command) => command.run(&sources),
        }
    }
}
