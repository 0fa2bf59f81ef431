//! `watchbook token`: tokens for the gateway.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use gateway::auth::Role;
use runtime::Config;

use crate::token::{self, Grant};
use crate::{output, process};

/// Stands for every organization in `--org`.
const ALL: &str = "*";

/// Create tokens for the HTTP API.
#[derive(Debug, Args)]
pub(crate) struct Token {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Create a token and print only the token.
    ///
    /// It is signed with WATCHBOOK_JWT_SECRET, or with the secret that `watchbook up` keeps in its --data-dir.
    Create(Create),
}

#[derive(Debug, Args)]
struct Create {
    /// Subject of the token; recorded in audit records.
    #[arg(long = "sub", value_name = "SUBJECT", value_parser = subject)]
    subject: String,
    /// Organization whose records the token may access, or '*' for all; may be given several times.
    ///
    /// Required for every role: a token without an organization can neither read, publish nor change anything.
    #[arg(long = "org", value_name = "ORG|'*'", value_parser = organization, required = true)]
    organizations: Vec<String>,
    /// Role: viewer reads, producer also publishes, operator also silences, acknowledges and replays, admin does
    /// everything.
    #[arg(long, value_parser = PossibleValuesParser::new(Role::ALL.map(Role::name)))]
    role: String,
    /// Lifetime of the token, such as 30m, 8h or 7d.
    #[arg(long, value_name = "TIME", default_value = "8h", value_parser = ttl)]
    ttl: Duration,
    /// Data directory of `watchbook up`.
    #[arg(long, value_name = "DIR", default_value = ".watchbook")]
    data_dir: PathBuf,
}

impl Token {
    pub(crate) fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let TokenCommand::Create(create) = self.command;
        create.run(config)
    }
}

impl Create {
    fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        anyhow::ensure!(
            config.gateway.jwks_url.is_none(),
            "the gateway accepts only tokens of the issuer at `jwks_url` in [gateway]: create the token there"
        );
        let secret = token::existing_secret(config, &self.data_dir)?.with_context(|| {
            format!("no secret to sign with: set WATCHBOOK_JWT_SECRET, or pass the --data-dir of `watchbook up` ({} has none)", self.data_dir.display())
        })?;
        let role = Role::ALL.into_iter().find(|role| role.name() == self.role).context("--role")?;
        let grant = Grant { subject: &self.subject, organizations: &self.organizations, role, ttl: self.ttl };
        output::say(token::sign(&secret, config, &grant)?);
        Ok(ExitCode::SUCCESS)
    }
}

fn subject(text: &str) -> Result<String, String> {
    if (1..=records::limits::ID_BYTES).contains(&text.len()) && !text.contains('\0') {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 256 bytes".to_owned())
    }
}

fn organization(text: &str) -> Result<String, String> {
    if text == ALL { Ok(text.to_owned()) } else { process::organization(text) }
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if ttl >= Duration::from_secs(1) { Ok(ttl) } else { Err("expected at least one second".to_owned()) }
}
