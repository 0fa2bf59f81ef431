//! nats-server as a child.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;

use crate::programs::Programs;
use crate::secret;
use crate::server::{Kind, Server, Start, Stopped, make_directory};
use crate::sys::Signal;

/// The most that all streams together may reserve, unless told otherwise. A limit, nothing is allocated: far more than
/// the default streams ask for, and still a stop before a large disk is full.
pub const DEFAULT_MAX_FILE_STORE: u64 = 64 << 30;
/// Nothing of ours lives in memory streams; what others put there must not take the machine.
const MAX_MEMORY_STORE: u64 = 256 << 20;
/// How long an orderly end may take: the streams' last blocks are written and synced.
const STOP_BOUND: Duration = Duration::from_secs(20);
/// A server that listens sends its first line at once.
const GREETING_BOUND: Duration = Duration::from_secs(2);
/// The first line holds a few hundred bytes; more is no nats-server.
const GREETING_BYTES: u64 = 64 << 10;

/// How to run nats-server.
#[derive(Clone, Debug)]
pub struct NatsOptions {
    /// The server's own directory: configuration, streams, log.
    pub data_dir: PathBuf,
    /// The port; `None` lets the system choose.
    pub port: Option<u16>,
    /// Whether each message is synced to the disk before it is acknowledged. Off, a power cut (not a crash of the
    /// server) can cost the last two minutes.
    pub sync_always: bool,
    /// Appended to the generated configuration: accounts, users, limits.
    pub extra_config: String,
    /// The most that all streams together may reserve, in bytes; `None` is [`DEFAULT_MAX_FILE_STORE`].
    pub max_file_store: Option<u64>,
    /// Whether there are streams at all.
    pub jetstream: bool,
    /// The JetStream domain, where the server is a leaf node or the hub of some.
    pub domain: Option<String>,
    /// The server's name, which it needs to keep in a cluster: by it the others know what is on its disk. `None` gives
    /// it another one at each start, by which a greeting of some other server on its port is told from its own.
    pub server_name: Option<String>,
}

impl NatsOptions {
    /// JetStream on a free port, without users.
    pub fn new(data_dir: impl Into<PathBuf>) -> NatsOptions {
        NatsOptions {
            data_dir: data_dir.into(),
            port: None,
            sync_always: false,
            extra_config: String::new(),
            max_file_store: None,
            jetstream: true,
            domain: None,
            server_name: None,
        }
    }
}

/// A nats-server that runs as our child. Dropping it kills the server; [`NatsServer::stop`] is the orderly way.
pub struct NatsServer {
    server: Server<Nats>,
}

impl fmt::Debug for NatsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsServer").field("pid", &self.pid()).field("port", &self.port()).finish_non_exhaustive()
    }
}

impl NatsServer {
    /// Starts the server and returns once it serves.
    pub async fn start(programs: &Programs, options: NatsOptions) -> Result<NatsServer> {
        let directory = make_directory(&options.data_dir)?;
        let port = options.port;
        let nats = Nats { program: programs.nats_server.clone(), directory, options, server_name: Mutex::default() };
        Ok(NatsServer { server: Server::start(nats, port).await? })
    }

    /// Where clients connect, `nats://127.0.0.1:PORT`. The same after a restart.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.server.port())
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.server.child().pid()
    }

    /// The port. The same after a restart.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// The server's log.
    pub fn log(&self) -> PathBuf {
        self.server.kind().directory().join(format!("{}.log", Nats::NAME))
    }

    /// Kills it like a power cut would, and returns when it is gone.
    pub async fn kill(&self) -> Result<()> {
        self.server.kill().await
    }

    /// Stops it in an orderly way, in a bounded time. Harmless when it has ended already.
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

struct Nats {
    program: PathBuf,
    directory: PathBuf,
    options: NatsOptions,
    /// The name of the process that runs now: a greeting tells by it whether it comes from our process.
    server_name: Mutex<String>,
}

impl Kind for Nats {
    const NAME: &'static str = "nats-server";
    const STOP: Signal = Signal::Terminate;
    const STOP_BOUND: Duration = STOP_BOUND;
    const ON_DROP: Signal = Signal::Kill;

    fn directory(&self) -> &Path {
        &self.directory
    }

    fn prepare(&self, port: u16) -> Result<()> {
        let name = match &self.options.server_name {
            Some(name) => name.clone(),
            None => format!("watchbook-{}", &secret::generate()?[..12]),
        };
        let text = configuration(&self.options, &self.directory, port, &name);
        let path = self.directory.join("nats.conf");
        // Users' passwords may stand in it.
        crate::files::write_private(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
        *self.server_name.lock().unwrap_or_else(PoisonError::into_inner) = name;
        Ok(())
    }

    fn start(&self) -> Start {
        Start {
            program: self.program.clone(),
            arguments: vec!["--config".into(), self.directory.join("nats.conf").into()],
            user: None,
            directory: None,
        }
    }

    async fn is_ready(&self, _pid: u32, port: u16) -> bool {
        let name = self.server_name.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match tokio::time::timeout(GREETING_BOUND, greeting(port)).await {
            Ok(Some(info)) => {
                info["server_name"] == name.as_str() && (!self.options.jetstream || info["jetstream"] == true)
            }
            _ => false,
        }
    }
}

fn configuration(options: &NatsOptions, directory: &Path, port: u16, server_name: &str) -> String {
    let mut text =
        format!("# Written anew at each start.\nlisten: \"127.0.0.1:{port}\"\nserver_name: {}\n", quoted(server_name));
    if options.jetstream {
        let store = directory.join("jetstream");
        let max_file_store = options.max_file_store.unwrap_or(DEFAULT_MAX_FILE_STORE);
        text += &format!(
            "jetstream {{\n  store_dir: {}\n  max_file_store: {max_file_store}\n  max_memory_store: {MAX_MEMORY_STORE}\n",
            quoted(&store.to_string_lossy())
        );
        if let Some(domain) = &options.domain {
            text += &format!("  domain: {}\n", quoted(domain));
        }
        if options.sync_always {
            text += "  sync_interval: always\n";
        }
        text += "}\n";
    }
    text + &options.extra_config + "\n"
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The line that a nats-server sends first, before anybody signs in.
async fn greeting(port: u16) -> Option<serde_json::Value> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let mut line = String::new();
    BufReader::new(stream.take(GREETING_BYTES)).read_line(&mut line).await.ok()?;
    serde_json::from_str(line.strip_prefix("INFO ")?.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_says_what_was_asked() {
        let mut options = NatsOptions::new("/ignored");
        options.sync_always = true;
        options.max_file_store = Some(1024);
        options.extra_config = "max_connections: 7".into();
        options.domain = Some("hub".into());
        let text = configuration(&options, Path::new("/a \"b\"/c"), 4222, "me");
        for expected in [
            "listen: \"127.0.0.1:4222\"",
            "store_dir: \"/a \\\"b\\\"/c/jetstream\"",
            "max_file_store: 1024",
            "sync_interval: always",
            "max_connections: 7",
            "domain: \"hub\"",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        options.jetstream = false;
        assert!(!configuration(&options, Path::new("/c"), 1, "me").contains("jetstream"));
    }
}
