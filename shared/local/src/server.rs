//! The common parts of both servers: start and wait until ready, stop, kill, and restart with the same port and
//! data.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::child::{Child, Launch};
use crate::lock::{lock_within, write_holder};
use crate::log::Log;
use crate::ports::{PORT_ATTEMPTS, free_port};
use crate::sys::Signal;
use crate::user::User;

/// How long to wait for an earlier server on the same data. If its parent was killed it has just been told to stop,
/// and Postgres writes a checkpoint first.
const EARLIER_SERVER_BOUND: Duration = Duration::from_secs(60);
/// Time limit of a start. It normally takes well below a second. After a crash Postgres replays up to
/// `max_wal_size` (4 GB) of WAL, and nats-server reads through its streams.
const START_BOUND: Duration = Duration::from_secs(300);
/// Poll interval while a server starts.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It exited after the stop signal, or had exited before.
    Clean,
    /// It did not exit in time and was killed. Its data is safe, but its next start takes longer.
    Killed,
}

/// The specific parts of a server.
pub(crate) trait Kind: Send + Sync + 'static {
    const NAME: &'static str;
    /// The signal for a clean stop. The kernel sends it too when this process dies.
    const STOP: Signal;
    const STOP_BOUND: Duration;
    const ON_DROP: Signal;

    /// Returns the server's own directory, which contains its lock and its log.
    fn directory(&self) -> &Path;
    /// Writes the configuration for a start. The lock is held, so no other server uses the data.
    fn prepare(&self, port: u16) -> Result<()>;
    /// Returns the command that starts the server.
    fn start(&self) -> Start;
    /// Returns whether this process, and not another one on the same port, accepts connections.
    fn is_ready(&self, pid: u32, port: u16) -> impl Future<Output = bool> + Send;
}

/// The command that starts a server.
pub(crate) struct Start {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) user: Option<User>,
    pub(crate) directory: Option<Arc<File>>,
}

/// A server that runs as a child process.
pub(crate) struct Server<K: Kind> {
    kind: K,
    port: u16,
    child: Mutex<Arc<Child>>,
    // Serializes stopping and starting.
    turn: tokio::sync::Mutex<()>,
}

enum NotStarted {
    PortTaken(anyhow::Error),
    Failed(anyhow::Error),
}

impl<K: Kind> Server<K> {
    pub(crate) async fn start(kind: K, port: Option<u16>) -> Result<Server<K>> {
        let (port, child) = match port {
            Some(port) => (port, start_child(&kind, port).await?),
            None => start_on_free_port(&kind).await?,
        };
        Ok(Server { kind, port, child: Mutex::new(Arc::new(child)), turn: tokio::sync::Mutex::new(()) })
    }

    pub(crate) fn kind(&self) -> &K {
        &self.kind
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn child(&self) -> Arc<Child> {
        Arc::clone(&self.child.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) async fn kill(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        self.child().kill().await
    }

    pub(crate) async fn stop(&self) -> Result<Stopped> {
        let _turn = self.turn.lock().await;
        self.stop_child().await
    }

    pub(crate) async fn restart(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        self.stop_child().await?;
        let child = Arc::new(start_child(&self.kind, self.port).await?);
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = child;
        Ok(())
    }

    async fn stop_child(&self) -> Result<Stopped> {
        let clean = self.child().stop(K::STOP, K::STOP_BOUND).await?;
        Ok(if clean { Stopped::Clean } else { Stopped::Killed })
    }
}

async fn start_on_free_port<K: Kind>(kind: &K) -> Result<(u16, Child)> {
    let mut attempt = 1;
    loop {
        let port = free_port()?;
        match try_start(kind, port).await {
            Ok(child) => return Ok((port, child)),
            Err(NotStarted::PortTaken(error)) if attempt < PORT_ATTEMPTS => {
                tracing::debug!(
                    port,
                    error = format!("{error:#}"),
                    "another program took the port; trying another one"
                );
                attempt += 1;
            }
            Err(NotStarted::PortTaken(error) | NotStarted::Failed(error)) => return Err(error),
        }
    }
}

async fn start_child<K: Kind>(kind: &K, port: u16) -> Result<Child> {
    try_start(kind, port).await.map_err(|(NotStarted::PortTaken(error) | NotStarted::Failed(error))| error)
}

async fn try_start<K: Kind>(kind: &K, port: u16) -> Result<Child, NotStarted> {
    let (child, log) = launch(kind, port).await.map_err(NotStarted::Failed)?;
    tokio::select! {
        // Checked first: a server that has exited is not ready, even if another one answers on its port.
        biased;
        status = child.exited() => {
            let error = anyhow!("{} on port {port} exited during its start ({status}); {}", K::NAME, log.last_lines());
            let taken = log.since_start().to_lowercase().contains("address already in use");
            Err(if taken { NotStarted::PortTaken(error) } else { NotStarted::Failed(error) })
        }
        () = until_ready(kind, child.pid(), port) => Ok(child),
        () = tokio::time::sleep(START_BOUND) => Err(NotStarted::Failed(anyhow!(
            "{} was not ready after {START_BOUND:?}; {}", K::NAME, log.last_lines()
        ))),
    }
}

async fn launch<K: Kind>(kind: &K, port: u16) -> Result<(Child, Log)> {
    let mut lock = lock_server(kind.directory(), K::NAME).await?;
    kind.prepare(port)?;
    let (log, output) = Log::open(&kind.directory().join(format!("{}.log", K::NAME)))?;
    let start = kind.start();
    let child = Child::start(Launch {
        program: start.program,
        arguments: start.arguments,
        user: start.user,
        lock: lock.try_clone().context("cannot pass on the lock")?,
        directory: start.directory,
        input: None,
        log: output,
        on_parent_death: K::STOP,
        on_drop: K::ON_DROP,
    })
    .await?;
    // Our descriptor is closed here and the child's stays open. So the lock shows whether any process of the
    // *server* is alive.
    write_holder(&mut lock, child.pid()).context("cannot write the lock")?;
    Ok((child, log))
}

async fn until_ready<K: Kind>(kind: &K, pid: u32, port: u16) {
    while !kind.is_ready(pid, port).await {
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Locks the data of a server for a new process. A server inherits the descriptor of this lock, so the lock is free
/// exactly when the last process of the earlier server has exited, for whatever reason.
pub(crate) async fn lock_server(directory: &Path, name: &str) -> Result<File> {
    lock_within(&directory.join("server.lock"), EARLIER_SERVER_BOUND, &format!("an earlier {name}")).await
}

/// Creates the directory of a server and returns its absolute path.
pub(crate) fn make_directory(path: &Path) -> Result<PathBuf> {
    fs::create_dir_all(path).with_context(|| format!("cannot create the directory {}", path.display()))?;
    path.canonicalize().with_context(|| format!("cannot find the directory {}", path.display()))
}
