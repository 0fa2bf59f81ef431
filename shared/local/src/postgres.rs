//! Postgres as a child process.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::cluster::{self, Place};
use crate::programs::Programs;
use crate::server::{Kind, Server, Start, Stopped, make_directory};
use crate::sys::Signal;

/// The role that owns everything in the cluster.
pub(crate) const ROLE: &str = "watchbook";
/// Time limit of a shutdown, in which up to `shared_buffers` of changed pages are written.
const STOP_BOUND: Duration = Duration::from_secs(90);

/// Default settings, for ingest on a small machine. Durability keeps the defaults of Postgres: `fsync`,
/// `synchronous_commit` and autovacuum stay on.
const SETTINGS: [(&str, &str); 9] = [
    ("shared_buffers", "256MB"),
    // Fewer and longer checkpoints, because the first change to a page after each one logs the whole page.
    ("max_wal_size", "4GB"),
    ("checkpoint_timeout", "15min"),
    ("wal_compression", "on"),
    ("max_connections", "200"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    // Log to standard error, which goes to the log file.
    ("log_destination", "stderr"),
    ("logging_collector", "off"),
];

/// The options of a Postgres server.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// The server's own directory, for the cluster, its password and its log.
    pub data_dir: PathBuf,
    /// The port. `None` lets the system choose one.
    pub port: Option<u16>,
    /// The database to create with the cluster. Its name consists of lower-case letters, digits and `_`.
    pub database: String,
    /// Settings that override the defaults, by name.
    pub settings: Vec<(String, String)>,
    /// Whether a new cluster is synced to disk when it is created. `false` is for tests, which discard it. It does
    /// not affect how the running server syncs.
    pub durable: bool,
}

impl PostgresOptions {
    /// Returns options for the database `watchbook` on a free port.
    pub fn new(data_dir: impl Into<PathBuf>) -> PostgresOptions {
        PostgresOptions {
            data_dir: data_dir.into(),
            port: None,
            database: "watchbook".to_owned(),
            settings: Vec::new(),
            durable: true,
        }
    }
}

/// A Postgres that runs as a child process. Dropping it stops the server immediately; use [`PostgresServer::stop`]
/// for a clean shutdown.
pub struct PostgresServer {
    server: Server<Postgres>,
    password: String,
}

/// Leaves out the password.
impl fmt::Debug for PostgresServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresServer").field("pid", &self.pid()).field("port", &self.port()).finish_non_exhaustive()
    }
}

impl PostgresServer {
    /// Creates the cluster if there is none, starts the server, and returns once it accepts connections.
    pub async fn start(programs: &Programs, options: PostgresOptions) -> Result<PostgresServer> {
        check_names(&options)?;
        let directory = make_directory(&options.data_dir)?;
        let password = cluster::make(programs, &directory, &options).await?;
        let place = cluster::place(&directory.join("cluster"))?;
        cluster::check_version(programs, &directory.join("cluster")).await?;
        let port = options.port;
        let postgres = Postgres { program: programs.postgres_bin.join("postgres"), directory, place, options };
        Ok(PostgresServer { server: Server::start(postgres, port).await?, password })
    }

    /// Returns the URL for clients, including the password. It stays the same after a restart.
    pub fn url(&self) -> String {
        self.url_of(&self.server.kind().options.database)
    }

    /// Returns the URL of another database of this server, such as `postgres`.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://{ROLE}:{}@127.0.0.1:{}/{database}", self.password, self.server.port())
    }

    /// Returns the process id of the postmaster.
    pub fn pid(&self) -> u32 {
        self.server.child().pid()
    }

    /// Returns the port. It stays the same after a restart.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// Returns the path of the server's log.
    pub fn log(&self) -> PathBuf {
        self.server.kind().directory.join(format!("{}.log", Postgres::NAME))
    }

    /// Kills the server, like a power failure would, and returns when it is gone.
    pub async fn kill(&self) -> Result<()> {
        self.server.kill().await
    }

    /// Stops the server cleanly within a limited time. Open transactions are rolled back. Does nothing if it has
    /// exited already.
    pub async fn stop(&self) -> Result<Stopped> {
        self.server.stop().await
    }

    /// Stops the server if it is running and starts it with the same port and data. Returns once it accepts
    /// connections.
    pub async fn restart(&self) -> Result<()> {
        self.server.restart().await
    }

    /// Resolves when the current process has exited. The future does not borrow the server.
    pub fn wait(&self) -> impl Future<Output = ExitStatus> + Send + use<> {
        self.server.child().exited()
    }
}

