//! Connections of this process to NATS and Postgres, and its name.

use std::time::Duration;

use anyhow::Context;
use bus::Bus;
use runtime::Config;
use store::migrations::{self, State};
use store::{Connection, Database};
use tokio_util::sync::CancellationToken;

/// Returns `host:pid`, which identifies this process to an operator.
pub(crate) fn name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = host.as_deref().map(str::trim).filter(|host| !host.is_empty()).unwrap_or("localhost");
    // Postgres keeps 63 bytes of `application_name`. The end of a long host name is the least useful part.
    let host = &host[..host.floor_char_boundary(24)];
    format!("{host}:{}", std::process::id())
}

/// Connects to NATS.
pub(crate) async fn bus(config: &Config) -> anyhow::Result<Bus> {
    Ok(Bus::connect(&config.nats, config.nats_url()?, &format!("watchbook {}", name())).await?)
}

/// Returns a publisher on the connection of `bus`.
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

/// Acknowledgement time-out and attempts of [`impatient_publisher`].
const IMPATIENCE: (Duration, u32) = (Duration::from_secs(3), 2);

/// Returns a publisher for interactive use, which gives up sooner if the stream does not answer.
pub(crate) fn impatient_publisher(config: &Config, bus: &Bus) -> anyhow::Result<publisher::Publisher> {
    let (ack_timeout, attempts) = IMPATIENCE;
    let builder = publisher_builder(config);
    Ok(builder.ack_timeout(ack_timeout).attempts(attempts).from_client(bus.client())?)
}

/// Returns the database after checking that it answers and is Postgres 15 or newer.
pub(crate) async fn database(config: &Config) -> anyhow::Result<Database> {
    let database = Database::new(config.database_url()?, name())?;
    let mut connection = connect(&database).await?;
    store::check_server(&mut connection).await?;
    connection.close().await.ok();
    Ok(database)
}

/// Opens one connection for a command.
pub(crate) async fn connect(database: &Database) -> anyhow::Result<store::PgConnection> {
    database.connect("command").await.with_context(|| {
        format!(
            "cannot connect to Postgres at {}: is it running, and are DATABASE_URL, its user and password right?",
            database.address()
        )
    })
}

/// Checks that all migrations of this build are applied and unchanged.
pub(crate) async fn check_migrations(database: &Database) -> anyhow::Result<()> {
    let mut connection = connect(database).await?;
    let migrations = migrations::status(&mut connection).await?;
    let count = |state| migrations.iter().filter(|migration| migration.state == state).count();
    let (pending, changed) = (count(State::Pending), count(State::Changed));
    anyhow::ensure!(pending == 0, "{pending} migrations are pending on {}: run `watchbook setup`", database.address());
    anyhow::ensure!(
        changed == 0,
        "{changed} migrations on {} were changed after they were applied: see `watchbook migrate status`",
        database.address()
    );
    Ok(())
}

/// Returns a token that Ctrl-C or SIGTERM cancels.
pub(crate) fn stop_token() -> CancellationToken {
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        match runtime::stop_signal().await {
            Ok(_) => token.cancel(),
            Err(error) => tracing::warn!(%error, "cannot handle signals; Ctrl-C will stop the process at once"),
        }
    });
    stop
}

/// Returns the default actor: the name of the current user, or `uid N`.
pub(crate) fn somebody() -> String {
    use std::os::unix::fs::MetadataExt;
    let named = ["USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
    let named = named.into_iter().find(|user| !user.is_empty());
    let numbered = || std::fs::metadata("/proc/self").ok().map(|own| format!("uid {}", own.uid()));
    named.or_else(numbered).unwrap_or_else(|| "unknown".to_owned())
}

/// Parses the name of an actor for an audit event. Refuses `system`, which stands for actions without a person.
pub(crate) fn actor(name: &str) -> Result<String, String> {
    const SYSTEM: &str = "system";
    if name.is_empty() || name.len() > records::limits::ID_BYTES {
        return Err("expected a name of 1 to 256 bytes".to_owned());
    }
    if name == SYSTEM {
        return Err("`system` is reserved for actions that nobody started; give another name".to_owned());
    }
    Ok(name.to_owned())
}

/// Parses the organization of an option.
pub(crate) fn organization(name: &str) -> Result<String, String> {
    use records::subject::{NO_ORGANIZATION, is_organization};
    if is_organization(name) && name != NO_ORGANIZATION {
        Ok(name.to_owned())
    } else {
        Err("expected an organization: 1 to 64 characters of A-Z a-z 0-9 _ -, and not `_` alone".to_owned())
    }
}
