//! Tests with both real servers: start, stop, kill and restart, and what happens to them when their parent is
//! killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use local::{
    NatsOptions, NatsServer, PostgresOptions, PostgresServer, Programs, ProgressCallback, RequiredPrograms, Stopped,
    cache_dir,
};
use sqlx::{Connection, PgConnection};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Upper bound of all waits, for a busy machine.
const CONDITION_BOUND: Duration = Duration::from_secs(60);

fn quiet() -> ProgressCallback {
    Arc::new(|_| {})
}

async fn programs() -> Programs {
    // Runs in a task of its own, to check that the future is `Send`.
    tokio::spawn(async { Programs::locate(&cache_dir(), RequiredPrograms::BOTH, &quiet()).await })
        .await
        .unwrap()
        .unwrap()
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(CONDITION_BOUND, holds).await.unwrap_or_else(|_| panic!("{what} did not come true"));
}

fn postgres_options(directory: &Path) -> PostgresOptions {
    PostgresOptions { durable: false, ..PostgresOptions::new(directory.join("postgres")) }
}

/// Sends one request in the NATS protocol and returns the body of the response.
async fn request(server: &NatsServer, subject: &str, body: &str) -> String {
    let stream = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    lines.read_line(&mut line).await.unwrap();
    let text =
        format!("CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB {subject} answer {}\r\n{body}\r\n", body.len());
    lines.get_mut().write_all(text.as_bytes()).await.unwrap();
    let answer = async {
        loop {
            line.clear();
            lines.read_line(&mut line).await.unwrap();
            if line.starts_with("MSG ") {
                line.clear();
                lines.read_line(&mut line).await.unwrap();
                return line.trim().to_owned();
            }
        }
    };
    tokio::time::timeout(CONDITION_BOUND, answer).await.expect("no answer")
}

/// Runs one statement and returns the first value as text.
async fn sql(url: &str, statement: &str) -> String {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let statement = statement.to_owned();
    let value: Option<String> = sqlx::query_scalar(&statement).fetch_optional(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    value.unwrap_or_default()
}

#[tokio::test]
async fn nats_keeps_its_messages_over_a_kill_and_its_port_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let options = NatsOptions { sync_always: true, ..NatsOptions::new(directory.path().join("nats")) };
    let server = NatsServer::start(&programs().await, options).await.unwrap();
    let (url, pid) = (server.url(), server.pid());
    assert_eq!(url, format!("nats://127.0.0.1:{}", server.port()));

    let stream = r#"{"name":"S","subjects":["s"],"storage":"file","max_bytes":1000000}"#;
    let created = request(&server, "$JS.API.STREAM.CREATE.S", stream).await;
    assert!(created.contains("\"did_create\":true"), "{created}");
    assert!(request(&server, "s", "hello").await.contains("\"seq\":1"));

    let ended = server.wait();
    server.kill().await.unwrap();
    assert!(!ended.await.success());
    server.restart().await.unwrap();
    assert_eq!(server.url(), url);
    assert_ne!(server.pid(), pid);
    assert!(request(&server, "s", "again").await.contains("\"seq\":2"));

    assert_eq!(server.stop().await.unwrap(), Stopped::Clean);
    assert_eq!(server.stop().await.unwrap(), Stopped::Clean, "a second stop does nothing");
}

#[tokio::test]
async fn nats_starts_without_jetstream_and_with_more_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let options = NatsOptions {
        jetstream: false,
        extra_config: "authorization { user: u, password: p }".into(),
        ..NatsOptions::new(directory.path())
    };
    let server = NatsServer::start(&programs().await, options).await.unwrap();
    assert_eq!(server.stop().await.unwrap(), Stopped::Clean);
}

#[tokio::test]
async fn a_start_that_fails_shows_the_end_of_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let options = NatsOptions { extra_config: "nonsense { ".into(), ..NatsOptions::new(directory.path()) };
    let error = NatsServer::start(&programs().await, options).await.err().unwrap().to_string();
    assert!(error.contains("Parse error"), "{error}");

    let mut options = postgres_options(directory.path());
    options.settings = vec![("no_such_setting".into(), "1".into())];
    let error = PostgresServer::start(&programs().await, options).await.err().unwrap().to_string();
    assert!(error.contains("no_such_setting"), "{error}");
}

#[tokio::test]
async fn a_port_that_was_asked_for_and_is_taken_is_an_error_that_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = Some(taken.local_addr().unwrap().port());
    let options = NatsOptions { port, ..NatsOptions::new(directory.path().join("nats")) };
    let error = NatsServer::start(&programs().await, options).await.err().unwrap().to_string();
    assert!(error.contains("address already in use"), "{error}");
    let options = PostgresOptions { port, ..postgres_options(directory.path()) };
    let error = PostgresServer::start(&programs().await, options).await.err().unwrap().to_string();
    assert!(error.to_lowercase().contains("address already in use"), "{error}");
}

/// A temporary directory is only accessible to its owner, so as root the user of Postgres cannot reach it by path.
#[tokio::test]
async fn postgres_keeps_its_rows_over_a_kill_and_its_port_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    postgres_keeps_its_rows(directory.path()).await;
}

#[tokio::test]
async fn postgres_runs_where_its_user_can_get_by_path_too() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    postgres_keeps_its_rows(directory.path()).await;
}

