//! `watchbook` as a real process.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::http::{self, Answer};
use crate::wait::{BOUND, eventually};

/// The signals that a test can send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// A clean stop, as service managers request it.
    Terminate,
    /// A clean stop, as Ctrl-C requests it.
    Interrupt,
    /// Suspends the process. Its connections stay open.
    Stop,
    /// Resumes the process.
    Continue,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Terminate => "TERM",
            Self::Interrupt => "INT",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
        }
    }
}

/// How to start `watchbook`.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub(crate) binary: PathBuf,
    pub(crate) directory: PathBuf,
    pub(crate) environment: Vec<(String, String)>,
}

impl Start {
    /// Builds a command with this environment only, so that a developer's own settings have no effect.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = std::process::Command::new(&self.binary);
        command.args(arguments).current_dir(&self.directory).env_clear();
        for name in [
            "PATH",
            "HOME",
            "TMPDIR",
            "XDG_CACHE_HOME",
            "WATCHBOOK_NATS_SERVER",
            "WATCHBOOK_POSTGRES_BIN",
            "LLVM_PROFILE_FILE",
        ] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env("RUST_BACKTRACE", "1");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        local::bind_to_starter(&mut command);
        let mut command = Command::from(command);
        command.kill_on_drop(true);
        command
    }

    pub(crate) fn spawn(&self, number: usize, arguments: &[&str]) -> Watchbook {
        let log = self.directory.join(format!("watchbook-{number}.log"));
        let output = self.directory.join(format!("watchbook-{number}.out"));
        let file = |path| File::create(path).expect("create a file for what it writes");
        let child = self.command(arguments).stdin(Stdio::null()).stdout(file(&output)).stderr(file(&log)).spawn();
        let child = child.unwrap_or_else(|error| panic!("start {}: {error}", self.binary.display()));
        let pid = child.id().expect("a process that has just started");
        let name = format!("#{number} {}", arguments.join(" "));
        Watchbook { name, pid, log, output, child: Some(child), killed: false }
    }

    pub(crate) async fn finish(&self, arguments: &[&str], input: &str) -> Finished {
        let mut command = self.command(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
        let mut stdin = child.stdin.take().expect("standard input");
        let input = input.to_owned();
        // A process may exit without reading its input, which is not an error here.
        let feed = tokio::spawn(async move {
            let _ = stdin.write_all(input.as_bytes()).await;
        });
        let output = tokio::time::timeout(BOUND, child.wait_with_output())
            .await
            .unwrap_or_else(|_| panic!("`watchbook {}` did not end within {BOUND:?}", arguments.join(" ")))
            .expect("wait for the process");
        feed.await.expect("write its input");
        Finished {
            command: format!("watchbook {}", arguments.join(" ")),
            code: output.status.code(),
            output: String::from_utf8(output.stdout).expect("output in UTF-8"),
            errors: String::from_utf8(output.stderr).expect("errors in UTF-8"),
        }
    }
}

/// A command that has exited.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The command line.
    pub command: String,
    /// The exit code. `None` if a signal ended the process.
    pub code: Option<i32>,
    /// The standard output.
    pub output: String,
    /// The standard error.
    pub errors: String,
}

impl Finished {
    /// Asserts that the command succeeded.
    #[track_caller]
    pub fn succeeded(&self) -> &Self {
        self.ended_with(0)
    }

    /// Asserts that the command ended with this exit code.
    #[track_caller]
    pub fn ended_with(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "`{}`\n{}\n{}", self.command, self.output, self.errors);
        self
    }

    /// Asserts that one of its outputs contains this text.
    #[track_caller]
    pub fn prints(&self, text: &str) -> &Self {
        let said = self.output.contains(text) || self.errors.contains(text);
        assert!(said, "`{}` did not say {text:?}:\n{}\n{}", self.command, self.output, self.errors);
        self
    }

    /// Asserts that its outputs do not contain this text.
    #[track_caller]
    pub fn does_not_print(&self, text: &str) -> &Self {
        let said = self.output.contains(text) || self.errors.contains(text);
        assert!(!said, "`{}` said {text:?}:\n{}\n{}", self.command, self.output, self.errors);
        self
    }

    /// Returns its standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.output)
            .unwrap_or_else(|error| panic!("`{}` wrote no JSON ({error}):\n{}", self.command, self.output))
    }
}

/// A `watchbook` process that runs until it is stopped. Killed when dropped.
#[derive(Debug)]
pub struct Watchbook {
    name: String,
    pid: u32,
    log: PathBuf,
    output: PathBuf,
    child: Option<Child>,
    killed: bool,
}

