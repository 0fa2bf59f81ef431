//! Publishes records to Watchbook over NATS JetStream.
//!
//! A record is one JSON object on the subject `watchbook.<kind>.<organization>.<detail>`. This crate encodes typed
//! records, checks them, sends them, and waits until the stream has acknowledged them. The record types are in the
//! crate [`records`]: [`Event`](records::Event), [`ErrorRecord`](records::ErrorRecord),
//! [`MetricSample`](records::MetricSample), [`LogLine`](records::LogLine), [`AuditRecord`](records::AuditRecord),
//! [`Execution`](records::Execution) and [`Entity`](records::Entity).
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use publisher::{BufferOptions, Publisher};
//! use records::{Event, Json};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let publisher = Publisher::builder()
//!         .organization("acme") // the third token of the subject
//!         .source("ci") // stored in the column `source`
//!         .connect("nats://127.0.0.1:4222")
//!         .await?;
//!
//!     // One record. Returns once the stream has stored it.
//!     let event = Event {
//!         event_type: "build.finished".into(),
//!         run_id: Some("run-7".into()),
//!         payload: Json::of(&serde_json::json!({ "ok": true, "seconds": 41.5 }))?,
//!         ..Event::default()
//!     };
//!     let receipt = publisher.publish(event).await?;
//!     println!("record {} is message {} of {}", receipt.id, receipt.sequence, receipt.stream);
//!
//!     // Many records, in atomic batches.
//!     let runs = (1..=5_000).map(|number| Event {
//!         event_type: "run.started".into(),
//!         run_id: Some(format!("run-{number}").into()),
//!         ..Event::default()
//!     });
//!     let receipts = publisher.publish_batch(runs).await?;
//!     println!("{} records stored", receipts.len());
//!
//!     // In the background: `push` only waits while the buffer is full.
//!     let buffered = publisher.buffered(BufferOptions::default());
//!     buffered.push(Event { event_type: "deploy.started".into(), ..Event::default() }).await?;
//!     buffered.close(Duration::from_secs(5)).await?;
//!     Ok(())
//! }
//! ```
//!
//! The streams must exist; `watchbook setup` creates them. For tests on one machine, `watchbook up` starts NATS,
//! Postgres and all workers.
//!
//! # Three ways to publish
//!
//! | method | returns when | use it for |
//! |---|---|---|
//! | [`Publisher::publish`] | the stream has stored the record | single records |
//! | [`Publisher::publish_batch`] | the stream has stored all records | throughput: atomic batches of up to 1,000 records, each stored completely or not at all |
//! | [`Buffered::push`], [`Buffered::try_push`] | the record is in the buffer | fire and forget, with bounded memory, counters, and retries during an outage |
//!
//! Batches are by far the fastest way. With a server that syncs every write (`sync_interval: always`) they are the only
//! fast one.
//!
//! [`Publisher::publish_json`] publishes records that are JSON already. [`Publisher::publish_encoded`] publishes
//! messages without checking them, such as messages read from a stream. [`ErrorLayer`] turns the errors that a service
//! logs with `tracing` into error records.
//!
//! # Retries do not create duplicates
//!
//! A record gets its id (a UUIDv7) and its time before it is first sent, and Watchbook stores a record with the same id
//! and time only once. So it is always safe to publish the same record again after a timeout or a lost connection. The
//! publisher does so automatically, with 3 attempts in total by default ([`Builder::attempts`]). To continue after
//! that, fix the identity with [`Publisher::outgoing`]:
//!
//! ```no_run
//! # async fn example(publisher: publisher::Publisher, event: records::Event<'static>) {
//! let event = publisher.outgoing(event); // sets the id and the time
//! while let Err(error) = publisher.publish_outgoing(&event).await {
//!     if !error.is_retryable() {
//!         eprintln!("{error}");
//!         break;
//!     }
//!     tokio::time::sleep(std::time::Duration::from_secs(1)).await;
//! }
//! # }
//! ```
//!
//! The header `Nats-Msg-Id` is not set. It would keep most duplicates out of the stream, but costs the server about 230
//! bytes of memory per id in the deduplication window, and half of its throughput. Set it with
//! [`Encoded::with_headers`] if you need it. JetStream then rejects an atomic batch completely if one of its ids is a
//! duplicate.
//!
//! # Invalid records are rejected before sending
//!
//! Every record is checked by the decoder that the Watchbook writers use. A record that would become a dead letter
//! fails with [`PublishError::Rejected`], which names the field and the reason. The check costs about as much as
//! encoding the record. Only [`Publisher::publish_encoded`] and [`Publisher::send_unanswered`] skip it.
//!
//! # Errors
//!
//! A stream never drops old records to make room. When it is full, publishing fails with [`PublishError::StreamFull`]
//! and nothing is stored. For each error [`PublishError::is_retryable`] tells whether the same record can succeed
//! later, and [`PublishError::is_unclear`] whether it may be stored already. A [`Buffered`] publisher retries such
//! errors automatically.
//!
//! # Error records from `tracing`
//!
//! ```no_run
//! use publisher::{BufferOptions, ErrorLayer, ErrorLayerOptions, Publisher};
//! use tracing_subscriber::layer::SubscriberExt;
//! use tracing_subscriber::util::SubscriberInitExt;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let publisher = Publisher::builder().source("checkout").connect("nats://127.0.0.1:4222").await?;
//! let buffered = publisher.buffered(BufferOptions::default());
//! let layer = ErrorLayer::new(buffered.clone(), ErrorLayerOptions::default());
//! tracing_subscriber::registry().with(tracing_subscriber::fmt::layer()).with(layer).init();
//!
//! tracing::error!(trace_id = "4bf92f35", endpoint = "/orders", "the payment failed");
//! buffered.close(std::time::Duration::from_secs(5)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Runtime and permissions
//!
//! A publisher must be created inside a Tokio runtime and uses that runtime for its background tasks. Its NATS user
//! needs permission to publish on its own subjects (such as `watchbook.*.acme.>`) and to subscribe to its inbox
//! (`_INBOX.>`).

mod backoff;
mod batch;
mod buffer;
mod connect;
mod error;
mod layer;
mod prepare;
mod publisher;
mod wire;

pub use batch::{BatchError, BatchReceipt};
pub use buffer::{BufferOptions, BufferStats, Buffered, OnRefused, PushError, Refused, Unflushed};
pub(crate) use connect::Limits;
pub use connect::{Builder, ConnectError};
pub use error::PublishError;
pub use layer::{ErrorCounts, ErrorLayer, ErrorLayerOptions};
pub use prepare::{Encoded, JsonBody, Prepared, Terms};
pub use publisher::{Publisher, Receipt};
