//! The world of one test: a database, a stream prefix, settings, and everything that the test started.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use async_nats::HeaderMap;
use async_nats::jetstream::{self, publish::PublishAck};
use bytes::Bytes;
use local::{NatsServer, PostgresServer};
use records::{Kind, subject};
use serde_json::Value;
use sqlx::postgres::{PgPoolOptions, PgRow};
use sqlx::{FromRow, PgPool};
use tempfile::TempDir;
use tokio::task::{JoinHandle, JoinSet};

use crate::account::{self, Account};
use crate::messages::{self, MARKER};
use crate::proxy::Proxy;
use crate::servers::{self, Own};
use crate::wait::{BOUND, eventually};
use crate::worker::{Finished, Start, Watchbook};

/// Messages whose acknowledgements are awaited together: enough that the way there and back does not count.
const ACKS_AT_ONCE: usize = 500;
/// Messages of a load: few, so that it takes its time.
const LOAD_AT_ONCE: usize = 50;
/// A reader that could not say good-bye leaves a consumer, and so does a look at the stream that was under way.
const CONSUMERS_OF_A_BROKEN_READER: usize = 2;
/// Of a log that is shown because a test failed.
const SHOWN_LOG_BYTES: usize = 6_000;
/// What every test lets the workers log, so that a body in a log is noticed wherever it comes from.
const LOG_FILTER: &str = "info,async_nats=warn,watchbook=debug,writer=debug,bus=debug,store=debug,publisher=debug,records=debug,runtime=debug";

/// Which servers a world has, and how `watchbook` is set.
#[derive(Debug)]
pub struct Builder {
    binary: PathBuf,
    nats: Option<Own<NatsServer>>,
    own_nats: bool,
    own_postgres: bool,
    proxies: bool,
    set_up: bool,
    settings: Vec<(String, String)>,
}

impl Builder {
    /// With a nats-server of its own, to be killed and restarted.
    pub fn own_nats(mut self) -> Self {
        self.own_nats = true;
        self
    }

    /// With this nats-server, which is set in a way of its own.
    pub fn nats(mut self, server: Own<NatsServer>) -> Self {
        self.nats = Some(server);
        self
    }

    /// With a Postgres of its own, to be killed and restarted.
    pub fn own_postgres(mut self) -> Self {
        self.own_postgres = true;
        self
    }

    /// With links to both servers that can be cut.
    pub fn proxies(mut self) -> Self {
        self.proxies = true;
        self
    }

    /// Without streams.
    pub fn without_setup(mut self) -> Self {
        self.set_up = false;
        self
    }

    /// With a setting, as a variable such as `WATCHBOOK_WRITER__LANES`.
    pub fn with(mut self, variable: &str, value: impl ToString) -> Self {
        self.settings.push((variable.to_owned(), value.to_string()));
        self
    }

