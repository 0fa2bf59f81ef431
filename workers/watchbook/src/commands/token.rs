//! `watchbook token`: tokens for the gateway.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use gateway::auth::Role;
use records::subject;
use runtime::Config;

use crate::output;
use crate::token::{self, Grant};

/// In `--org`: every organization.
const ALL: &str = "*";

/// Make tokens for the gateway.
#[derive(Debug, Args)]
pub(crate) struct Token {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token and print it, and nothing else.
    ///
    /// It is signed with WATCHBOOK_JWT_SECRET, or with the secret that `watchbook up` keeps in its --data-dir.
    Create(Create),
}

#[derive(Debug, Args)]
struct Create {
    /// Whose token it is: stands in audit records.
    #[arg(long = "sub", value_name = "SUBJECT")]
    subject: String,
    /// An organization whose records it is good for, or `*` for all; may be given several times.
    #[arg(long = "org", value_name = "ORG")]
    organizations: Vec<String>,
    /// What it allows: viewer reads, producer also posts, operator also silences, acknowledges and replays, admin all.
    #[arg(long, value_parser = PossibleValuesParser::new(Role::ALL.map(Role::name)))]
    role: String,
    /// How long it is good for, such as 30m, 8h or 7d.
    #[arg(long, value_name = "TIME", default_value = "8h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// Where `watchbook up` keeps its data.
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
            (1..=256).contains(&self.subject.len()) && !self.subject.contains('\0'),
            "--sub has to be 1 to 256 bytes"
        );
        for organization in &self.organizations {
            anyhow::ensure!(
                organization == ALL
                    || (subject::is_organization(organization) && organization != subject::NO_ORGANIZATION),
                "--org {organization}: expected 1 to 64 of A-Z a-z 0-9 _ -, or `*`"
            );
        }
        anyhow::ensure!(self.ttl >= Duration::from_secs(1), "--ttl has to be at least a second");
        anyhow::ensure!(
            config.gateway.jwks_url.is_none(),
            "the gateway takes tokens of the issuer at `jwks_url` in [gateway]: only that one can make them"
        );
        let secret = token::existing_secret(config, &self.data_dir)?.with_context(|| {
            format!("no secret to sign with: set WATCHBOOK_JWT_SECRET, or give the --data-dir of `watchbook up` ({} has none)", self.data_dir.display())
        })?;
        let role = Role::ALL.into_iter().find(|role| role.name() == self.role).context("--role")?;
        let grant = Grant { subject: &self.subject, organizations: &self.organizations, role, ttl: self.ttl };
        output::say(token::sign(&secret, config, &grant)?);
        Ok(ExitCode::SUCCESS)
    }
}