impl Watchbook {
    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the number and arguments of the process.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn log_path(&self) -> &Path {
        &self.log
    }

    /// Returns whether the process was killed, so that it could not clean up.
    pub fn was_killed(&self) -> bool {
        self.killed
    }

    /// Returns whether the process is still running or not yet waited for.
    pub fn is_ours_to_stop(&self) -> bool {
        self.child.is_some()
    }

    /// Returns its log so far.
    pub fn log(&self) -> String {
        read(&self.log)
    }

    /// Returns its standard output so far.
    pub fn output(&self) -> String {
        read(&self.output)
    }

    /// Waits until its standard output contains a text.
    pub async fn printed(&self, text: &str) {
        eventually(&format!("{} prints {text:?}", self.name), async || {
            let output = self.output();
            if output.contains(text) { Ok(()) } else { Err(format!("{output}\n{}", self.log())) }
        })
        .await;
    }

    /// Waits until its log contains a text.
    pub async fn logged(&self, text: &str) {
        eventually(&format!("the log of {} contains {text:?}", self.name), async || {
            let log = self.log();
            if log.contains(text) { Ok(()) } else { Err(log) }
        })
        .await;
    }

    /// Waits for the address on which it serves its probes, and returns it.
    pub async fn address(&self) -> SocketAddr {
        eventually(&format!("{} logs its address", self.name), async || {
            let log = self.log();
            let found =
                log.lines().find_map(|line| line.split_once("http://")?.1.split_once(": /healthz")?.0.parse().ok());
            found.ok_or(log)
        })
        .await
    }

    /// Requests one of its probes.
    pub async fn get(&self, path: &str) -> Answer {
        http::get(self.address().await, path).await.unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// Waits until the process is ready.
    pub async fn ready(&self) {
        self.reports_ready(200, "").await;
    }

    /// Waits until `/readyz` responds with this status and a body that contains the text.
    pub async fn reports_ready(&self, status: u16, text: &str) {
        let address = self.address().await;
        eventually(&format!("/readyz of {} responds with {status} {text:?}", self.name), async || {
            let answer = http::get(address, "/readyz").await?;
            let holds = answer.status == status && answer.body.contains(text);
            if holds { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
    }

    /// Waits until this process is the active writer of a kind and not a standby.
    pub async fn writes(&self, kind: records::Kind) {
        let address = self.address().await;
        eventually(&format!("{} writes {kind}", self.name), async || {
            let answer = http::get(address, "/readyz").await?;
            let report: Value = serde_json::from_str(&answer.body).map_err(|error| error.to_string())?;
            if report["parts"][kind.name()]["state"] == "active" { Ok(()) } else { Err(answer.body) }
        })
        .await;
    }

    /// Sends a signal.
    pub async fn signal(&self, signal: Signal) {
        assert!(self.child.is_some(), "{} has ended already", self.name);
        // The process is not reaped yet, so its id cannot have been reused.
        let sent = Command::new("kill").arg(format!("-{}", signal.name())).arg(self.pid.to_string()).status().await;
        assert!(sent.expect("run kill").success(), "cannot signal {}", self.name);
    }

    /// Kills the process without a chance to clean up, as the kernel does when it is out of memory.
    pub async fn kill(&mut self) {
        let mut child = self.child.take().unwrap_or_else(|| panic!("{} has ended already", self.name));
        self.killed = true;
        child.kill().await.expect("kill it");
    }

    /// Waits until the process has exited.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap_or_else(|| panic!("{} has ended already", self.name));
        match tokio::time::timeout(BOUND, child.wait()).await {
            Ok(status) => status.expect("wait for it"),
            Err(_) => panic!("{} did not end within {BOUND:?}:\n{}", self.name, self.log()),
        }
    }

    /// It logged neither a warning nor an error since it was asked to stop.
    #[track_caller]
    pub fn stopped_quietly(&self) {
        let log = self.log();
        let (_, since) =
            log.split_once(" stopping ").unwrap_or_else(|| panic!("{} was not stopped:\n{log}", self.name));
        let is_loud = |line: &&str| matches!(line.split_whitespace().nth(1), Some("WARN" | "ERROR"));
        let loud: Vec<_> = since.lines().filter(is_loud).collect();
        assert!(loud.is_empty(), "{}: {loud:#?}\n{log}", self.name);
    }

    /// Stops the process and asserts that it stopped cleanly.
    pub async fn stop(&mut self) {
        self.signal(Signal::Terminate).await;
        let status = self.ended().await;
        assert!(status.success(), "{} did not stop cleanly ({status}):\n{}", self.name, self.log());
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
