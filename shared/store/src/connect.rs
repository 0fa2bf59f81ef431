//! Connections to Postgres.

use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};

/// The oldest supported major version. Watchbook uses `UNIQUE NULLS NOT DISTINCT`.
const OLDEST_MAJOR: i32 = 15;
/// Time-out of a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Settings of each session.
const SESSION: &[(&str, &str)] = &[
    // A session whose machine lost power keeps its locks until the server notices. First probe after 3 s
    // of silence, then every second, dead after three, so that a standby takes over within seconds.
    ("tcp_keepalives_idle", "3"),
    ("tcp_keepalives_interval", "1"),
    ("tcp_keepalives_count", "3"),
    // Hides the notice "already exists, skipping", which is the usual case.
    ("client_min_messages", "warning"),
    // All our names have their schema, but sqlx's own table has none. By default a role called `watchbook`
    // searches the schema `watchbook` first, which the first migration creates: the second run would then
    // start a new, empty migrations table there and find everything pending.
    ("search_path", "public"),
];

/// A database, and the name of this process in its sessions.
#[derive(Debug, Clone)]
pub struct Database {
    options: PgConnectOptions,
    process: String,
}

impl Database {
    /// Parses a URL. `process` names this process in `pg_stat_activity`.
    ///
    /// # Errors
    /// If the URL is invalid. The message does not repeat it, because it may contain a password.
    pub fn new(url: &str, process: impl Into<String>) -> anyhow::Result<Self> {
        const EXPECTED: &str = "DATABASE_URL is not a valid URL: expected postgres://user:password@host:5432/database";
        // The driver ignores the scheme, and would try to reach Postgres on another database's port.
        anyhow::ensure!(url.starts_with("postgres://") || url.starts_with("postgresql://"), EXPECTED);
        let options = PgConnectOptions::from_str(url)
            .context(EXPECTED)?
            .options(SESSION.iter().copied())
            // The driver's slow-statement log would print statements; our metrics contain the durations.
            .disable_statement_logging();
        Ok(Self { options, process: process.into() })
    }

    /// Returns host, port and database, without user and password.
    pub fn address(&self) -> String {
        let name = self.options.get_database().unwrap_or("the default database");
        format!("{}:{}/{name}", self.options.get_host(), self.options.get_port())
    }

    /// Opens a connection for `part` of the process.
    ///
    /// # Errors
    /// If the server is not reachable, refuses the connection, or does not answer within 5 s.
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

    /// Returns a lazy pool of at most `connections`, for commands and queries.
    pub fn pool(&self, part: &str, connections: u32) -> PgPool {
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(CONNECT_TIMEOUT)
            .connect_lazy_with(self.options.clone().application_name(&self.application_name(part)))
    }

    /// Returns `watchbook <process> <part>`, cut to the 63 bytes that Postgres keeps.
    fn application_name(&self, part: &str) -> String {
        const NAME_BYTES: usize = 63;
        let mut name = format!("watchbook {} {part}", self.process);
        name.truncate(name.floor_char_boundary(NAME_BYTES));
        name
    }
}

/// Checks that the server is new enough and the database is encoded in UTF-8. Returns the server's version.
///
/// # Errors
/// If a check fails, or the server does not answer.
pub async fn check_server(connection: &mut PgConnection) -> anyhow::Result<String> {
    let (number, name, encoding): (i32, String, String) = sqlx::query_as(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version'), current_setting('server_encoding')",
    )
    .fetch_one(connection)
    .await
    .context("ask Postgres for its version")?;
    anyhow::ensure!(
        number / 10_000 >= OLDEST_MAJOR,
        "Postgres {name} is too old: Watchbook needs version {OLDEST_MAJOR} or newer"
    );
    anyhow::ensure!(
        encoding == "UTF8",
        "the database encoding is {encoding}, not UTF8: create a database with ENCODING 'UTF8' TEMPLATE template0"
    );
    Ok(name)
}

/// Returns the server's clock.
///
/// # Errors
/// If the query fails.
pub async fn clock(connection: &mut PgConnection) -> crate::Result<chrono::DateTime<chrono::Utc>> {
    sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(connection).await
}
