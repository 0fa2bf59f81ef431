//! `watchbook up`: runs NATS, Postgres and all workers on this machine.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use local::{
    DirLock, NatsOptions, NatsServer, PostgresOptions, PostgresServer, Programs, ProgressCallback, RequiredPrograms,
    Stopped,
};
use runtime::Config;
use runtime::config::{HttpAddress, Secret};
use tokio_util::sync::CancellationToken;

use crate::demo::{self, Demo};
use crate::workers::{Worker, Workers};
use crate::{commands, output, process, token};

/// Start NATS, Postgres and all workers on this machine.
///
/// Finds or downloads nats-server and Postgres and runs them under --data-dir on free ports. If NATS_URL or
/// DATABASE_URL is set, uses that server instead. Data survives a restart. Ctrl-C stops everything.
///
/// Once everything is ready, DIR/env contains NATS_URL, DATABASE_URL, WATCHBOOK_URL and WATCHBOOK_TOKEN (role admin) as
/// KEY=VALUE lines. Load it with `set -a; . .watchbook/env` so that other commands use this stack.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  watchbook up --demo\nthen, in another terminal:\n  set -a; . .watchbook/env; watchbook status"
)]
pub(crate) struct Up {
    /// Directory for all data.
    #[arg(long, value_name = "DIR", default_value = ".watchbook")]
    data_dir: PathBuf,
    /// Publish demo traffic, after seven days of history at the first start. Two minutes later, and once an
    /// hour from then on, a deployment goes wrong and is rolled back: `watchbook alerts list` shows alerts that fire
    /// and resolve.
    #[arg(long)]
    demo: bool,
}