async fn postgres_keeps_its_rows(directory: &Path) {
    let programs = programs().await;
    let mut options = postgres_options(directory);
    options.settings = vec![("work_mem".into(), "7MB".into())];
    let server = PostgresServer::start(&programs, options.clone()).await.unwrap();
    let (url, pid) = (server.url(), server.pid());
    assert!(url.ends_with(&format!("@127.0.0.1:{}/watchbook", server.port())), "{url}");
    for (setting, value) in [
        ("work_mem", "7MB"),
        ("shared_buffers", "256MB"),
        ("max_wal_size", "4GB"),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("autovacuum", "on"),
        ("server_encoding", "UTF8"),
        ("TimeZone", "UTC"),
        ("listen_addresses", "127.0.0.1"),
    ] {
        assert_eq!(sql(&url, &format!("SHOW {setting}")).await, value, "{setting}");
    }
    assert_eq!(sql(&url, "SELECT datcollate::text FROM pg_database WHERE datname = 'watchbook'").await, "C");
    sql(&url, "CREATE TABLE kept AS SELECT 42 AS answer").await;

    let ended = server.wait();
    server.kill().await.unwrap();
    assert!(!ended.await.success());
    server.restart().await.unwrap();
    assert_eq!(server.url(), url);
    assert_ne!(server.pid(), pid);
    assert_eq!(sql(&url, "SELECT answer::text FROM kept").await, "42");
    assert_eq!(server.stop().await.unwrap(), Stopped::Clean);

    // The same data and password with another process and port.
    let server = PostgresServer::start(&programs, options).await.unwrap();
    assert_eq!(sql(&server.url(), "SELECT answer::text FROM kept").await, "42");
    let mode = fs::metadata(directory.join("postgres/password")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let password = fs::read_to_string(directory.join("postgres/password")).unwrap();
    assert!(server.url().contains(password.trim()));
    let log = fs::read_to_string(server.log()).unwrap();
    assert!(log.contains("ready to accept connections") && !log.contains(password.trim()));
}

#[tokio::test]
async fn what_an_interrupted_or_killed_postgres_left_behind_is_no_obstacle() {
    let directory = tempfile::tempdir().unwrap();
    let programs = programs().await;
    fs::create_dir_all(directory.path().join("postgres/cluster.new/base")).unwrap();
    let server = PostgresServer::start(&programs, postgres_options(directory.path())).await.unwrap();
    let state = directory.path().join("postgres/cluster/postmaster.pid");
    // The process id belongs to another program now, as in a restarted container, or to an unreaped zombie.
    let mut alive = Command::new("sleep").arg("600").stdout(Stdio::null()).spawn().unwrap();
    let mut zombie = Command::new("true").spawn().unwrap();
    until("the process is dead", || !is_alive(zombie.id())).await;
    for other in [&mut alive, &mut zombie] {
        let left = fs::read_to_string(&state).unwrap();
        let pid = server.pid().to_string();
        server.kill().await.unwrap();
        fs::write(&state, left.replacen(&pid, &other.id().to_string(), 1)).unwrap();
        server.restart().await.unwrap();
        let _ = other.kill();
        other.wait().unwrap();
    }
}

#[tokio::test]
async fn a_second_server_never_gets_the_data_of_one_that_runs() {
    let directory = tempfile::tempdir().unwrap();
    let programs = programs().await;
    let first = NatsServer::start(&programs, NatsOptions::new(directory.path())).await.unwrap();
    let second = NatsServer::start(&programs, NatsOptions::new(directory.path()));
    let mut second = Box::pin(second);
    // The second start waits for the first server, and takes over as soon as that one has exited.
    tokio::select! {
        biased;
        _ = &mut second => panic!("two servers on the same data"),
        stopped = first.stop() => assert_eq!(stopped.unwrap(), Stopped::Clean),
    }
    second.await.unwrap();
}

#[tokio::test]
async fn a_dropped_handle_leaves_no_process() {
    let directory = tempfile::tempdir().unwrap();
    let programs = programs().await;
    let nats = NatsServer::start(&programs, NatsOptions::new(directory.path().join("nats"))).await.unwrap();
    let postgres = PostgresServer::start(&programs, postgres_options(directory.path())).await.unwrap();
    let pids = [nats.pid(), postgres.pid()];
    drop((nats, postgres));
    assert_eq!(pids.map(is_alive), [false, false]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_servers_die_with_a_parent_that_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "parent_to_be_killed", "--nocapture"])
        .env("LOCAL_TEST_DIRECTORY", directory.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pids_file = directory.path().join("pids");
    until("the helper's servers run", || pids_file.exists() || parent.try_wait().unwrap().is_some()).await;
    let pids: Vec<u32> = fs::read_to_string(&pids_file).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(pids.iter().map(|pid| is_alive(*pid)).collect::<Vec<_>>(), [true, true]);
    parent.kill().unwrap();
    parent.wait().unwrap();
    until("the servers are gone", || pids.iter().all(|pid| !is_alive(*pid))).await;

    // Postgres must have shut down cleanly.
    let log = fs::read_to_string(directory.path().join("postgres/postgres.log")).unwrap();
    assert!(log.contains("database system is shut down"), "{log}");
}

/// Not a test by itself: the process that the test above starts and kills.
#[tokio::test]
async fn parent_to_be_killed() {
    let Some(directory) = std::env::var_os("LOCAL_TEST_DIRECTORY").map(PathBuf::from) else { return };
    let programs = programs().await;
    let nats = NatsServer::start(&programs, NatsOptions::new(directory.join("nats"))).await.unwrap();
    let postgres = PostgresServer::start(&programs, postgres_options(&directory)).await.unwrap();
    fs::write(directory.join("pids.new"), format!("{}\n{}\n", nats.pid(), postgres.pid())).unwrap();
    fs::rename(directory.join("pids.new"), directory.join("pids")).unwrap();
    tokio::join!(nats.wait(), postgres.wait());
}

/// A zombie counts as dead.
fn is_alive(pid: u32) -> bool {
    let state = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().unwrap();
    let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}
