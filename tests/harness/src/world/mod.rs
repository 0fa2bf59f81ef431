//! The world of one test: a database, a stream prefix, settings, and everything that the test started.

mod accounting;
mod asking;
mod building;
mod ending;
mod publishing;
mod running;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use async_nats::jetstream;
use local::{NatsServer, PostgresServer};
use records::{Kind, subject};
use sqlx::PgPool;
use tempfile::TempDir;

pub use self::building::Builder;
pub use self::publishing::Load;
use crate::proxy::Proxy;
use crate::servers::Own;
use crate::worker::Start;

/// A server of this test alone, or of all.
#[derive(Debug)]
enum Server<S: 'static> {
    Own(Own<S>),
    Shared(&'static S),
}

impl<S> std::ops::Deref for Server<S> {
    type Target = S;

    fn deref(&self) -> &S {
        match self {
            Self::Own(server) => server,
            Self::Shared(server) => server,
        }
    }
}

/// The world of one test. End it with [`World::finish`].
#[derive(Debug)]
pub struct World {
    name: String,
    client: async_nats::Client,
    jetstream: jetstream::Context,
    database: PgPool,
    database_url: String,
    nats_link: Option<Proxy>,
    postgres_link: Option<Proxy>,
    nats: Server<NatsServer>,
    postgres: Server<PostgresServer>,
    start: Start,
    started: AtomicUsize,
    logs: Mutex<Vec<(String, PathBuf)>>,
    rows_dropped: AtomicBool,
    broken_readers: AtomicUsize,
    finished: bool,
    _directory: TempDir,
}

impl World {
    /// The prefix of this world's subjects, and the name of its database.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A directory for whatever the test wants to write; removed with the world.
    pub fn directory(&self) -> &Path {
        &self.start.directory
    }

    /// The name of a kind's stream.
    pub fn stream(&self, kind: Kind) -> String {
        subject::stream_name(&self.name, kind)
    }

    /// A connection to NATS, past the proxy.
    pub fn client(&self) -> &async_nats::Client {
        &self.client
    }

    /// JetStream on that connection.
    pub fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }

    /// This world's database, past the proxy.
    pub fn database(&self) -> &PgPool {
        &self.database
    }

    /// Where that database is.
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// The server of this world alone.
    pub fn nats(&self) -> &Own<NatsServer> {
        match &self.nats {
            Server::Own(server) => server,
            Server::Shared(_) => panic!("the nats-server is not this test's own"),
        }
    }

    /// The server of this world alone.
    pub fn postgres(&self) -> &Own<PostgresServer> {
        match &self.postgres {
            Server::Own(server) => server,
            Server::Shared(_) => panic!("the Postgres is not this test's own"),
        }
    }

    /// Where NATS is, past the proxy.
    pub fn nats_url(&self) -> String {
        self.nats.url()
    }

    /// The workers' link to NATS.
    pub fn nats_link(&self) -> &Proxy {
        self.nats_link.as_ref().expect("a world with proxies")
    }

    /// The workers' link to Postgres.
    pub fn postgres_link(&self) -> &Proxy {
        self.postgres_link.as_ref().expect("a world with proxies")
    }
}
