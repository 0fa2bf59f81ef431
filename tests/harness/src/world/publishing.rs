//! Publishing with async-nats alone, without the code under test.

use async_nats::HeaderMap;
use async_nats::jetstream::{self, publish::PublishAck};
use bytes::Bytes;
use records::Kind;
use serde_json::Value;
use tokio::task::{JoinHandle, JoinSet};

use super::World;
use crate::messages;
use crate::wait::{BOUND, eventually};

/// Number of messages whose acknowledgements are awaited together, so that the round trip does not matter.
const ACKS_AT_ONCE: usize = 500;
/// Number of messages of a load sent together. It is small, so that the load takes a while.
const LOAD_AT_ONCE: usize = 50;

impl World {
    /// Returns the subject of a kind for an organization.
    pub fn subject(&self, kind: Kind, organization: &str) -> String {
        format!("{}.{kind}.{organization}.test", self.name)
    }

    /// Adds a constraint to the kind's table that rejects [`messages::poison`], like one added by an operator.
    pub async fn refuse_poison(&self, kind: Kind) {
        let table = kind.spec().table;
        self.execute(&format!(
            "ALTER TABLE {table} ADD CONSTRAINT no_poison CHECK (NOT attributes ? 'poison') NOT VALID"
        ))
        .await;
    }

    /// Publishes bytes on a subject and returns their sequence in the stream.
    ///
    /// # Errors
    /// If the stream does not acknowledge them.
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
        self.try_publish_bytes(&subject, HeaderMap::new(), body).await.expect("the stream acknowledges it")
    }

    /// Publishes a body for the organization `acme`.
    pub async fn publish(&self, kind: Kind, body: &Value) -> u64 {
        self.publish_bytes(kind, body.to_string()).await
    }

    /// Publishes bodies for the organization `acme`, in order, and waits for every acknowledgement. Returns the
    /// last sequence.
    pub async fn publish_all(&self, kind: Kind, bodies: impl IntoIterator<Item = Value>) -> u64 {
        self.try_publish_all(kind, bodies).await.expect("the stream acknowledges them")
    }

    /// Like [`World::publish_all`].
    ///
    /// # Errors
    /// If the stream does not acknowledge one of them. Others may be stored.
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

    /// Publishes a record until the stream acknowledges it, like a producer in an outage.
    pub async fn publish_until_acknowledged(&self, kind: Kind, body: &Value) -> u64 {
        let subject = self.subject(kind, "acme");
        eventually("the stream acknowledges a record", async || {
            self.try_publish_bytes(&subject, HeaderMap::new(), body.to_string()).await
        })
        .await
    }

    /// Publishes the records `from..to` of a kind in the background. Each is repeated until it is acknowledged,
    /// whatever happens to the server meanwhile, so a record that was stored without an acknowledgement is
    /// published twice.
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
}

/// Records being published, see [`World::load`].
#[derive(Debug)]
pub struct Load(JoinHandle<()>);

impl Load {
    /// Waits until every record is acknowledged.
    pub async fn acknowledged(self) {
        tokio::time::timeout(BOUND, self.0).await.expect("the load is acknowledged in time").expect("the load");
    }
}

/// Publishes records and returns those that were not acknowledged.
async fn publish_once(jetstream: &jetstream::Context, subject: &str, kind: Kind, records: &[u64]) -> Vec<u64> {
    let mut refused = Vec::new();
    // Awaited concurrently: each has its own timeout, and in an outage all of them expire.
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