impl Up {
    pub(crate) async fn run(self, mut config: Config, file: Option<PathBuf>) -> anyhow::Result<ExitCode> {
        // Install the signal handler first, so that Ctrl-C during a download also stops cleanly.
        let signal = tokio::spawn(runtime::stop_signal());
        let directory = std::path::absolute(&self.data_dir).with_context(|| format!("{}", self.data_dir.display()))?;
        create(&directory)?;
        let _lock = DirLock::acquire(&directory)?;
        let environment = directory.join("env");
        remove(&environment)?;
        tokio::select! {
            signal = signal => {
                let signal = signal.context("wait for a signal")??;
                anyhow::bail!("stopped by {signal} before everything was ready")
            }
            stack = Stack::start(&directory, &mut config) => {
                let stack = stack?;
                let done = self.work(&config, file, &stack, &directory, &environment).await;
                remove(&environment)?;
                let clean = stack.stop().await;
                done.map(|workers_clean| if clean && workers_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
        }
    }

    /// Sets up, runs all workers and waits for a signal or a failed server. Returns whether the workers stopped
    /// cleanly.
    async fn work(
        &self,
        config: &Config,
        file: Option<PathBuf>,
        stack: &Stack,
        directory: &Path,
        environment: &Path,
    ) -> anyhow::Result<bool> {
        let bus = process::bus(config).await?;
        let database = process::database(config).await?;
        let agrees = commands::setup::ensure(config, &bus, &database, false, &|line| tracing::info!("{line}")).await?;
        anyhow::ensure!(agrees, "streams differ from the settings, see above: run `watchbook setup --update`");
        let mut config = with_free_address(config.clone());
        let secret = token::secret(&config, directory)?;
        // The gateway accepts either a shared secret or a JWKS; with a JWKS it would reject the token that `up` signs.
        anyhow::ensure!(
            config.gateway.jwks_url.is_none(),
            "`up` signs tokens itself: remove `jwks_url` from [gateway]"
        );
        config.http.jwt_secret = Some(secret.clone());
        let config = &config;
        if self.demo {
            // Before the alert worker starts, so that it does not notify about history.
            demo::history::provide(config, &bus, &database, directory).await?;
        }
        let workers = Workers::start(config, file, &bus, &database, &Worker::all_of(config)).await?;
        let token = token::admin(&secret, config)?;
        let url = workers.address.map_or_else(|| "off".to_owned(), |address| format!("http://{address}"));
        write_environment(environment, config, &url, &token)?;
        greet(config, &url, environment, directory);
        let stop = CancellationToken::new();
        let demo =
            self.demo.then(|| Demo::new(config, &bus).map(|demo| tokio::spawn(demo.run(stop.clone())))).transpose()?;
        let ended = tokio::select! {
            signal = runtime::stop_signal() => signal.context("wait for a signal").map(|signal| tracing::info!(signal, "stopping")),
            error = stack.supervise() => Err(error),
        };
        stop.cancel();
        if let Some(demo) = demo {
            // The panic hook reports a panic in the demo; it must not affect anything else.
            let _ = demo.await;
        }
        let clean = workers.stop().await;
        // Close the connection before its server stops.
        bus.close().await;
        ended.map(|()| clean)
    }
}

/// The servers started by `up`.
struct Stack {
    nats: Option<NatsServer>,
    postgres: Option<PostgresServer>,
}

impl Stack {
    /// Starts each server that has no URL in the settings, and sets its URL there.
    async fn start(directory: &Path, config: &mut Config) -> anyhow::Result<Self> {
        let required = RequiredPrograms { nats: config.nats.url.is_none(), postgres: config.postgres.url.is_none() };
        anyhow::ensure!(
            !required.nats || config.nats.jetstream_domain.is_none() && config.nats.jetstream_api_prefix.is_none(),
            "`up` starts a nats-server of its own, which has neither a JetStream domain nor other accounts: set NATS_URL, or remove jetstream_domain and jetstream_api_prefix from [nats]"
        );
        let on_progress: ProgressCallback = Arc::new(|line: &str| eprintln!("{line}"));
        let programs = Programs::locate(&local::cache_dir(), required, &on_progress).await?;
        let postgres = if required.postgres {
            let server = PostgresServer::start(&programs, PostgresOptions::new(directory.join("postgres"))).await?;
            config.postgres.url = Some(Secret::new(server.url()));
            Some(server)
        } else {
            None
        };
        let nats = if required.nats {
            let mut options = NatsOptions::new(directory.join("nats"));
            // An acknowledged record then survives a crash of the machine, not only of the server.
            options.sync_always = true;
            let server = NatsServer::start(&programs, options).await?;
            config.nats.url = Some(server.url());
            Some(server)
        } else {
            None
        };
        Ok(Self { nats, postgres })
    }

    /// Restarts a server that exits unexpectedly. Returns the error if a restart fails.
    async fn supervise(&self) -> anyhow::Error {
        loop {
            let restarted = tokio::select! {
                status = ended(self.nats.as_ref().map(NatsServer::wait)) => {
                    tracing::warn!(%status, "nats-server exited unexpectedly; restarting it");
                    match &self.nats { Some(server) => server.restart().await, None => Ok(()) }
                }
                status = ended(self.postgres.as_ref().map(PostgresServer::wait)) => {
                    tracing::warn!(%status, "Postgres exited unexpectedly; restarting it");
                    match &self.postgres { Some(server) => server.restart().await, None => Ok(()) }
                }
            };
            if let Err(error) = restarted {
                return error.context("restart a server that exited unexpectedly");
            }
        }
    }

    /// Stops the servers, NATS first, so that nothing is published while no writer runs. Returns whether both stopped
    /// cleanly.
    async fn stop(self) -> bool {
        let mut clean = true;
        if let Some(server) = self.nats {
            clean &= matches!(server.stop().await, Ok(Stopped::Clean));
        }
        if let Some(server) = self.postgres {
            clean &= matches!(server.stop().await, Ok(Stopped::Clean));
        }
        clean
    }
}

/// Waits for a server to exit. Never returns if there is none.
async fn ended<T>(wait: Option<impl Future<Output = T>>) -> T {
    match wait {
        Some(wait) => wait.await,
        None => std::future::pending().await,
    }
}

/// Switches to a free port if the default one is in use. A configured address is kept.
fn with_free_address(mut config: Config) -> Config {
    if config.http.address == HttpAddress::default()
        && let HttpAddress::At(address) = config.http.address
        && TcpListener::bind(address).is_err()
    {
        tracing::info!(%address, "the default HTTP address is in use; listening on a free port instead");
        config.http.address = HttpAddress::At(SocketAddr::new(address.ip(), 0));
    }
    config
}

fn write_environment(path: &Path, config: &Config, url: &str, token: &str) -> anyhow::Result<()> {
    let lines = format!(
        "NATS_URL={}\nDATABASE_URL={}\nWATCHBOOK_URL={url}\nWATCHBOOK_TOKEN={token}\n",
        config.nats_url()?,
        config.database_url()?
    );
    write_private(path, &lines)
}

fn greet(config: &Config, url: &str, environment: &Path, directory: &Path) {
    let nats = config.nats.url.as_deref().map(runtime::config::redact_url).unwrap_or_default();
    output::say("Watchbook is up.");
    output::say(format_args!("  page     {url}  (/api/openapi.json, /readyz, /metrics)"));
    output::say(format_args!("  sign in  with WATCHBOOK_TOKEN of {}", environment.display()));
    output::say(format_args!("  publish  to watchbook.<kind>.<organization>.<detail> on {nats}"));
    output::say(format_args!("  data     {}", directory.display()));
    output::say(format_args!("In another terminal:  set -a; . {}; watchbook status", environment.display()));
    // Ignore a closed pipe.
    let _ = std::io::stdout().flush();
}

/// Creates the directory. Other users may enter it, because Postgres may run as another user; secret files in it are
/// readable only by their owner.
fn create(directory: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))
}

/// Atomically writes a file that only its owner can read.
pub(crate) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let new = path.with_extension("new");
    remove(&new)?;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .with_context(|| format!("create {}", new.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("write {}", new.display()))?;
    std::fs::rename(&new, path).with_context(|| format!("create {}", path.display()))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
