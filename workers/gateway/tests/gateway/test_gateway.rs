//! A running gateway, and helpers that send requests to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bus::Bus;
use bytesize::ByteSize;
use gateway::routes::Route;
use gateway::{Gateway, Keys, Listening, READS_WITHIN, Settings};
use harness::{BOUND, World};
use publisher::Publisher;
use records::Kind;
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, StatusCode};
use runtime::config::{Nats, Secret, Streams};
use runtime::{Health, Metrics, Probes};
use serde_json::Value;
use store::Database;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The secret that signs the tokens of most tests.
pub(crate) const SECRET: &str = "a secret of the tests, at least 32 bytes long";

/// The gateway of one test.
pub(crate) struct TestGateway {
    pub(crate) world: World,
    pub(crate) bus: Bus,
    pub(crate) address: SocketAddr,
    pub(crate) routes: Vec<Route>,
    client: Client,
    pub(crate) stop: CancellationToken,
    serving: Vec<JoinHandle<()>>,
}

/// A response that was read completely.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}")).to_str().unwrap()
    }

    /// Asserts that it is a complete problem with this status.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        for member in ["type", "title", "detail", "request_id"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member} of {problem}");
        }
        assert_eq!(problem["status"], status);
        assert_eq!(problem["request_id"], self.header("x-request-id"));
        problem
    }
}

/// One for the process: a recorder can be installed only once.
fn metrics() -> Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| Metrics::install().unwrap()).clone()
}

fn client() -> Client {
    static CLIENT: OnceLock<()> = OnceLock::new();
    CLIENT.get_or_init(|| rustls::crypto::ring::default_provider().install_default().unwrap());
    // One client for each test: connections belong to the runtime in which they were opened.
    Client::new()
}

pub(crate) fn settings() -> Settings {
    let (gateway, keys) = (Default::default(), Keys::Secret(Secret::new(SECRET)));
    Settings { gateway, keys, keep: Arc::new(BTreeMap::new()), reads_within: READS_WITHIN }
}

async fn listen(world: &World, bus: &Bus, settings: Settings, stop: &CancellationToken) -> Listening {
    let builder = Publisher::builder().prefix(world.name()).ack_timeout(Duration::from_secs(3)).attempts(1);
    let health = Health::default();
    let gateway = Gateway {
        publisher: builder.from_client(bus.client()).unwrap(),
        bus: bus.clone(),
        database: Database::new(world.database_url(), "tests").unwrap(),
        settings,
        probes: Probes { health: health.clone(), metrics: metrics() },
        health: health.part("gateway"),
    };
    gateway.listen(SocketAddr::from(([127, 0, 0, 1], 0)), stop.clone()).await.unwrap()
}

impl TestGateway {
    pub(crate) async fn start() -> Self {
        Self::with(World::builder("no binary").without_setup().start().await, settings()).await
    }

    pub(crate) async fn with(world: World, settings: Settings) -> Self {
        let url = world.nats_url();
        Self::at(world, settings, &url).await
    }

    /// Starts a gateway that connects to NATS at this URL.
    pub(crate) async fn at(world: World, settings: Settings, nats_url: &str) -> Self {
        let config = Nats { prefix: world.name().to_owned(), ..Nats::default() };
        let bus = Bus::connect(&config, nats_url, "tests").await.unwrap();
        let stop = CancellationToken::new();
        let listening = listen(&world, &bus, settings, &stop).await;
        let (address, routes) = (listening.address, listening.routes.clone());
        Self { world, bus, address, routes, client: client(), stop, serving: vec![tokio::spawn(listening.serve())] }
    }

    /// Sends later requests to another gateway, which runs beside the first.
    pub(crate) async fn ask_another(&mut self, settings: Settings) {
        let listening = listen(&self.world, &self.bus, settings, &self.stop).await;
        self.address = listening.address;
        self.serving.push(tokio::spawn(listening.serve()));
    }

    /// Creates a kind's stream of this many bytes.
    pub(crate) async fn stream(&self, kind: Kind, bytes: ByteSize) {
        let streams = Streams { max_bytes: bytes, ..Streams::default() };
        self.bus.ensure_stream(kind, &streams, false).await.unwrap();
    }

    pub(crate) async fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.send(method, path, headers, body.as_bytes().to_vec()).await
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.client.request(method, format!("http://{}{path}", self.address)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.unwrap();
        Answer { status, headers, text: String::from_utf8_lossy(&body).into_owned() }
    }

    /// Opens a live stream, after this event id if there is one.
    pub(crate) async fn open(&self, path: &str, token: &str, last_seen: Option<&str>) -> reqwest::Response {
        let mut request = self.client.get(format!("http://{}{path}", self.address)).bearer_auth(token);
        if let Some(last_seen) = last_seen {
            request = request.header("last-event-id", last_seen);
        }
        request.send().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Answer {
        self.request("GET", path, &[("authorization", &format!("Bearer {token}"))], "").await
    }

    /// Posts JSON with additional headers.
    pub(crate) async fn post(&self, path: &str, token: &str, more: &[(&str, &str)], body: &str) -> Answer {
        self.post_bytes(path, token, more, body.as_bytes().to_vec()).await
    }

    /// Posts any bytes, as JSON unless the headers have another content type or those of a CloudEvent.
    pub(crate) async fn post_bytes(&self, path: &str, token: &str, more: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let bearer = format!("Bearer {token}");
        let mut headers = vec![("authorization", bearer.as_str())];
        let names_type = |name: &str| name.eq_ignore_ascii_case("content-type") || name == "ce-specversion";
        if !more.iter().any(|(name, _)| names_type(name)) {
            headers.push(("content-type", "application/json"));
        }
        headers.extend_from_slice(more);
        self.send("POST", path, &headers, body).await
    }

    /// Returns the number of messages in a kind's stream.
    pub(crate) async fn messages(&self, kind: Kind) -> u64 {
        self.bus.stream_state(kind).await.unwrap().last_sequence
    }

    pub(crate) async fn finish(self) {
        self.finish_written(&[]).await;
    }

    /// Stops it, and checks that the outcomes of these kinds add up.
    pub(crate) async fn finish_written(self, written: &[Kind]) {
        self.stop.cancel();
        for serving in self.serving {
            tokio::time::timeout(BOUND, serving).await.expect("it stops").unwrap();
        }
        for &kind in Kind::ALL.iter().filter(|kind| !written.contains(kind)) {
            // No writers ran, and most tests created no stream.
            let _ = self.bus.delete_stream(kind).await;
        }
        self.bus.close().await;
        self.world.finish([]).await;
    }
}
