//! A client of live streams, and the events that it reads.

use std::time::Duration;

use bytesize::ByteSize;
use gateway::Settings;
use harness::{BOUND, World};
use records::Kind;
use serde_json::Value;
use tokio::time::timeout;

use crate::test_gateway::{TestGateway, settings};
use crate::tokens::{claims, sign};

/// One event: what stands between two empty lines, by field.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Block {
    pub(crate) id: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) data: Value,
    pub(crate) comment: Option<String>,
    pub(crate) retry: Option<u64>,
}

impl Block {
    fn of(text: &str) -> Self {
        let mut block = Self::default();
        for line in text.lines() {
            match line.split_once(':').unwrap_or_else(|| panic!("{line:?}")) {
                ("id", id) => block.id = Some(id.trim().to_owned()),
                ("event", name) => block.name = Some(name.trim().to_owned()),
                ("data", data) => block.data = serde_json::from_str(data).unwrap(),
                ("retry", after) => block.retry = Some(after.trim().parse().unwrap()),
                ("", comment) => block.comment = Some(comment.trim().to_owned()),
                other => panic!("{other:?}"),
            }
        }
        block
    }
}

/// A client of a live stream.
pub(crate) struct Watcher {
    pub(crate) response: reqwest::Response,
    pub(crate) read: String,
}

impl Watcher {
    pub(crate) async fn block(&mut self) -> Option<Block> {
        loop {
            if let Some((block, rest)) = self.read.split_once("\n\n") {
                let (block, rest) = (Block::of(block), rest.to_owned());
                self.read = rest;
                return Some(block);
            }
            let chunk = timeout(BOUND, self.response.chunk()).await.expect("something comes").unwrap()?;
            self.read.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// Reads the next event that is not a heartbeat.
    pub(crate) async fn event(&mut self) -> Block {
        loop {
            let block = self.block().await.expect("the stream goes on");
            if block.comment.is_none() {
                return block;
            }
        }
    }

    /// Reads the records of the next events, as their numbers.
    pub(crate) async fn numbers(&mut self, count: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            numbers.push(number(&self.event().await));
        }
        numbers
    }

    /// Reads the next id, which may be that of a heartbeat.
    pub(crate) async fn id(&mut self) -> String {
        loop {
            if let Some(id) = self.block().await.expect("the stream goes on").id {
                return id;
            }
        }
    }

    /// Asserts that no event is waiting: the next one is a heartbeat.
    pub(crate) async fn is_idle(&mut self) {
        let block = self.block().await.unwrap();
        assert_eq!(block.comment.as_deref(), Some("heartbeat"), "{block:?}");
    }
}

/// Returns the number of the record in an event.
pub(crate) fn number(event: &Block) -> u64 {
    event.data["record"]["n"].as_u64().unwrap_or_else(|| panic!("{event:?}"))
}

pub(crate) fn quick() -> Settings {
    let mut settings = settings();
    settings.gateway.live_heartbeat = Duration::from_millis(300);
    settings
}

pub(crate) async fn gateway(settings: Settings) -> TestGateway {
    let gateway = TestGateway::with(World::builder("no binary").without_setup().start().await, settings).await;
    for kind in [Kind::Events, Kind::Executions] {
        gateway.stream(kind, ByteSize::mib(64)).await;
    }
    gateway
}

pub(crate) async fn watch(gateway: &TestGateway, path: &str, token: &str, last_seen: Option<&str>) -> Watcher {
    let response = gateway.open(path, token, last_seen).await;
    assert_eq!(response.status(), 200, "{path}");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let mut watcher = Watcher { response, read: String::new() };
    let head = watcher.block().await.unwrap();
    assert!(head.retry.is_some() && head.comment.is_some(), "{head:?}");
    watcher
}

/// Returns an id that is before all later records.
pub(crate) async fn here(gateway: &TestGateway, kind: Kind) -> String {
    watch(gateway, &format!("/api/live/{kind}"), &sign(&claims("viewer", &["*"])), None).await.id().await
}

pub(crate) fn producer(organization: &str) -> String {
    sign(&claims("producer", &[organization]))
}

pub(crate) async fn post(gateway: &TestGateway, kind: Kind, organization: &str, body: &Value) {
    let answer = gateway.post(&format!("/api/{kind}"), &producer(organization), &[], &body.to_string()).await;
    assert_eq!(answer.status, 202, "{answer:?}");
}
