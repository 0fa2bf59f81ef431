//! One child process: started so that it dies with us, watched by a thread of its own, ended in a bounded time.

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

/// How long dropping a child may block for it to end by itself: Postgres takes its own children with it meanwhile, so
/// that a temporary directory can be removed right after.
const DROP_BOUND: Duration = Duration::from_secs(3);
/// How long a killed process may take to be gone. The kernel needs milliseconds, unless its disk hangs.
const KILL_BOUND: Duration = Duration::from_secs(10);
/// How often a blocking wait looks. Only `Drop` waits like that.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What to start, and how.
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// Whom to become first; `None` stays who we are.
    pub(crate) user: Option<User>,
    /// Held by the child and all its children, so that it is free only when the last of them has gone.
    pub(crate) lock: File,
    /// A directory that the child inherits open, see `cluster::Place`.
    pub(crate) directory: Option<Arc<File>>,
    pub(crate) input: Option<File>,
    pub(crate) log: File,
    pub(crate) on_parent_death: Signal,
    /// The first thing to try when the handle is dropped; a kill follows.
    pub(crate) on_drop: Signal,
}

/// A child process. Dropping it ends the process.
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
        // When nobody waits for the answer any more, the child comes back with the error and is dropped, so it ends.
        on_spawner_thread(Box::new(move || drop(answer.send(start_here(launch)))))?;
        child.await.context("the thread that starts processes has gone")?.context(what)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Resolves when the process has ended, for whatever reason.
    pub(crate) fn exited(&self) -> impl Future<Output = ExitStatus> + Send + use<> {
        let mut exit = self.exit.clone();
        async move { exit.wait_for(Option::is_some).await.ok().and_then(|status| *status).unwrap_or_default() }
    }

    pub(crate) fn has_exited(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// Asks it to end, and kills it when it has not within the bound. Tells whether asking was enough.
    pub(crate) async fn stop(&self, signal: Signal, bound: Duration) -> Result<bool> {
        self.signal(signal);
        if tokio::time::timeout(bound, self.exited()).await.is_ok() {
            return Ok(true);
        }
        self.kill().await?;
        Ok(false)
    }

    /// Kills it and waits until it is gone.
    pub(crate) async fn kill(&self) -> Result<()> {
        self.signal(Signal::Kill);
        let gone = tokio::time::timeout(KILL_BOUND, self.exited()).await;
        gone.map(drop).map_err(|_| anyhow!("process {} was killed and is still there after {KILL_BOUND:?}", self.pid))
    }

    fn signal(&self, signal: Signal) {
        if !*locked(&self.reaped) {
            sys::send(self.pid, signal);
        }
    }

    fn wait_blocking(&self, bound: Duration) {
        let mut waited = Duration::ZERO;
        while !self.has_exited() && waited < bound {
            thread::sleep(LOOK_EVERY);
            waited += LOOK_EVERY;
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

/// A child dies with the *thread* that forked it. A runtime's threads come and go, so all children come from one
/// thread that lasts as long as the process.
fn on_spawner_thread(job: Job) -> Result<()> {
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, queue) = std::sync::mpsc::channel::<Job>();
        let thread = thread::Builder::new().name("spawner".into());
        // If it cannot be started, the queue is gone and the send below says so.
        let _ = thread.spawn(move || queue.into_iter().for_each(|job| job()));
        jobs
    });
    spawner.send(job).map_err(|_| anyhow!("the thread that starts processes could not be started"))
}

fn start_here(launch: Launch) -> Result<Child> {
    let mut command = Command::new(&launch.program);
    command.args(&launch.arguments);
    command.stdin(launch.input.as_ref().map_or(Ok(Stdio::null()), |file| file.try_clone().map(Stdio::from))?);
    command.stdout(launch.log.try_clone()?).stderr(launch.log.try_clone()?);
    // Not ours, which may be a directory that the child's user cannot enter or that somebody wants to unmount.
    command.current_dir("/");
    // Out of the terminal's reach: Ctrl-C is for us, and we stop the children in their order.
    command.process_group(0);
    // Postgres takes settings from these, and messages are looked at in English.
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
