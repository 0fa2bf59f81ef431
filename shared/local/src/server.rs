//! What both servers have in common: start until ready, stop, kill, start again on the same port and data.

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

/// How long an earlier server on the same data may take to be gone. One whose parent was killed has just been asked to
/// stop, and Postgres writes a checkpoint first.
const EARLIER_SERVER_BOUND: Duration = Duration::from_secs(60);
/// How long a start may take. An ordinary one takes well under a second; after a crash Postgres replays up to
/// `max_wal_size` (4 GB) of its log and nats-server reads through its streams.
const START_BOUND: Duration = Duration::from_secs(300);
/// How often a starting server is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// How a server was brought to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It was asked, and ended by itself (or had ended before).
    Clean,
    /// It did not end within its time and was killed. Its data is safe, its next start takes longer.
    Killed,
}

/// What one kind of server does in its own way.
pub(crate) trait Kind: Send + Sync + 'static {
    const NAME: &'static str;
    /// Asks for an orderly end; also what the kernel sends when we die.
    const STOP: Signal;
    const STOP_BOUND: Duration;
    const ON_DROP: Signal;

    /// The server's own directory; its lock and its log are there.
    fn directory(&self) -> &Path;
    /// Writes what the server reads at its start. Nobody uses the data: the lock is held.
    fn prepare(&self, port: u16) -> Result<()>;
    /// The command that starts it.
    fn start(&self) -> Start;
    /// Whether this very process (and not another one on its port) serves.
    fn is_ready(&self, pid: u32, port: u16) -> impl Future<Output = bool> + Send;
}

/// The command that starts a server.
pub(crate) struct Start {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) user: Option<User>,
    pub(crate) directory: Option<Arc<File>>,
}

/// A server that runs as our child.
pub(crate) struct Server<K: Kind> {
    kind: K,
    port: u16,
    child: Mutex<Arc<Child>>,
    // Stopping and starting take their turns.
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
                tracing::debug!(port, error = format!("{error:#}"), "somebody took the port first");
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
        // First, for a server that has died is not ready, whoever answers on its port.
        biased;
        status = child.exited() => {
            let error = anyhow!("{} on port {port} ended at its start ({status}); {}", K::NAME, log.last_lines());
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
        lock: lock.try_clone().context("cannot hand on the lock")?,
        directory: start.directory,
        input: None,
        log: output,
        on_parent_death: K::STOP,
        on_drop: K::ON_DROP,
    })
    .await?;
    // Our own hold ends here and the child's stays: the lock says whether the *server* lives, with all its processes.
    write_holder(&mut lock, child.pid()).context("cannot write the lock")?;
    Ok((child, log))
}

async fn until_ready<K: Kind>(kind: &K, pid: u32, port: u16) {
    while !kind.is_ready(pid, port).await {
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Takes a server's data for a new process. Servers hold this lock by an inherited descriptor, so it is free exactly
/// when the last process of the earlier one has gone, however that came about.
pub(crate) async fn lock_server(directory: &Path, name: &str) -> Result<File> {
    lock_within(&directory.join("server.lock"), EARLIER_SERVER_BOUND, &format!("an earlier {name}")).await
}

/// Makes a server's directory and returns its absolute path, which is what the servers want.
pub(crate) fn make_directory(path: &Path) -> Result<PathBuf> {
    fs::create_dir_all(path).with_context(|| format!("cannot make the directory {}", path.display()))?;
    path.canonicalize().with_context(|| format!("cannot find the directory {}", path.display()))
}