    /// Makes the world.
    pub async fn start(self) -> World {
        let name = format!("t{:012x}", fastrand::u64(..1 << 48));
        let nats = match self.nats {
            Some(server) => Server::Own(server),
            None if self.own_nats => Server::Own(servers::start_nats(|_| {}).await),
            None => Server::Shared(servers::shared_nats().await),
        };
        let (postgres, database_url) = if self.own_postgres {
            let server = servers::start_postgres().await;
            servers::migrate(&server.url()).await;
            let url = server.url();
            (Server::Own(server), url)
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
            // A limit, reserved by the server for each of seven streams a test.
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
    /// A world in which `watchbook` is this binary.
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

    // What there is.

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

    // Running watchbook.

    /// Starts workers of these kinds (`all`, or names with commas) and returns at once.
    pub fn spawn(&self, workers: &str) -> Watchbook {
        self.spawn_with(workers, &[])
    }

    /// The same, with settings that differ from the world's.
    pub fn spawn_with(&self, workers: &str, settings: &[(&str, &str)]) -> Watchbook {
        self.spawn_command(&["run", "--workers", workers], settings)
    }

    /// Starts any command that runs until it is stopped.
    pub fn spawn_command(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Watchbook {
        self.spawn_as(&self.start_with(settings), arguments)
    }

    /// Starts a command that runs until it is stopped, without this world's servers and settings.
    pub fn spawn_bare(&self, arguments: &[&str]) -> Watchbook {
        self.spawn_as(&self.bare(), arguments)
    }

    /// Runs a command to its end, without this world's servers and settings.
    pub async fn run_bare(&self, arguments: &[&str]) -> Finished {
        self.bare().finish(arguments, "").await
    }

    fn bare(&self) -> Start {
        Start { environment: Vec::new(), ..self.start.clone() }
    }

    fn spawn_as(&self, start: &Start, arguments: &[&str]) -> Watchbook {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let watchbook = start.spawn(number, arguments);
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.push((watchbook.name().to_owned(), watchbook.log_path().to_owned()));
        watchbook
    }

    /// Starts workers of these kinds, and waits until they are ready.
    pub async fn workers(&self, workers: &str) -> Watchbook {
        let watchbook = self.spawn(workers);
        watchbook.ready().await;
        watchbook
    }

    /// Runs a command to its end.
    pub async fn run(&self, arguments: &[&str]) -> Finished {
        self.run_with(arguments, &[], "").await
    }

    /// The same, with settings that differ from the world's, and an input.
    pub async fn run_with(&self, arguments: &[&str], settings: &[(&str, &str)], input: &str) -> Finished {
        self.start_with(settings).finish(arguments, input).await
    }

    fn start_with(&self, settings: &[(&str, &str)]) -> Start {
        let mut start = self.start.clone();
        // Of two values for one variable the later one counts.
        start.environment.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        start
    }

    // Publishing, with nothing of ours between.

    /// The subject of a kind for an organization.
    pub fn subject(&self, kind: Kind, organization: &str) -> String {
        format!("{}.{kind}.{organization}.test", self.name)
    }

    /// Publishes bytes on a subject, and returns the sequence that the stream gave.
    ///
    /// # Errors
    /// Where the stream does not take it.
    pub async fn try_publish_bytes(
        &self,
        subject: &str,
        headers: HeaderMap,
        body: impl Into<Bytes>,
    ) -> Result<u64, String> {
        let sent = self.jetstream.publish_with_headers(subject.to_owned(), headers, body.into()).await;
        let ack: PublishAck = sent.map_err(|error| error.to_string())?.await.map_err(|error| error.to_string())?;
        Ok(ack.sequence)
    }

    /// Publishes bytes for the organization `acme`.
    pub async fn publish_bytes(&self, kind: Kind, body: impl Into<Bytes>) -> u64 {
        let subject = self.subject(kind, "acme");
        self.try_publish_bytes(&subject, HeaderMap::new(), body).await.expect("the stream takes it")
    }

    /// Publishes a body for the organization `acme`.
    pub async fn publish(&self, kind: Kind, body: &Value) -> u64 {
        self.publish_bytes(kind, body.to_string()).await
    }

    /// Publishes bodies for the organization `acme`, in their order, each acknowledged. Returns the last sequence.
    pub async fn publish_all(&self, kind: Kind, bodies: impl IntoIterator<Item = Value>) -> u64 {
        self.try_publish_all(kind, bodies).await.expect("the stream takes them")
    }

    /// The same.
    ///
    /// # Errors
    /// Where the stream does not take one of them; others may be in it.
    pub async fn try_publish_all(&self, kind: Kind, bodies: impl IntoIterator<Item = Value>) -> Result<u64, String> {
        let subject = self.subject(kind, "acme");
        let mut bodies = bodies.into_iter();
        let mut last = 0;
        loop {
            let mut acks = Vec::with_capacity(ACKS_AT_ONCE);
            for body in bodies.by_ref().take(ACKS_AT_ONCE) {
                let sent = self.jetstream.publish(subject.clone(), body.to_string().into()).await;
                acks.push(sent.map_err(|error| error.to_string())?);
            }
            if acks.is_empty() {
                return Ok(last);
            }
            for ack in acks {
                last = ack.await.map_err(|error| error.to_string())?.sequence.max(last);
            }
        }
    }

    /// Publishes the records `from..to` of a kind.
    pub async fn publish_records(&self, kind: Kind, records: std::ops::Range<u64>) -> u64 {
        self.publish_all(kind, records.map(|n| messages::record(kind, n))).await
    }

    /// Publishes a record again and again until the stream says that it has it, as a producer does in an outage.
    pub async fn publish_until_acknowledged(&self, kind: Kind, body: &Value) -> u64 {
        let subject = self.subject(kind, "acme");
        eventually("the stream takes a record", async || {
            self.try_publish_bytes(&subject, HeaderMap::new(), body.to_string()).await
        })
        .await
    }

    /// Publishes the records `from..to` of a kind in the background, each again until it is acknowledged, as a
    /// producer does whatever happens to the server meanwhile. What was taken and not acknowledged comes twice.
    pub fn load(&self, kind: Kind, records: std::ops::Range<u64>) -> Load {
        let (jetstream, subject) = (self.jetstream.clone(), self.subject(kind, "acme"));
        Load(tokio::spawn(async move {
            let mut left: Vec<u64> = records.collect();
            while !left.is_empty() {
                let rest = left.split_off(left.len().min(LOAD_AT_ONCE));
                let refused = publish_once(&jetstream, &subject, kind, &left).await;
                left = refused.into_iter().chain(rest).collect();
            }
        }))
    }

    // Asking Postgres.

    /// One row of a question, which may end with a parameter or not.
    ///
    /// # Errors
    /// Where Postgres does not answer, in words.
    pub async fn try_ask<T>(&self, question: &str) -> Result<T, String>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let asked = sqlx::query_as(question).fetch_one(&self.database).await;
        asked.map_err(|error| error.to_string())
    }

    /// One row of a question.
    pub async fn ask<T>(&self, question: &str) -> T
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        self.try_ask(question).await.unwrap_or_else(|error| panic!("{question}: {error}"))
    }

    /// All rows of a question.
    pub async fn ask_all<T>(&self, question: &str) -> Vec<T>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let asked = sqlx::query_as(question).fetch_all(&self.database).await;
        asked.unwrap_or_else(|error| panic!("{question}: {error}"))
    }

