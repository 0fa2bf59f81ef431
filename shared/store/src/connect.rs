//! Connecting.

use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};

/// The oldest major version that has what we use: `UNIQUE NULLS NOT DISTINCT`.
const OLDEST_MAJOR: i32 = 15;
/// A server that does not answer a connection attempt for so long is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What each session asks of the server.
const SESSION: &[(&str, &str)] = &[
    // A session that died without a word (its machine lost power) keeps its locks until the server
    // notices. First probe after 3 s of silence, then every second, dead after three: so a standby
    // takes over within seconds.
    ("tcp_keepalives_idle", "3"),
    ("tcp_keepalives_interval", "1"),
    ("tcp_keepalives_count", "3"),
    // "exists already, skipping" is the usual case and no news.
    ("client_min_messages", "warning"),
    // Every name of ours has its schema, but the one of sqlx' own table. By default a role called
    // `watchbook` looks into the schema `watchbook` first, which the first migration has just made: the
    // second run would begin a new, empty list there and find everything pending.
    ("search_path", "public"),
];

/// A database, and under which name we appear there.
#[derive(Debug, Clone)]
pub struct Database {
    options: PgConnectOptions,
    process: String,
}

impl Database {
    /// Reads a URL. `process` names this process to whoever looks at `pg_stat_activity`.
    ///
    /// # Errors
    /// Where the URL is none. The message does not repeat it, because it may hold a password.
    pub fn new(url: &str, process: impl Into<String>) -> anyhow::Result<Self> {
        const EXPECTED: &str = "DATABASE_URL is no such URL: expected postgres://user:password@host:5432/database";
        // The driver does not look at the scheme, and would go looking for Postgres on another database's port.
        anyhow::ensure!(url.starts_with("postgres://") || url.starts_with("postgresql://"), EXPECTED);
        let options = PgConnectOptions::from_str(url)
            .context(EXPECTED)?
            .options(SESSION.iter().copied())
            // The driver's own slow-statement log would print statements; our metrics carry the durations.
            .disable_statement_logging();
        Ok(Self { options, process: process.into() })
    }

    /// Where it is, without the password.
    pub fn address(&self) -> String {
        let name = self.options.get_database().unwrap_or("the default database");
        format!("{}:{}/{name}", self.options.get_host(), self.options.get_port())
    }

    /// Opens a connection of its own for `part`, to a server that takes writes.
    ///
    /// # Errors
    /// Where the server is away, refuses us, or does not answer in time.
    pub async fn connect(&self, part: &str) -> crate::Result<PgConnection> {
        let options = self.options.clone().application_name(&self.application_name(part));
        match tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&options)).await {
            Ok(connected) => connected,
            Err(_) => Err(sqlx::Error::Io(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                format!("no answer from {} within {} s", self.address(), CONNECT_TIMEOUT.as_secs()),
            ))),
        }
    }

    /// A pool for commands and questions, of at most `connections`.
    pub fn pool(&self, part: &str, connections: u32) -> PgPool {
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(CONNECT_TIMEOUT)
            .connect_lazy_with(self.options.clone().application_name(&self.application_name(part)))
    }

    /// `watchbook <process> <part>`, cut to what Postgres keeps of it.
    fn application_name(&self, part: &str) -> String {
        const NAME_BYTES: usize = 63;
        let mut name = format!("watchbook {} {part}", self.process);
        name.truncate(name.floor_char_boundary(NAME_BYTES));
        name
    }
}

/// Refuses a server that is too old, and a database that cannot hold every text.
///
/// # Errors
/// Where it is one of these, or does not answer.
pub async fn check_server(connection: &mut PgConnection) -> anyhow::Result<String> {
    let (number, name, encoding): (i32, String, String) = sqlx::query_as(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version'), current_setting('server_encoding')",
    )
    .fetch_one(connection)
    .await
    .context("ask Postgres for its version")?;
    anyhow::ensure!(
        number / 10_000 >= OLDEST_MAJOR,
        "Postgres {name} is too old: Watchbook needs {OLDEST_MAJOR} or newer"
    );
    anyhow::ensure!(
        encoding == "UTF8",
        "the database is encoded in {encoding} and cannot hold every text: create one with ENCODING 'UTF8' TEMPLATE template0"
    );
    Ok(name)
}

/// The server's clock.
///
/// # Errors
/// Where it cannot be asked.
pub async fn clock(connection: &mut PgConnection) -> crate::Result<chrono::DateTime<chrono::Utc>> {
    sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(connection).await
}
