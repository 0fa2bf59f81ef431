//! nats-server and Postgres: one of each for all tests of a process, and others for the tests that break them.
//!
//! All data is in one directory. The servers die with this process, whatever ends it (`local` takes care of that).
//! A janitor process notices the end of this process by a pipe and then removes the directory. Nothing relies on
//! destructors, because shared statics are never dropped.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};

use chrono::Utc;
use local::{
    NatsOptions, NatsServer, PostgresOptions, PostgresServer, Programs, ProgressCallback, RequiredPrograms, cache_dir,
};
use records::Kind;
use sqlx::{Connection, PgConnection};
use store::Database;
use store::partitions::Partitions;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::wait::eventually;

/// The database that is copied for each test.
const TEMPLATE: &str = "template_of_tests";
/// The default of `watchbook setup`, so that a copy equals a fresh installation.
const PARTITION_DAYS_AHEAD: u32 = 3;
/// The janitor. It retries for 30 s, because a server that is shutting down may still write.
const JANITOR: &str =
    r#"cat; i=0; until rm -rf "$0" 2>/dev/null; do i=$((i+1)); [ $i -lt 300 ] || exit 1; sleep 0.1; done"#;

/// Returns the directory of this process, which is removed after its end.
fn run_directory() -> &'static Path {
    static RUN: OnceLock<(PathBuf, Child)> = OnceLock::new();
    let (path, _) = RUN.get_or_init(|| {
        let directory = tempfile::Builder::new().prefix("watchbook-tests-").tempdir().expect("a temporary directory");
        let path = directory.keep();
        // A separate process group, so that Ctrl-C does not end the janitor first. It does not inherit our output,
        // so that a reader of it does not wait for the janitor.
        let janitor = Command::new("sh")
            .args(["-c", JANITOR])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("start the janitor");
        (path, janitor)
    });
    path
}

/// Creates a directory below that of this process.
pub(crate) fn directory(name: &str) -> TempDir {
    tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(run_directory()).expect("a temporary directory")
}

async fn programs() -> &'static Programs {
    static PROGRAMS: OnceCell<Programs> = OnceCell::const_new();
    let locate = || async {
        let on_progress: ProgressCallback = Arc::new(|line: &str| {
            // Fetching a program takes a while, so the reason is printed.
            let _ = writeln!(std::io::stderr(), "{line}");
        });
        Programs::locate(&cache_dir(), RequiredPrograms::BOTH, &on_progress).await.expect("nats-server and Postgres")
    };
    PROGRAMS.get_or_init(locate).await
}

/// A server with its directory, for one test.
#[derive(Debug)]
pub struct OwnServer<S> {
    // Declared before the directory, so that it is dropped first.
    server: S,
    directory: TempDir,
}

impl<S> std::ops::Deref for OwnServer<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.server
    }
}

impl<S> OwnServer<S> {
    /// Returns the data directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// Starts a nats-server with modified options.
pub async fn start_nats(change: impl FnOnce(&mut NatsOptions)) -> OwnServer<NatsServer> {
    let directory = directory("nats");
    let mut options = NatsOptions::new(directory.path());
    change(&mut options);
    let server = NatsServer::start(programs().await, options).await.expect("start nats-server");
    OwnServer { server, directory }
}

/// A port of the loopback address that is free now, for what a server has to be told before it starts.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("bind a port");
    listener.local_addr().expect("its address").port()
}

/// Starts a cluster of nats-servers with JetStream, of which the n-th has the tag `node-n` for the placement of
/// streams, and returns when they have elected a leader.
pub async fn start_nats_cluster(size: usize) -> Vec<OwnServer<NatsServer>> {
    let ports: Vec<_> = (0..size).map(|_| free_port()).collect();
    let routes: Vec<_> = ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
    let mut servers = Vec::new();
    for (n, port) in ports.iter().enumerate() {
        let config = format!(
            "server_tags: [\"node-{n}\"]\ncluster {{ name: tests, listen: \"127.0.0.1:{port}\", routes: [{}] }}",
            routes.join(", ")
        );
        let change = |options: &mut NatsOptions| {
            options.extra_config = config;
            options.server_name = Some(format!("node-{n}"));
        };
        servers.push(start_nats(change).await);
    }
    for server in &servers {
        jetstream_answers(&server.url(), "$JS.API").await;
    }
    servers
}

