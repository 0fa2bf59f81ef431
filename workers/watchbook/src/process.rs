//! How this process connects, and under which name.

use anyhow::Context;
use bus::Bus;
use runtime::Config;
use store::{Connection, Database};

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
    Ok(publisher::Publisher::builder().prefix(config.nats.prefix.clone()).from_client(bus.client())?)
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