    /// A number.
    pub async fn count(&self, question: &str) -> i64 {
        self.ask::<(i64,)>(question).await.0
    }

    /// Changes something, and says how many rows.
    pub async fn execute(&self, statement: &str) -> u64 {
        let done = sqlx::raw_sql(statement).execute(&self.database).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}")).rows_affected()
    }

    // The accounting.

    /// A kind's account, now.
    ///
    /// # Errors
    /// Where one of the servers does not answer, in words.
    pub async fn try_account(&self, kind: Kind) -> Result<Account, String> {
        account::of(kind, &self.stream(kind), &self.jetstream, &self.database).await
    }

    /// A kind's account, now.
    pub async fn account(&self, kind: Kind) -> Account {
        self.try_account(kind).await.unwrap_or_else(|error| panic!("the account of {kind}: {error}"))
    }

    /// Waits until an account is as it should be.
    pub async fn account_where(&self, kind: Kind, what: &str, holds: impl Fn(&Account) -> bool) -> Account {
        eventually(&format!("{kind}: {what}"), async || {
            let account = self.try_account(kind).await?;
            if holds(&account) { Ok(account) } else { Err(format!("{account:?}")) }
        })
        .await
    }

    /// Waits until everything that the stream ever took is settled, and makes sure that it adds up.
    pub async fn settled(&self, kind: Kind) -> Account {
        let account = self.account_where(kind, "everything is settled", Account::is_quiet).await;
        self.check(kind, &account).unwrap_or_else(|problem| panic!("{kind}: {problem}"));
        account
    }

    /// Waits until everything is settled, and makes sure how it ended: stored, duplicates, dead letters, deleted.
    pub async fn settled_as(&self, kind: Kind, outcomes: [u64; 4]) -> Account {
        let account = self.settled(kind).await;
        let found = [account.stored, account.duplicates, account.dead_letters, account.deleted];
        assert_eq!(found, outcomes, "{kind}: stored, duplicates, dead letters, deleted: {account:?}");
        account
    }

    /// Makes sure that the table of a kind holds exactly the records `0..count`, each once.
    pub async fn holds_exactly(&self, kind: Kind, count: u64) {
        let (rows, distinct, least, most): (i64, i64, Option<i64>, Option<i64>) = self
            .ask(&format!(
                "SELECT count(*), count(DISTINCT (attributes->>'n')::bigint), min((attributes->>'n')::bigint),
                        max((attributes->>'n')::bigint) FROM {}",
                kind.spec().table
            ))
            .await;
        let count = i64::try_from(count).expect("a count");
        let bounds = if count == 0 { (None, None) } else { (Some(0), Some(count - 1)) };
        assert_eq!((rows, distinct, least, most), (count, count, bounds.0, bounds.1), "{kind}: not each record once");
    }

    fn check(&self, kind: Kind, account: &Account) -> Result<(), String> {
        account.adds_up()?;
        if self.rows_dropped.load(Ordering::Relaxed) { Ok(()) } else { account.matches_rows(kind) }
    }

    /// Rows were removed or added behind our back: from now on their number says nothing.
    pub fn rows_were_dropped(&self) {
        self.rows_dropped.store(true, Ordering::Relaxed);
    }

    /// Readers were cut off without a chance to say good-bye, beside those of processes that were killed.
    pub fn readers_were_broken(&self, readers: usize) {
        self.broken_readers.fetch_add(readers, Ordering::Relaxed);
    }

    // The end.

    /// Ends the test: stops what still runs, and fails where anything is left over.
    pub async fn finish(mut self, running: impl IntoIterator<Item = Watchbook>) {
        let mut broken_readers = self.broken_readers.load(Ordering::Relaxed);
        for mut watchbook in running {
            if watchbook.is_ours_to_stop() {
                watchbook.stop().await;
            }
            broken_readers += usize::from(watchbook.was_killed()) * Kind::ALL.len();
        }
        for &kind in Kind::ALL {
            let account = self.account(kind).await;
            self.check(kind, &account).unwrap_or_else(|problem| panic!("left over in {kind}: {problem}"));
            let consumers = self.consumers(kind).await;
            let bound = broken_readers * CONSUMERS_OF_A_BROKEN_READER;
            assert!(consumers <= bound, "{consumers} consumers of {kind} are left over, {bound} may be");
        }
        self.no_session_is_left().await;
        self.no_log_holds_a_secret();
        self.finished = true;
        self.clean_up().await;
    }

    async fn consumers(&self, kind: Kind) -> usize {
        match self.jetstream.get_stream(self.stream(kind)).await {
            Ok(stream) => stream.cached_info().state.consumer_count,
            Err(_) => 0,
        }
    }

    async fn no_session_is_left(&self) {
        // A killed process leaves its sessions until the server has read to their ends.
        eventually("no database session of a worker is left", async || {
            let left: (i64, Option<String>) = self
                .try_ask(
                    "SELECT count(*), string_agg(application_name || ': ' || state, ', ') FROM pg_stat_activity
                      WHERE datname = current_database() AND application_name LIKE 'watchbook %'",
                )
                .await?;
            if left.0 == 0 { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
    }

    fn no_log_holds_a_secret(&self) {
        let password = self.database_url.split([':', '@']).nth(2).expect("a password").to_owned();
        for (name, path) in self.logs.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let log = String::from_utf8_lossy(&std::fs::read(path).expect("read a log")).into_owned();
            assert!(!log.contains(MARKER), "the log of {name} holds a body:\n{log}");
            assert!(!log.contains(&password), "the log of {name} holds the database's password:\n{log}");
        }
    }

    async fn clean_up(&self) {
        self.database.close().await;
        if matches!(self.nats, Server::Shared(_)) {
            for &kind in Kind::ALL {
                // Some tests never made their streams.
                let _ = self.jetstream.delete_stream(self.stream(kind)).await;
            }
        }
        if matches!(self.postgres, Server::Shared(_)) {
            servers::drop_database(&self.name).await;
        }
    }
}

/// Records on their way, see [`World::load`].
#[derive(Debug)]
pub struct Load(JoinHandle<()>);

impl Load {
    /// Waits until each record is acknowledged.
    pub async fn acknowledged(self) {
        tokio::time::timeout(BOUND, self.0).await.expect("the load is acknowledged in time").expect("the load");
    }
}

/// Publishes records, and returns those that were not acknowledged.
async fn publish_once(jetstream: &jetstream::Context, subject: &str, kind: Kind, records: &[u64]) -> Vec<u64> {
    let mut refused = Vec::new();
    // Awaited side by side: each has a time of its own, and in an outage all of them run out.
    let mut acks = JoinSet::new();
    for &n in records {
        match jetstream.publish(subject.to_owned(), messages::record(kind, n).to_string().into()).await {
            Ok(ack) => drop(acks.spawn(async move { (n, ack.await.is_ok()) })),
            Err(_) => refused.push(n),
        }
    }
    let acknowledged = acks.join_all().await;
    refused.extend(acknowledged.into_iter().filter(|(_, acknowledged)| !acknowledged).map(|(n, _)| n));
    refused
}

impl Drop for World {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        for (name, path) in self.logs.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let log = std::fs::read(path).unwrap_or_default();
            let shown = String::from_utf8_lossy(&log[log.len().saturating_sub(SHOWN_LOG_BYTES)..]).into_owned();
            eprintln!("--- the end of the log of watchbook {name}\n{shown}");
        }
        assert!(std::thread::panicking(), "end a test with `World::finish`, which looks for leftovers");
    }
}
