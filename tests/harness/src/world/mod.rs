//! The world of one test: a database, a stream prefix, settings, and everything that the test started.

mod accounting;
mod building;
mod ending;
mod publishing;
mod queries;
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
use crate::servers::OwnServer;
use crate::worker::Start;

/// A server of this test alone, or the shared one.
#[derive(Debug)]
enum Server<S: 'static> {
    OwnServer(OwnServer<S>),
    Shared(&'static S),
}

impl<S> std::ops::Deref for Server<S> {
    type Target = S;

    fn deref(&self) -> &S {
        match self {
            Self::OwnServer(server) => server,
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
    /// Returns the prefix of this world's subjects, which is also the name of its database.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns a directory for files of the test. It is removed with the world.
    pub fn directory(&self) -> &Path {
        &self.start.directory
    }

    /// Returns the name of a kind's stream.
    pub fn stream(&self, kind: Kind) -> String {
        subject::stream_name(&self.name, kind)
    }

    /// Returns a NATS client that bypasses the proxy.
    pub fn client(&self) -> &async_nats::Client {
        &self.client
    }

    /// Returns the JetStream context of that client.
    pub fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }

    /// Returns a pool for this world's database that bypasses the proxy.
    pub fn database(&self) -> &PgPool {
        &self.database
    }

    /// Returns the URL of that database.
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// Returns the nats-server of this world. Panics if it is the shared one.
    pub fn nats(&self) -> &OwnServer<NatsServer> {
        match &self.nats {
            Server::OwnServer(server) => server,
            Server::Shared(_) => panic!("this test uses the shared nats-server; build the world with `own_nats`"),
        }
    }

    /// Returns the Postgres of this world. Panics if it is the shared one.
    pub fn postgres(&self) -> &OwnServer<PostgresServer> {
        match &self.postgres {
            Server::OwnServer(server) => server,
            Server::Shared(_) => panic!("this test uses the shared Postgres; build the world with `own_postgres`"),
        }
    }

    /// Returns the URL of NATS, bypassing the proxy.
    pub fn nats_url(&self) -> String {
        self.nats.url()
    }

    /// Returns the proxy between the workers and NATS.
    pub fn nats_link(&self) -> &Proxy {
        self.nats_link.as_ref().expect("a world with proxies")
    }

    /// Returns the proxy between the workers and Postgres.
    pub fn postgres_link(&self) -> &Proxy {
        self.postgres_link.as_ref().expect("a world with proxies")
    }
}
