//! Postgres as a child.

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
/// How long an orderly end may take: up to `shared_buffers` of changed pages are written, on whatever disk.
const STOP_BOUND: Duration = Duration::from_secs(90);

/// Made for ingest on a small machine. Durability stays as Postgres has it: `fsync` and `synchronous_commit` on, and
/// autovacuum too.
const SETTINGS: [(&str, &str); 9] = [
    ("shared_buffers", "256MB"),
    // Fewer, longer checkpoints: after each one, the first change to a page logs it in whole.
    ("max_wal_size", "4GB"),
    ("checkpoint_timeout", "15min"),
    ("wal_compression", "on"),
    ("max_connections", "200"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    // To the file that its output goes to.
    ("log_destination", "stderr"),
    ("logging_collector", "off"),
];

/// How to run Postgres.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// The server's own directory: the cluster, its password, its log.
    pub data_dir: PathBuf,
    /// The port; `None` lets the system choose.
    pub port: Option<u16>,
    /// The database, made together with the cluster. Lower-case letters, digits and `_`.
    pub database: String,
    /// Settings by name, in place of the defaults.
    pub settings: Vec<(String, String)>,
    /// Whether a new cluster is synced to the disk when it is made. `false` is for tests, which throw it away; how a
    /// running server syncs is a matter of the settings.
    pub durable: bool,
}

impl PostgresOptions {
    /// The database `watchbook` on a free port.
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

/// A Postgres that runs as our child. Dropping it ends the server at once; [`PostgresServer::stop`] is the orderly way.
pub struct PostgresServer {
    server: Server<Postgres>,
    password: String,
}

/// Without the password.
impl fmt::Debug for PostgresServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresServer").field("pid", &self.pid()).field("port", &self.port()).finish_non_exhaustive()
    }
}

impl PostgresServer {
    /// Makes the cluster where there is none, starts the server and returns once it serves.
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

    /// Where clients connect, with the password in it. The same after a restart.
    pub fn url(&self) -> String {
        self.url_of(&self.server.kind().options.database)
    }

    /// The same for another database of this server, such as `postgres` or one that a test has made.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://{ROLE}:{}@127.0.0.1:{}/{database}", self.password, self.server.port())
    }

    /// The first process of the server.
    pub fn pid(&self) -> u32 {
        self.server.child().pid()
    }

    /// The port. The same after a restart.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// The server's log.
    pub fn log(&self) -> PathBuf {
        self.server.kind().directory.join(format!("{}.log", Postgres::NAME))
    }

    /// Kills it like a power cut would, and returns when it is gone.
    pub async fn kill(&self) -> Result<()> {
        self.server.kill().await
    }

    /// Stops it in an orderly way, in a bounded time: open transactions are rolled back. Harmless when it has ended
    /// already.
    pub async fn stop(&self) -> Result<Stopped> {
        self.server.stop().await
    }

    /// Stops it if it still runs, and starts it on the same port and data; returns once it serves.
    pub async fn restart(&self) -> Result<()> {
        self.server.restart().await
    }

    /// Resolves when the process that runs now has ended. The future does not borrow the server.
    pub fn wait(&self) -> impl Future<Output = ExitStatus> + Send + use<> {
        self.server.child().exited()
    }
}

/// The names go into a URL, a statement and a file without quotes.
fn check_names(options: &PostgresOptions) -> Result<()> {
    let plain = |name: &str, more: &str| {
        name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c))
            && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && name.len() < 64
    };
    if !plain(&options.database, "_") {
        bail!("{:?} cannot be a database here: lower-case letters, digits and _", options.database);
    }
    match options.settings.iter().find(|(name, _)| !plain(&name.to_ascii_lowercase(), "_.")) {
        Some((name, _)) => bail!("{name:?} is no name of a Postgres setting"),
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

    /// Postgres writes its state into a file for `pg_ctl` to wait on; so it needs neither a client nor a guess.
    async fn is_ready(&self, pid: u32, port: u16) -> bool {
        let Ok(state) = fs::read_to_string(self.directory.join("cluster/postmaster.pid")) else { return false };
        let lines: Vec<&str> = state.lines().map(str::trim).collect();
        matches!(lines[..], [its_pid, _, _, its_port, _, _, _, "ready"]
            if its_pid == pid.to_string() && its_port == port.to_string())
    }
}

fn settings(options: &PostgresOptions, port: u16) -> String {
    let mut text = String::from("# Written anew at each start. ALTER SYSTEM outlasts it.\n");
    let port = port.to_string();
    // No socket file: loopback is enough, and a path of more than 107 bytes could not hold one.
    let own = [("listen_addresses", "127.0.0.1"), ("port", &port), ("unix_socket_directories", "")];
    let asked = options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    // Of two lines for one setting, the later one counts.
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
