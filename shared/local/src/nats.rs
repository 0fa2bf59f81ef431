//! nats-server as a child process.

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

/// Default limit on the bytes that all streams together may reserve. Nothing is allocated in advance. It is far
/// more than the default streams need, and keeps them from filling a large disk.
pub const DEFAULT_MAX_FILE_STORE: u64 = 64 << 30;
/// Limit on memory streams. Watchbook uses none, and those of others must not exhaust the memory.
const MAX_MEMORY_STORE: u64 = 256 << 20;
/// Time limit of a shutdown, in which the last blocks of the streams are written and synced.
const STOP_BOUND: Duration = Duration::from_secs(20);
/// Time limit for the first line from a server, which a listening server sends at once.
const GREETING_BOUND: Duration = Duration::from_secs(2);
/// Maximum length of the first line, which has a few hundred bytes.
const GREETING_BYTES: u64 = 64 << 10;

/// The options of a nats-server.
#[derive(Clone, Debug)]
pub struct NatsOptions {
    /// The server's own directory, for its configuration, streams and log.
    pub data_dir: PathBuf,
    /// The port. `None` lets the system choose one.
    pub port: Option<u16>,
    /// Whether each message is synced to disk before it is acknowledged. If not, a power failure (but not a crash
    /// of the server) can lose the last two minutes.
    pub sync_always: bool,
    /// Text appended to the generated configuration, such as accounts, users and limits.
    pub extra_config: String,
    /// Limit on the bytes that all streams together may reserve. `None` is [`DEFAULT_MAX_FILE_STORE`].
    pub max_file_store: Option<u64>,
    /// Whether JetStream is enabled.
    pub jetstream: bool,
    /// The JetStream domain, where the server is a leaf node or the hub of some.
    pub domain: Option<String>,
    /// The server's name, which it needs to keep in a cluster: by it the others know what is on its disk. `None` gives
    /// it another one at each start, by which a greeting of some other server on its port is told from its own.
    pub server_name: Option<String>,
}

impl NatsOptions {
    /// Returns options for JetStream on a free port, without users.
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

/// A nats-server that runs as a child process. Dropping it kills the server; use [`NatsServer::stop`] for a clean
/// shutdown.
pub struct NatsServer {
    server: Server<Nats>,
}

impl fmt::Debug for NatsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsServer").field("pid", &self.pid()).field("port", &self.port()).finish_non_exhaustive()
    }
}

impl NatsServer {
    /// Starts the server and returns once it accepts connections.
    pub async fn start(programs: &Programs, options: NatsOptions) -> Result<NatsServer> {
        let directory = make_directory(&options.data_dir)?;
        let port = options.port;
        let nats = Nats { program: programs.nats_server.clone(), directory, options, server_name: Mutex::default() };
        Ok(NatsServer { server: Server::start(nats, port).await? })
    }

    /// Returns the URL for clients, `nats://127.0.0.1:PORT`. It stays the same after a restart.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.server.port())
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.server.child().pid()
    }

    /// Returns the port. It stays the same after a restart.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// Returns the path of the server's log.
    pub fn log(&self) -> PathBuf {
        self.server.kind().directory().join(format!("{}.log", Nats::NAME))
    }

    /// Kills the server, like a power failure would, and returns when it is gone.
    pub async fn kill(&self) -> Result<()> {
        self.server.kill().await
    }

    /// Stops the server cleanly within a limited time. Does nothing if it has exited already.
    pub async fn stop(&self) -> Result<Stopped> {
        self.server.stop().await
    }

    /// Stops the server if it is running and starts it with the same port and data. Returns once it accepts
    /// connections.
    pub async fn restart(&self) -> Result<()> {
        self.server.restart().await
    }

    /// Resolves when the current process has exited. The future does not borrow the server.
    pub fn wait(&self) -> impl Future<Output = ExitStatus> + Send + use<> {
        self.server.child().exited()
    }
}

struct Nats {
    program: PathBuf,
    directory: PathBuf,
    options: NatsOptions,
    /// The name of the running process, so that the first line shows whether it comes from our process.
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
        // The configuration may contain passwords.
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
        format!("# Overwritten at each start.\nlisten: \"127.0.0.1:{port}\"\nserver_name: {}\n", quoted(server_name));
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

/// Returns the line that a nats-server sends first, before authentication.
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
