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

/// What a process can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// An orderly end, as service managers ask for it.
    Terminate,
    /// An orderly end, as Ctrl-C asks for it.
    Interrupt,
    /// The process stands still, and its connections stay open.
    Stop,
    /// The process goes on.
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
    /// Starts it with this environment and no other, so that a developer's own settings change nothing.
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
        let mut stdin = child.stdin.take().expect("an input");
        let input = input.to_owned();
        // A process that does not read its input ends without it, and that is no error here.
        let feed = tokio::spawn(async move {
            let _ = stdin.write_all(input.as_bytes()).await;
        });
        let output = tokio::time::timeout(BOUND, child.wait_with_output())
            .await
            .unwrap_or_else(|_| panic!("`watchbook {}` did not end within {BOUND:?}", arguments.join(" ")))
            .expect("wait for it");
        feed.await.expect("feed its input");
        Finished {
            command: format!("watchbook {}", arguments.join(" ")),
            code: output.status.code(),
            output: String::from_utf8(output.stdout).expect("output in UTF-8"),
            errors: String::from_utf8(output.stderr).expect("errors in UTF-8"),
        }
    }
}

/// A command that has ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// What was called.
    pub command: String,
    /// Its exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub output: String,
    /// Its standard error.
    pub errors: String,
}

impl Finished {
    /// It did what it was asked to.
    #[track_caller]
    pub fn succeeded(&self) -> &Self {
        self.ended_with(0)
    }

    /// It ended with this exit code.
    #[track_caller]
    pub fn ended_with(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "`{}`\n{}\n{}", self.command, self.output, self.errors);
        self
    }

    /// It said this, on either of its outputs.
    #[track_caller]
    pub fn said(&self, text: &str) -> &Self {
        let said = self.output.contains(text) || self.errors.contains(text);
        assert!(said, "`{}` did not say {text:?}:\n{}\n{}", self.command, self.output, self.errors);
        self
    }

    /// It did not say this.
    #[track_caller]
    pub fn kept_quiet_about(&self, text: &str) -> &Self {
        let said = self.output.contains(text) || self.errors.contains(text);
        assert!(!said, "`{}` said {text:?}:\n{}\n{}", self.command, self.output, self.errors);
        self
    }

    /// What it wrote as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.output)
            .unwrap_or_else(|error| panic!("`{}` wrote no JSON ({error}):\n{}", self.command, self.output))
    }
}

/// A `watchbook` process that runs until somebody ends it. Killed when dropped.
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
    /// The process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it was called with.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn log_path(&self) -> &Path {
        &self.log
    }

    /// Whether it was killed at some time, and so could not clean up.
    pub fn was_killed(&self) -> bool {
        self.killed
    }

    /// Whether nobody has ended it yet.
    pub fn is_ours_to_stop(&self) -> bool {
        self.child.is_some()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        read(&self.log)
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        read(&self.output)
    }

    /// Waits until it has printed a text.
    pub async fn printed(&self, text: &str) {
        eventually(&format!("{} prints {text:?}", self.name), async || {
            let output = self.output();
            if output.contains(text) { Ok(()) } else { Err(format!("{output}\n{}", self.log())) }
        })
        .await;
    }

    /// Waits until its log holds a text.
    pub async fn logged(&self, text: &str) {
        eventually(&format!("the log of {} says {text:?}", self.name), async || {
            let log = self.log();
            if log.contains(text) { Ok(()) } else { Err(log) }
        })
        .await;
    }

    /// Where it serves its probes.
    pub async fn address(&self) -> SocketAddr {
        eventually(&format!("{} tells where it listens", self.name), async || {
            let log = self.log();
            let found =
                log.lines().find_map(|line| line.split_once("http://")?.1.split_once(": /healthz")?.0.parse().ok());
            found.ok_or(log)
        })
        .await
    }

    /// Asks one of its probes.
    pub async fn get(&self, path: &str) -> Answer {
        http::get(self.address().await, path).await.unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&self) {
        self.says_ready(200, "").await;
    }

    /// Waits until `/readyz` answers with this status and a body that holds the text.
    pub async fn says_ready(&self, status: u16, text: &str) {
        let address = self.address().await;
        eventually(&format!("/readyz of {} says {status} {text:?}", self.name), async || {
            let answer = http::get(address, "/readyz").await?;
            let holds = answer.status == status && answer.body.contains(text);
            if holds { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
    }

    /// Waits until this process writes a kind, rather than stands by.
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
        // It is our child and nobody has waited for it, so the number is still its own.
        let sent = Command::new("kill").arg(format!("-{}", signal.name())).arg(self.pid.to_string()).status().await;
        assert!(sent.expect("run kill").success(), "cannot signal {}", self.name);
    }

    /// Ends it without a word, as the kernel does when memory is short.
    pub async fn kill(&mut self) {
        let mut child = self.child.take().unwrap_or_else(|| panic!("{} has ended already", self.name));
        self.killed = true;
        child.kill().await.expect("kill it");
    }

    /// Waits until it has ended.
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

    /// Asks it to end, and expects that it does so cleanly.
    pub async fn stop(&mut self) {
        self.signal(Signal::Terminate).await;
        let status = self.ended().await;
        assert!(status.success(), "{} did not stop cleanly ({status}):\n{}", self.name, self.log());
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
