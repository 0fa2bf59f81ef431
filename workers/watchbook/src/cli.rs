//! The command line: arguments, subcommands and their dispatch.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use runtime::config::{Config, Sources};

use crate::{commands, rules};

/// Stores records from NATS JetStream in Postgres, exactly once.
///
/// Services publish events, errors, metrics, logs, audit records, executions and directory entries as JSON to
/// `watchbook.<kind>.<organization>.<detail>`. Workers store each record once, at the speed of COPY, evaluate alert
/// rules, remove expired records and serve an HTTP API.
#[derive(Debug, Parser)]
#[command(
    name = "watchbook",
    version,
    max_term_width = 100,
    after_help = "Examples:\n  watchbook up --demo                  start everything on this machine, with demo traffic\n  watchbook run --workers all          run the workers against NATS_URL and DATABASE_URL\n  watchbook status                     show each kind's stream, position and lag\n\nSettings come from watchbook.toml and the environment. `watchbook config show` prints the effective settings.\nExit codes: 0 done, 1 failed, 2 wrong usage."
)]
pub(crate) struct Arguments {
    /// Configuration file. Default: `watchbook.toml` in the current directory, if it exists.
    #[arg(long, global = true, env = "WATCHBOOK_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start NATS, Postgres and all workers on this machine.
    Up(commands::up::Up),
    /// Run workers against NATS_URL and DATABASE_URL.
    Run(commands::run::Run),
    /// Run migrations and create missing streams and partitions. Safe to repeat.
    Setup(commands::setup::Setup),
    /// Run or list migrations.
    Migrate(commands::migrate::Migrate),
    /// Publish records from NDJSON, each acknowledged by JetStream.
    Publish(commands::publish::Publish),
    /// Follow records live as they are published.
    Tail(commands::tail::Tail),
    /// Show each kind's stream, position, counts and lag.
    Status(commands::status::Status),
    /// List, show, replay and discard dead letters.
    Dead(commands::dead::Dead),
    /// Publish stored events again.
    Replay(commands::replay::Replay),
    /// Show rules and alerts; test, silence and acknowledge alerts.
    Alerts(commands::alerts::Alerts),
    /// Plan and run retention; hold, release and restore records.
    Retention(commands::retention::Retention),
    /// Erase the personal data of a user, or the executions of a strategy.
    Erase(commands::erase::Erase),
    /// Export the audit log.
    Audit(commands::audit::Audit),
    /// Create tokens for the HTTP API.
    Token(commands::token::Token),
    /// Check or show the settings.
    Config(commands::config::ConfigCommand),
    /// Diagnose problems and say how to fix each.
    Doctor(commands::doctor::Doctor),
    /// Run benchmarks and compare them with the limits of this machine.
    Bench(commands::bench::Bench),
}

impl Command {
    /// Returns the log filter used when the settings have none. Workers log at `info`; commands only warn.
    fn log_filter(&self) -> &'static str {
        match self {
            // The NATS client repeats what we log ourselves, and the scheduler logs its internals.
            Self::Up(_) | Self::Run(_) => "info,async_nats=warn,tokio_cron_scheduler=warn",
            _ => "warn",
        }
    }
}

impl Arguments {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let sources = Sources::of_process(self.config.as_deref())?;
        // Settings are checked before anything starts. `config` loads them itself, so that it can report what is wrong.
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
