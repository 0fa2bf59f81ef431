//! A child process: it dies with this process, a thread waits for it, and stopping it takes a limited time.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::sync::{oneshot, watch};

use crate::sys::{self, Signal};
use crate::user::User;

/// How long dropping a child waits for it to exit by itself. Postgres stops its own children meanwhile, so that a
/// temporary directory can be removed right after.
const DROP_BOUND: Duration = Duration::from_secs(3);
/// How long a killed process may take to disappear. The kernel needs milliseconds, unless its disk hangs.
const KILL_BOUND: Duration = Duration::from_secs(10);
/// Poll interval of the blocking wait, which only `Drop` uses.
const POLL_EVERY: Duration = Duration::from_millis(2);

/// What to start, and how.
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// The user to run as. `None` keeps the current one.
    pub(crate) user: Option<User>,
    /// Held by the child and all its descendants, so that it is released only after the last of them has exited.
    pub(crate) lock: File,
    /// A directory that the child inherits as an open file, see `cluster::Place`.
    pub(crate) directory: Option<Arc<File>>,
    pub(crate) input: Option<File>,
    pub(crate) log: File,
    pub(crate) on_parent_death: Signal,
    /// The signal sent first when the handle is dropped. `SIGKILL` follows.
    pub(crate) on_drop: Signal,
}

/// A child process. Dropping it stops the process.
pub(crate) struct Child {
    pid: u32,
    reaped: Arc<Mutex<bool>>,
    exit: watch::Receiver<Option<ExitStatus>>,
    on_drop: Signal,
}

impl Child {
    /// Starts the process.
    pub(crate) async fn start(launch: Launch) -> Result<Child> {
        let what = match &launch.user {
            Some(user) => format!("cannot run {} as user {}", launch.program.display(), user.name),
            None => format!("cannot run {}", launch.program.display()),
        };
        let (answer, child) = oneshot::channel();
        // If the caller no longer waits, `send` returns the child, which is dropped and so stopped.
        on_spawner_thread(Box::new(move || drop(answer.send(start_here(launch)))))?;
        child.await.context("the thread that starts processes has ended")?.context(what)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Resolves when the process has exited for any reason.
    pub(crate) fn exited(&self) -> impl Future<Output = ExitStatus> + Send + use<> {
        let mut exit = self.exit.clone();
        async move { exit.wait_for(Option::is_some).await.ok().and_then(|status| *status).unwrap_or_default() }
    }

    pub(crate) fn has_exited(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// Sends `signal`, and kills the process if it has not exited within `bound`. Returns whether the signal was
    /// enough.
    pub(crate) async fn stop(&self, signal: Signal, bound: Duration) -> Result<bool> {
        self.signal(signal);
        if tokio::time::timeout(bound, self.exited()).await.is_ok() {
            return Ok(true);
        }
        self.kill().await?;
        Ok(false)
    }

    /// Kills the process and waits until it is gone.
    pub(crate) async fn kill(&self) -> Result<()> {
        self.signal(Signal::Kill);
        let gone = tokio::time::timeout(KILL_BOUND, self.exited()).await;
        gone.map(drop).map_err(|_| anyhow!("process {} is still running {KILL_BOUND:?} after it was killed", self.pid))
    }

    fn signal(&self, signal: Signal) {
        if !*locked(&self.reaped) {
            sys::send(self.pid, signal);
        }
    }

    fn wait_blocking(&self, bound: Duration) {
        let mut waited = Duration::ZERO;
        while !self.has_exited() && waited < bound {
            thread::sleep(POLL_EVERY);
            waited += POLL_EVERY;
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.has_exited() {
            return;
        }
        self.signal(self.on_drop);
        self.wait_blocking(DROP_BOUND);
        if !self.has_exited() {
            self.signal(Signal::Kill);
            self.wait_blocking(KILL_BOUND);
        }
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Runs a job on the spawner thread. A child dies with the *thread* that forked it. Runtime threads come and go, so
/// all children are forked by one thread that lives as long as the process.
fn on_spawner_thread(job: Job) -> Result<()> {
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, queue) = std::sync::mpsc::channel::<Job>();
        let thread = thread::Builder::new().name("spawner".into());
        // If the thread cannot be started, the receiver is dropped and the send below fails.
        let _ = thread.spawn(move || queue.into_iter().for_each(|job| job()));
        jobs
    });
    spawner.send(job).map_err(|_| anyhow!("cannot start the thread that starts processes"))
}

fn start_here(launch: Launch) -> Result<Child> {
    let mut command = Command::new(&launch.program);
    command.args(&launch.arguments);
    command.stdin(launch.input.as_ref().map_or(Ok(Stdio::null()), |file| file.try_clone().map(Stdio::from))?);
    command.stdout(launch.log.try_clone()?).stderr(launch.log.try_clone()?);
    // The current directory may be closed to the child's user, and would be kept from being unmounted.
    command.current_dir("/");
    // A separate process group: Ctrl-C only reaches this process, which stops the children in order.
    command.process_group(0);
    // Postgres reads settings from `PG*` variables, and its messages are parsed in English.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C");
    sys::prepare(&mut command, &launch);

    let mut process = command.spawn()?;
    let pid = process.id();
    let reaped = Arc::new(Mutex::new(false));
    let (tell_exit, exit) = watch::channel(None);
    let child = Child { pid, reaped: Arc::clone(&reaped), exit, on_drop: launch.on_drop };
    let watcher = move || {
        sys::wait_without_reaping(pid);
        let mut reaped = locked(&reaped);
        let status = process.wait().unwrap_or_default();
        *reaped = true;
        tell_exit.send_replace(Some(status));
    };
    thread::Builder::new().name(format!("watch-{pid}")).spawn(watcher)?;
    Ok(child)
}

fn locked(flag: &Mutex<bool>) -> MutexGuard<'_, bool> {
    flag.lock().unwrap_or_else(PoisonError::into_inner)
}