/// Waits until JetStream answers on this prefix of its API.
pub async fn jetstream_answers(url: &str, api_prefix: &str) {
    let client = async_nats::connect(url).await.expect("connect to NATS");
    eventually(&format!("JetStream answers on {api_prefix}"), async || {
        let answer =
            client.request(format!("{api_prefix}.INFO"), "".into()).await.map_err(|error| error.to_string())?;
        let answer: serde_json::Value = serde_json::from_slice(&answer.payload).map_err(|error| error.to_string())?;
        if answer.get("error").is_none() { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
}

/// Starts a Postgres. Like any Postgres it survives being killed, but not a power failure of the machine.
pub async fn start_postgres() -> OwnServer<PostgresServer> {
    let directory = directory("postgres");
    let server = postgres_in(directory.path(), &[]).await;
    OwnServer { server, directory }
}

async fn postgres_in(directory: &Path, more: &[(&str, &str)]) -> PostgresServer {
    let mut options = PostgresOptions::new(directory);
    options.durable = false;
    let settings = [("fsync", "off"), ("full_page_writes", "off"), ("shared_buffers", "64MB")];
    options.settings =
        settings.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    PostgresServer::start(programs().await, options).await.expect("start Postgres")
}

/// Returns the nats-server that is shared by all tests that do not break it.
pub(crate) async fn shared_nats() -> &'static NatsServer {
    static NATS: OnceCell<NatsServer> = OnceCell::const_new();
    let start = || async {
        let options = NatsOptions::new(run_directory().join("nats"));
        NatsServer::start(programs().await, options).await.expect("start nats-server")
    };
    NATS.get_or_init(start).await
}

/// Returns the Postgres that is shared by all tests that do not break it.
pub(crate) async fn shared_postgres() -> &'static PostgresServer {
    static POSTGRES: OnceCell<PostgresServer> = OnceCell::const_new();
    let start = || async {
        let directory = run_directory().join("postgres");
        postgres_in(&directory, &[("synchronous_commit", "off"), ("max_connections", "400")]).await
    };
    POSTGRES.get_or_init(start).await
}

/// Creates a migrated database by copying the template. Running the migrations would take a second per test.
pub(crate) async fn copy_database(name: &str) -> String {
    static READY: OnceCell<()> = OnceCell::const_new();
    let server = shared_postgres().await;
    READY
        .get_or_init(|| async {
            create_database(server, TEMPLATE, None).await;
            migrate(&server.url_of(TEMPLATE)).await;
        })
        .await;
    create_database(server, name, Some(TEMPLATE)).await;
    server.url_of(name)
}

async fn create_database(server: &PostgresServer, name: &str, template: Option<&str>) {
    let mut connection = PgConnection::connect(&server.url_of("postgres")).await.expect("connect to Postgres");
    let template = template.map_or_else(String::new, |template| format!(" TEMPLATE {template}"));
    let statement = format!("CREATE DATABASE {name}{template}");
    sqlx::query(&statement).execute(&mut connection).await.expect("create a database");
    connection.close().await.expect("close");
}

pub(crate) async fn migrate(url: &str) {
    let database = Database::new(url, "tests").expect("a database URL");
    let mut connection = database.connect("migrate").await.expect("connect to Postgres");
    store::migrations::run(&mut connection).await.expect("migrate");
    let partitions = Partitions::default();
    for &kind in Kind::ALL {
        let ahead = partitions.ensure_ahead(&mut connection, kind, Utc::now(), PARTITION_DAYS_AHEAD).await;
        ahead.expect("make partitions");
    }
    // A template with open connections cannot be copied.
    connection.close().await.expect("close");
}

pub(crate) async fn drop_database(name: &str) {
    let server = shared_postgres().await;
    let mut connection = PgConnection::connect(&server.url_of("postgres")).await.expect("connect to Postgres");
    let statement = format!("DROP DATABASE {name} WITH (FORCE)");
    sqlx::query(&statement).execute(&mut connection).await.expect("drop the test's database");
}
