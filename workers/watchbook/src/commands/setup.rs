//! `watchbook setup`: creates what is missing.

use std::process::ExitCode;

use bus::{Bus, Difference, Ensured};
use chrono::Utc;
use clap::Args;
use records::Kind;
use runtime::Config;
use store::partitions::Partitions;
use store::scoped_read::{NoReader, ROLE, Reader};
use store::{Database, migrations};

use crate::{output, process};

/// Run migrations and create missing streams, partitions for the coming days, and the role for queries.
///
/// Safe to repeat. Streams whose settings differ are reported and not changed, and the exit code is 1; --update changes
/// the settings that differ, where nats-server allows it. Creating the role for queries may need a superuser once. Then
/// the statement is printed, and everything except queries works without it.
#[derive(Debug, Args)]
pub(crate) struct Setup {
    /// Change streams whose settings differ.
    #[arg(long)]
    update: bool,
}

impl Setup {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let bus = process::bus(&config).await?;
        let database = process::database(&config).await?;
        let agrees = ensure(&config, &bus, &database, self.update, &|line| output::say(format_args!("{line}"))).await?;
        Ok(if agrees { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Creates what is missing, and reports each step. Returns `false` if a stream differs and was not changed.
pub(crate) async fn ensure(
    config: &Config,
    bus: &Bus,
    database: &Database,
    update: bool,
    tell: &dyn Fn(String),
) -> anyhow::Result<bool> {
    let mut connection = process::connect(database).await?;
    let pending = |migrations: Vec<migrations::Migration>| {
        migrations.iter().filter(|m| m.state == migrations::State::Pending).count()
    };
    let before = pending(migrations::status(&mut connection).await?);
    migrations::run(&mut connection).await?;
    tell(format!("database {}: {before} migrations applied", database.address()));
    tell(format!("role {ROLE}: {}", readers(database).await?));
    let partitions = Partitions::default();
    let mut agrees = true;
    for &kind in Kind::ALL {
        partitions.ensure_ahead(&mut connection, kind, Utc::now(), config.writer.partition_days_ahead).await?;
        let stream = bus.stream_name(kind);
        match bus.ensure_stream(kind, &config.streams, update).await? {
            Ensured::Created => tell(format!("stream {stream}: created")),
            Ensured::Unchanged => tell(format!("stream {stream}: as it should be")),
            Ensured::Updated { changed, left } => {
                changed.iter().for_each(|difference| tell(format!("stream {stream}: changed: {difference}")));
                agrees &= left.is_empty();
                left.iter().for_each(|difference| tell(differs(&stream, difference)));
            }
            Ensured::Differs(differences) => {
                agrees = false;
                differences.iter().for_each(|difference| tell(differs(&stream, difference)));
            }
        }
    }
    Ok(agrees)
}

/// Returns a line about a difference that was not changed, with its fix.
fn differs(stream: &str, difference: &Difference) -> String {
    format!("stream {stream}: differs: {difference}; to fix it, {}", difference.mend(stream))
}

/// Creates the role for queries, as far as this user may. Only queries need it, so a missing role is not a failure.
async fn readers(database: &Database) -> store::Result<String> {
    let pool = database.pool("setup", 1);
    let prepared = Reader::new(pool.clone()).prepare().await;
    pool.close().await;
    match prepared {
        Ok(()) => Ok("as it should be".to_owned()),
        Err(error) => match NoReader::of(&error) {
            Some(NoReader { statement }) => Ok(format!(
                "differs: this user may not take it, and until a superuser runs `{statement}` the gateway answers no \
                 query, and neither `audit export` nor `replay events` can read"
            )),
            None => Err(error),
        },
    }
}
