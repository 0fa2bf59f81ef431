//! From stream to table: one writer a record kind.
//!
//! A writer holds the kind's lease, reads its stream from the first hole in what is settled, gathers
//! messages into batches, and gives each batch to a lane. A lane stores the rows, the dead letters, the
//! counts and the settled range in one transaction, however often it has to try.
//!
//! - [`writer`]: the life of a writer, from waiting for the lease to giving it up
//! - `session`: reading and dispatching while the lease is held
//! - `origin`: is this still the stream that Postgres knows, and from where is it read
//! - `batch`: messages become rows and dead letters; pure
//! - `lane`: a batch is committed, whatever happens
//! - `housekeeping`: partitions ahead, settled messages trimmed, roll-ups folded
//! - `signal`: whoever watches the roll-ups hears of new ones
//!
//! What never happens, and rests on the guard of `store::positions::settle` alone: that a sequence is
//! settled twice. A crash, a second writer or a zombie can waste work and nothing else.

mod batch;
mod housekeeping;
mod lane;
mod metrics;
mod origin;
mod session;
mod signal;
pub mod writer;

pub use metrics::describe as describe_metrics;
pub use writer::{Settings, Writer};
