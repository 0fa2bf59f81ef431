//! A separate nats-server for each test, and queries against it.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use async_nats::jetstream::{self, Context};
use futures::StreamExt;
use local::{NatsOptions, NatsServer, Programs, ProgressCallback, RequiredPrograms, cache_dir};
use publisher::Publisher;
use records::{Event, Kind, subject};
use tempfile::TempDir;

/// Upper bound of all waits. Far longer than anything here takes on a busy machine; only a failing test reaches it.
pub const BOUND: Duration = Duration::from_secs(60);

/// Two users: `acme` may only publish its own events; a connection without a user may do everything.
pub const USERS: &str = r#"
no_auth_user: admin
authorization { users: [
  { user: admin, password: admin }
  { user: acme, password: secret, permissions: { publish: "watchbook.events.acme.>", subscribe: "_INBOX.>" } }
] }
"#;

/// A server with its streams.
pub struct World {
    pub nats: NatsServer,
    _directory: TempDir,
}

impl World {
    /// Starts a server with the events stream.
    pub async fn with_events() -> Self {
        Self::with_events_that(|_| {}).await
    }

    /// Starts a server with a modified events stream.
    pub async fn with_events_that(change: impl FnOnce(&mut Config)) -> Self {
        let world = Self::bare("").await;
        world.create(Kind::Events, change).await;
        world
    }

    /// Starts a server without streams. `extra_config` is appended to its configuration.
    pub async fn bare(extra_config: &str) -> Self {
        Self::with(|options| options.extra_config = extra_config.to_owned()).await
    }

    /// A server without streams, with options that differ.
    pub async fn with(change: impl FnOnce(&mut NatsOptions)) -> Self {
        let on_progress: ProgressCallback = Arc::new(|_| {});
        let required = RequiredPrograms { nats: true, postgres: false };
        let programs = Programs::locate(&cache_dir(), required, &on_progress).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut options = NatsOptions::new(directory.path());
        change(&mut options);
        let nats = NatsServer::start(&programs, options).await.unwrap();
        Self { nats, _directory: directory }
    }

    /// Creates the stream of a kind like `watchbook setup`, with a modification.
    pub async fn create(&self, kind: Kind, change: impl FnOnce(&mut Config)) {
        let mut config = Config {
            name: subject::stream_name("watchbook", kind),
            subjects: vec![subject::filter("watchbook", kind, None)],
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            max_bytes: 1 << 30,
            allow_atomic_publish: true,
            ..Config::default()
        };
        change(&mut config);
        self.jetstream().await.create_stream(config).await.unwrap();
    }

    /// Returns a publisher with its own connection.
    pub async fn publisher(&self) -> Publisher {
        Publisher::connect(self.nats.url()).await.unwrap()
    }

    pub async fn jetstream(&self) -> Context {
        jetstream::new(async_nats::connect(self.nats.url()).await.unwrap())
    }

    /// Returns the number of messages in the stream of a kind.
    pub async fn stored(&self, kind: Kind) -> u64 {
        let name = subject::stream_name("watchbook", kind);
        self.jetstream().await.get_stream(name).await.unwrap().cached_info().state.messages
    }

    /// Returns all bodies in the stream of a kind, in order.
    pub async fn bodies(&self, kind: Kind) -> Vec<serde_json::Value> {
        let stream = self.jetstream().await.get_stream(subject::stream_name("watchbook", kind)).await.unwrap();
        let count = stream.cached_info().state.messages as usize;
        let consumer = stream.create_consumer(OrderedConfig::default()).await.unwrap();
        let messages = consumer.messages().await.unwrap().take(count);
        let read = messages.map(|message| serde_json::from_slice(&message.unwrap().payload).unwrap()).collect();
        tokio::time::timeout(BOUND, read).await.unwrap()
    }

    /// Returns the distinct ids in the stream of a kind.
    pub async fn ids(&self, kind: Kind) -> BTreeSet<String> {
        let bodies = self.bodies(kind).await;
        bodies.iter().map(|body| body["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Stops the server's process, so that its connections stay open but nothing is answered. Waits until all of
    /// its threads are stopped, because the signal reaches them one after the other.
    pub async fn freeze(&self) {
        self.signal("-STOP");
        let tasks = format!("/proc/{}/task", self.nats.pid());
        let is_stopped = |task: std::path::PathBuf| {
            let stat = std::fs::read_to_string(task.join("stat")).unwrap();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        };
        until("every thread of the server is stopped", async || {
            std::fs::read_dir(&tasks).unwrap().all(|task| is_stopped(task.unwrap().path()))
        })
        .await;
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").arg(signal).arg(self.nats.pid().to_string()).status().unwrap();
        assert!(status.success());
    }
}

/// Waits until a condition holds. Fails the test after [`BOUND`].
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < BOUND, "not within {BOUND:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Returns an event that carries a number.
pub fn event(number: usize) -> Event<'static> {
    Event { event_type: "test.event".into(), run_id: Some(number.to_string().into()), ..Event::default() }
}

/// Returns the number of an event.
pub fn number(body: &serde_json::Value) -> usize {
    body["run_id"].as_str().unwrap().parse().unwrap()
}
