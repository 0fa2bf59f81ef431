//! How this process connects, and under which name.

use std::time::Duration;

use anyhow::Context;
use bus::Bus;
use runtime::Config;
use store::migrations::{self, State};
use store::{Connection, Database};
use tokio_util::sync::CancellationToken;

/// `host:pid`, by which an operator finds this process.
pub(crate) fn name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = host.as_deref().map(str::trim).filter(|host| !host.is_empty()).unwrap_or("localhost");
    // Postgres keeps 63 bytes of a session's name, and the end of a long host name tells least.
    let host = &host[..host.floor_char_boundary(24)];
    format!("{host}:{}", std::process::id())
}

/// Connects to NATS.
pub(crate) async fn bus(config: &Config) -> anyhow::Result<Bus> {
    Ok(Bus::connect(&config.nats, config.nats_url()?, &format!("watchbook {}", name())).await?)
}

/// A publisher on the same connection.
pub(crate) fn publisher(config: &Config, bus: &Bus) -> anyhow::Result<publisher::Publisher> {
    Ok(publisher_builder(config).from_client(bus.client())?)
}

/// A publisher's settings, as far as they are in ours.
pub(crate) fn publisher_builder(config: &Config) -> publisher::Builder {
    let builder = publisher::Publisher::builder().prefix(config.nats.prefix.clone());
    match &config.nats.jetstream_domain {
        Some(domain) => builder.jetstream_domain(domain.clone()),
        None => builder,
    }
}

/// What somebody who waits for an answer waits for a stream's, and how often it is asked.
const IMPATIENCE: (Duration, u32) = (Duration::from_secs(3), 2);

/// A publisher for records that somebody waits with: it says sooner that the stream does not answer.
pub(crate) fn impatient_publisher(config: &Config, bus: &Bus) -> anyhow::Result<publisher::Publisher> {
    let (ack_timeout, attempts) = IMPATIENCE;
    let builder = publisher_builder(config);
    Ok(builder.ack_timeout(ack_timeout).attempts(attempts).from_client(bus.client())?)
}

/// The database, after making sure that it answers and is new enough.
pub(crate) async fn database(config: &Config) -> anyhow::Result<Database> {
    let database = Database::new(config.database_url()?, name())?;
    let mut connection = connect(&database).await?;
    store::check_server(&mut connection).await?;
    connection.close().await.ok();
    Ok(database)
}

/// One connection for a command.
pub(crate) async fn connect(database: &Database) -> anyhow::Result<store::PgConnection> {
    database.connect("command").await.with_context(|| {
        format!(
            "no Postgres to work with at {}: is it running, and are DATABASE_URL, its user and password right?",
            database.address()
        )
    })
}

/// Makes sure that the database is as this build knows it.
pub(crate) async fn check_migrations(database: &Database) -> anyhow::Result<()> {
    let mut connection = connect(database).await?;
    let migrations = migrations::status(&mut connection).await?;
    let count = |state| migrations.iter().filter(|migration| migration.state == state).count();
    let (pending, changed) = (count(State::Pending), count(State::Changed));
    anyhow::ensure!(pending == 0, "{pending} migrations are pending on {}: run `watchbook setup`", database.address());
    anyhow::ensure!(
        changed == 0,
        "{changed} migrations of {} were changed after they were run: see `watchbook migrate status`",
        database.address()
    );
    Ok(())
}

/// Cancelled by Ctrl-C and SIGTERM, from now on.
pub(crate) fn stop_token() -> CancellationToken {
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        match runtime::stop_signal().await {
            Ok(_) => token.cancel(),
            Err(error) => tracing::warn!(%error, "signals end this at once"),
        }
    });
    stop
}

/// Who acts, where not said: the user of this terminal, by number where nobody says the name.
pub(crate) fn somebody() -> String {
    use std::os::unix::fs::MetadataExt;
    let named = ["USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
    let named = named.into_iter().find(|user| !user.is_empty());
    let numbered = || std::fs::metadata("/proc/self").ok().map(|own| format!("uid {}", own.uid()));
    named.or_else(numbered).unwrap_or_else(|| "unknown".to_owned())
}

/// A name under which somebody may act, as an audit record takes it; not the one under which nobody does.
pub(crate) fn actor(name: &str) -> Result<String, String> {
    const SYSTEM: &str = "system";
    if name.is_empty() || name.len() > records::limits::ID_BYTES {
        return Err("a name is 1 to 256 bytes".to_owned());
    }
    if name == SYSTEM {
        return Err("`system` is what acts when nobody does".to_owned());
    }
    Ok(name.to_owned())
}

/// An organization, as a command's option names one.
pub(crate) fn organization(name: &str) -> Result<String, String> {
    use records::subject::{NO_ORGANIZATION, is_organization};
    if is_organization(name) && name != NO_ORGANIZATION {
        Ok(name.to_owned())
    } else {
        Err("expected an organization: 1 to 64 of A-Z a-z 0-9 _ -, and not `_` alone".to_owned())
    }
}
