//! Writes the records of a stream to their table. One writer per record kind.
//!
//! A writer holds the lease of its kind, reads the stream from the first unsettled sequence, gathers messages into
//! batches, and passes each batch to a lane (a writer connection). A lane commits the rows, the dead letters, the
//! roll-ups and the settled range in one transaction, and retries until it succeeds.
//!
//! - [`writer`]: the lifecycle of a writer, from waiting for the lease to releasing it
//! - `session`: reading and dispatching while the lease is held
//! - `start_position`: checks whether Postgres knows this stream, and where to start reading
//! - `batch`: decodes messages into rows and dead letters; pure
//! - `lane`: commits a batch, with retries
//! - `housekeeping`: creates partitions ahead, trims settled messages, folds roll-ups
//! - `signal`: signals new roll-ups to the alert evaluator
//!
//! A sequence is never settled twice. Only the guard in `store::positions::settle` ensures this. A crash or a second
//! writer can waste work, but cannot do more harm.

mod batch;
mod housekeeping;
mod lane;
mod metrics;
mod session;
mod signal;
mod start_position;
pub mod writer;

pub use metrics::describe as describe_metrics;
pub use writer::{Settings, Writer};
