//! Building a world.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use async_nats::jetstream;
use local::NatsServer;
use sqlx::postgres::PgPoolOptions;

use super::{Server, World};
use crate::proxy::Proxy;
use crate::servers::{self, OwnServer};
use crate::worker::Start;

/// The log filter of every test. It is verbose, so that a body in a log is noticed wherever it comes from.
const LOG_FILTER: &str = "info,async_nats=warn,watchbook=debug,writer=debug,bus=debug,store=debug,publisher=debug,records=debug,runtime=debug";

/// The servers of a world, and the settings of `watchbook`.
#[derive(Debug)]
pub struct Builder {
    binary: PathBuf,
    nats: Option<OwnServer<NatsServer>>,
    own_nats: bool,
    own_postgres: bool,
    proxies: bool,
    set_up: bool,
    settings: Vec<(String, String)>,
}

impl Builder {
    /// Uses a separate nats-server, which the test may kill and restart.
    pub fn own_nats(mut self) -> Self {
        self.own_nats = true;
        self
    }

    /// Uses this nats-server, which has its own configuration.
    pub fn nats(mut self, server: OwnServer<NatsServer>) -> Self {
        self.nats = Some(server);
        self
    }

    /// Uses a separate Postgres, which the test may kill and restart.
    pub fn own_postgres(mut self) -> Self {
        self.own_postgres = true;
        self
    }

    /// Connects to both servers through proxies that can be cut.
    pub fn proxies(mut self) -> Self {
        self.proxies = true;
        self
    }

    /// Does not create the streams.
    pub fn without_setup(mut self) -> Self {
        self.set_up = false;
        self
    }

    /// Adds a setting, as a variable such as `WATCHBOOK_WRITER__LANES`.
    pub fn with(mut self, variable: &str, value: impl ToString) -> Self {
        self.settings.push((variable.to_owned(), value.to_string()));
        self
    }

    /// Builds the world.
    pub async fn start(self) -> World {
        let name = format!("t{:012x}", fastrand::u64(..1 << 48));
        let nats = match self.nats {
            Some(server) => Server::OwnServer(server),
            None if self.own_nats => Server::OwnServer(servers::start_nats(|_| {}).await),
            None => Server::Shared(servers::shared_nats().await),
        };
        let (postgres, database_url) = if self.own_postgres {
            let server = servers::start_postgres().await;
            servers::migrate(&server.url()).await;
            let url = server.url();
            (Server::OwnServer(server), url)
        } else {
            let url = servers::copy_database(&name).await;
            (Server::Shared(servers::shared_postgres().await), url)
        };
        let (nats_link, postgres_link) = if self.proxies {
            (Some(Proxy::to(nats.port()).await), Some(Proxy::to(postgres.port()).await))
        } else {
            (None, None)
        };
        let through = |url: &str, port: u16, link: &Option<Proxy>| match link {
            Some(link) => url.replace(&format!(":{port}"), &format!(":{}", link.port())),
            None => url.to_owned(),
        };
        let nats_url = nats.url();
        let directory = servers::directory(&name);
        let mut environment = vec![
            ("NATS_URL".to_owned(), through(&nats_url, nats.port(), &nats_link)),
            ("DATABASE_URL".to_owned(), through(&database_url, postgres.port(), &postgres_link)),
            ("WATCHBOOK_NATS__PREFIX".to_owned(), name.clone()),
            ("WATCHBOOK_HTTP_ADDR".to_owned(), "127.0.0.1:0".to_owned()),
            // A limit, which the server reserves for each of seven streams per test.
            ("WATCHBOOK_STREAMS__MAX_BYTES".to_owned(), "64MiB".to_owned()),
            ("WATCHBOOK_LOG__FILTER".to_owned(), LOG_FILTER.to_owned()),
        ];
        environment.extend(self.settings);
        let start = Start { binary: self.binary, directory: directory.path().to_owned(), environment };
        let client = async_nats::connect(&nats_url).await.expect("connect to NATS");
        let database = PgPoolOptions::new().max_connections(4).connect_lazy(&database_url).expect("a database URL");
        let world = World {
            jetstream: jetstream::new(client.clone()),
            client,
            database,
            database_url,
            nats_link,
            postgres_link,
            nats,
            postgres,
            start,
            started: AtomicUsize::new(0),
            logs: Mutex::default(),
            rows_dropped: AtomicBool::new(false),
            broken_readers: AtomicUsize::new(0),
            finished: false,
            name,
            _directory: directory,
        };
        if self.set_up {
            world.run(&["setup"]).await.succeeded();
        }
        world
    }
}

impl World {
    /// Returns a builder for a world in which `watchbook` is this binary.
    pub fn builder(binary: impl Into<PathBuf>) -> Builder {
        Builder {
            binary: binary.into(),
            nats: None,
            own_nats: false,
            own_postgres: false,
            proxies: false,
            set_up: true,
            settings: Vec::new(),
        }
    }
}
