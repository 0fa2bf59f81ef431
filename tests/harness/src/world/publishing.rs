//! Publishing, with nothing of ours between.

use async_nats::HeaderMap;
use async_nats::jetstream::{self, publish::PublishAck};
use bytes::Bytes;
use records::Kind;
use serde_json::Value;
use tokio::task::{JoinHandle, JoinSet};

use super::World;
use crate::messages;
use crate::wait::{BOUND, eventually};

/// Messages whose acknowledgements are awaited together: enough that the way there and back does not count.
const ACKS_AT_ONCE: usize = 500;
/// Messages of a load: few, so that it takes its time.
const LOAD_AT_ONCE: usize = 50;

impl World {
    /// The subject of a kind for an organization.
    pub fn subject(&self, kind: Kind, organization: &str) -> String {
        format!("{}.{kind}.{organization}.test", self.name)
    }

    /// Lets Postgres refuse [`messages::poison`], as a constraint does that somebody else added.
    pub async fn refuse_poison(&self, kind: Kind) {
        let table = kind.spec().table;
        self.execute(&format!(
            "ALTER TABLE {table} ADD CONSTRAINT no_poison CHECK (NOT attributes ? 'poison') NOT VALID"
        ))
        .await;
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
