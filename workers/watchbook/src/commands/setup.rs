//! `watchbook setup`: what is missing is made.

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

/// Create what is missing: migrations, streams, partitions for the coming days.
///
/// Safe to repeat. A stream that is there with other settings is named and left alone, and the exit
/// code is 1; --update changes it, in what differs and where nats-server allows it. The role under which queries are asked may need a superuser once: then the
/// statement is shown, and everything but queries works without it.
#[derive(Debug, Args)]
pub(crate) struct Setup {
    /// Change streams that differ from the settings.
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

/// Makes what is missing, and tells each step. `false` where a stream differs and was left alone.
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

/// One line about a difference that was left alone, with how it is mended.
fn differs(stream: &str, difference: &Difference) -> String {
    format!("stream {stream}: differs: {difference}; to mend it, {}", difference.mend(stream))
}

/// Makes the role under which queries are asked, as far as this user may. Who asks none does without it, so that it is
/// missing is no failure.
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
