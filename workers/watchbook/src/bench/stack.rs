//! NATS and Postgres for one bench run, removed at its end.

use std::sync::Arc;

use anyhow::Context;
use bus::Bus;
use local::{NatsOptions, NatsServer, PostgresOptions, PostgresServer, Programs, ProgressCallback, RequiredPrograms};
use records::Kind;
use runtime::Config;
use runtime::config::{HttpAddress, Secret};
use store::Database;
use tempfile::TempDir;

use crate::{commands, process};

pub(crate) struct BenchStack {
    pub(crate) config: Config,
    pub(crate) bus: Bus,
    pub(crate) database: Database,
    // In the order in which they must be dropped.
    nats: NatsServer,
    postgres: PostgresServer,
    directory: TempDir,
}

impl BenchStack {
    /// Starts the servers as `up` does and sets up streams and tables.
    pub(crate) async fn start(mut config: Config) -> anyhow::Result<Self> {
        let directory = TempDir::with_prefix("watchbook-bench-").context("make a directory for the bench")?;
        let on_progress: ProgressCallback = Arc::new(|line: &str| eprintln!("{line}"));
        let programs = Programs::locate(&local::cache_dir(), RequiredPrograms::BOTH, &on_progress).await?;
        let postgres =
            PostgresServer::start(&programs, PostgresOptions::new(directory.path().join("postgres"))).await?;
        // Without `sync_always`, which `up` sets: it would only slow down publishing, before the clock starts.
        let nats = NatsServer::start(&programs, NatsOptions::new(directory.path().join("nats"))).await?;
        config.postgres.url = Some(Secret::new(postgres.url()));
        config.nats.url = Some(nats.url());
        // The server above has no domain and one account.
        config.nats.jetstream_domain = None;
        config.nats.jetstream_api_prefix = None;
        config.http.address = HttpAddress::Off;
        // Large enough for all rows of a bench, so that no publish is refused.
        config.streams.max_bytes = bytesize::ByteSize::gib(4);
        let bus = process::bus(&config).await?;
        let database = process::database(&config).await?;
        commands::setup::ensure(&config, &bus, &database, false, &|_| {}).await?;
        Ok(Self { config, bus, database, nats, postgres, directory })
    }

    /// Returns the environment variables that point a worker to this stack.
    pub(crate) fn environment(&self) -> anyhow::Result<Vec<(&'static str, String)>> {
        Ok(vec![
            ("NATS_URL", self.config.nats_url()?.to_owned()),
            ("DATABASE_URL", self.config.database_url()?.to_owned()),
            ("WATCHBOOK_HTTP_ADDR", "off".to_owned()),
            ("WATCHBOOK_STREAMS__MAX_BYTES", "4GiB".to_owned()),
            ("WATCHBOOK_LOG__FILTER", "warn".to_owned()),
        ])
    }

    /// Writes a file that is removed together with the stack. Returns its path.
    pub(crate) fn write_file(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path.display().to_string())
    }

    /// Empties a kind's table, roll-ups and position, and recreates its stream.
    pub(crate) async fn empty(&self, kind: Kind) -> anyhow::Result<()> {
        let mut connection = process::connect(&self.database).await?;
        store::bench::empty_kind(&mut connection, kind).await?;
        self.remake_stream(kind).await
    }

    /// Deletes and recreates a kind's stream.
    pub(crate) async fn remake_stream(&self, kind: Kind) -> anyhow::Result<()> {
        self.bus.delete_stream(kind).await?;
        self.bus.ensure_stream(kind, &self.config.streams, false).await?;
        Ok(())
    }

    /// Runs a checkpoint, so that earlier work does not disturb a measurement.
    pub(crate) async fn settle_down(&self) -> anyhow::Result<()> {
        let mut connection = process::connect(&self.database).await?;
        Ok(store::bench::checkpoint(&mut connection).await?)
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        // Close our own connection first, or it would report that the server went away.
        self.bus.close().await;
        self.nats.stop().await?;
        self.postgres.stop().await?;
        self.directory.close().context("remove the directory of the bench")
    }
}
