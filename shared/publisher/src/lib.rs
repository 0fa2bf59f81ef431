//! What a service links to publish records to Watchbook.
//!
//! ```no_run
//! use publisher::Publisher;
//! use records::Event;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let publisher = Publisher::builder().organization("acme").source("ci").connect("nats://127.0.0.1:4222").await?;
//! let event = Event { event_type: "build.finished".into(), run_id: Some("run-7".into()), ..Event::default() };
//! let receipt = publisher.publish(event).await?;
//! println!("{} is message {} of {}", receipt.id, receipt.sequence, receipt.stream);
//! # Ok(())
//! # }
//! ```
//!
//! # Three ways to publish
//!
//! - [`Publisher::publish`]: one record, and a [`Receipt`] once the stream holds it.
//! - [`Publisher::publish_batch`]: many at once, in atomic batches of up to 1,000 that are stored whole
//!   or not at all. By far the fastest, and with a server that syncs each write the only fast one.
//! - [`Publisher::buffered`]: fire and forget, but with bounds and counters: a [`Buffered`] publisher
//!   waits out an outage, says when it is full, and hands out what is refused for good.
//!
//! JSON that somebody else wrote goes through [`Publisher::publish_json`]; messages that were checked
//! before, or come out of a stream, through [`Publisher::publish_encoded`]. [`ErrorLayer`] makes error
//! records of what a service logs as an error.
//!
//! # The same record twice is one record
//!
//! Each record gets its id (a UUIDv7) and its time once, before it is sent for the first time, and
//! Watchbook stores the same id and time once. So an unclear answer (a timeout, a lost connection) is
//! answered by publishing again, here and in your own code:
//!
//! ```no_run
//! # async fn example(publisher: publisher::Publisher, event: records::Event<'static>) {
//! let event = publisher.outgoing(event); // the identity, fixed
//! while let Err(error) = publisher.publish_outgoing(&event).await {
//!     if !error.is_retryable() {
//!         eprintln!("{error}");
//!         break;
//!     }
//! }
//! # }
//! ```
//!
//! The header `Nats-Msg-Id` is therefore not set: it would keep most repetitions out of the stream, at
//! the price of about 230 bytes of the server's memory for each id and half of its speed. Whoever wants
//! it gives it to [`Encoded::with_headers`]; in an atomic batch JetStream refuses the whole batch for
//! one repeated id.
//!
//! # Nothing bad is sent
//!
//! Every record, typed or not, is read by the decoder of Watchbook's own writers before it is sent. What
//! would become a dead letter is a [`PublishError::Rejected`] here, with the field and the reason in
//! words. That costs about as much as encoding it; only [`Publisher::publish_encoded`] does without.
//!
//! # When the server says no
//!
//! Streams refuse what they cannot hold, and never forget to make room: [`PublishError::StreamFull`]
//! means that nothing was stored. [`PublishError::is_retryable`] says for each error whether the same
//! record may be acknowledged later; a [`Buffered`] publisher asks it so that you need not.
//!
//! # Errors from tracing
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