/// Checks the names that are used unquoted in a URL, a statement and a file.
fn check_names(options: &PostgresOptions) -> Result<()> {
    let plain = |name: &str, more: &str| {
        name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c))
            && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && name.len() < 64
    };
    if !plain(&options.database, "_") {
        bail!("{:?} is not a valid database name: use lower-case letters, digits and _", options.database);
    }
    match options.settings.iter().find(|(name, _)| !plain(&name.to_ascii_lowercase(), "_.")) {
        Some((name, _)) => bail!("{name:?} is not a valid name of a Postgres setting"),
        None => Ok(()),
    }
}

struct Postgres {
    program: PathBuf,
    directory: PathBuf,
    place: Place,
    options: PostgresOptions,
}

impl Kind for Postgres {
    const NAME: &'static str = "postgres";
    const STOP: Signal = Signal::Interrupt;
    const STOP_BOUND: Duration = STOP_BOUND;
    const ON_DROP: Signal = Signal::Quit;

    fn directory(&self) -> &Path {
        &self.directory
    }

    fn prepare(&self, port: u16) -> Result<()> {
        let cluster = self.directory.join("cluster");
        cluster::forget_dead_postmaster(&cluster)?;
        cluster::write_settings(&cluster, &settings(&self.options, port))
    }

    fn start(&self) -> Start {
        Start {
            program: self.program.clone(),
            arguments: vec!["-D".into(), self.place.argument()],
            user: self.place.user.clone(),
            directory: self.place.directory.clone(),
        }
    }

    /// Reads the state that Postgres writes for `pg_ctl`. This needs no client and is exact.
    async fn is_ready(&self, pid: u32, port: u16) -> bool {
        let Ok(state) = fs::read_to_string(self.directory.join("cluster/postmaster.pid")) else { return false };
        let lines: Vec<&str> = state.lines().map(str::trim).collect();
        matches!(lines[..], [its_pid, _, _, its_port, _, _, _, "ready"]
            if its_pid == pid.to_string() && its_port == port.to_string())
    }
}

fn settings(options: &PostgresOptions, port: u16) -> String {
    let mut text = String::from("# Overwritten at each start. Use ALTER SYSTEM for lasting changes.\n");
    let port = port.to_string();
    // No socket file: loopback is enough, and a path of more than 107 bytes cannot hold a socket.
    let own = [("listen_addresses", "127.0.0.1"), ("port", &port), ("unix_socket_directories", "")];
    let asked = options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    // The later of two lines for the same setting counts.
    for (name, value) in own.into_iter().chain(SETTINGS).chain(asked) {
        text += &format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''").replace('\n', "\\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asked_settings_come_after_the_defaults_and_are_quoted() {
        let mut options = PostgresOptions::new("/ignored");
        options.settings = vec![("max_connections".into(), "20".into()), ("my.note".into(), "it's\\".into())];
        let text = settings(&options, 5432);
        assert!(text.find("max_connections = '200'") < text.find("max_connections = '20'"), "{text}");
        assert!(text.contains("my.note = 'it''s\\\\'\n"), "{text}");
    }

    #[test]
    fn names_that_would_need_quotes_are_refused() {
        let mut options = PostgresOptions::new("/ignored");
        assert!(check_names(&options).is_ok());
        options.settings = vec![("TimeZone".into(), "UTC".into())];
        assert!(check_names(&options).is_ok());
        options.settings = vec![("a = 1\nb".into(), "2".into())];
        assert!(check_names(&options).is_err());
        options.settings.clear();
        options.database = "drop\"".into();
        assert!(check_names(&options).is_err());
    }
}
