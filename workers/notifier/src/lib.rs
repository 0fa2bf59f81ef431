//! From the outbox to the outside: one file a receiver.
//!
//! A notifier claims what is due in `watchbook.outbox`, tries each notification once, and writes how that ended. The
//! order of effects is claim → try → write. Only after the write is the next one of the same group free, so nothing
//! overtakes within a group, however many notifiers there are.
//!
//! - [`notifier`]: the life of a notifier; the only place that decides to try again, and when (`retry`)
//! - `claims`: its conversation with Postgres, and what of it is still to be written
//! - [`receivers`]: one file a receiver, each a single try that ends in an [`Outcome`]
//! - `http`: what all receivers that speak HTTP share, and what a status means
//! - `secrets`: keeps URLs and keys out of errors and logs
//!
//! What is promised: at least one delivery under a stable id. A crash between the delivery and its mark delivers
//! again, under the same id; no crash, second notifier or late one delivers out of order within a group.

mod claims;
mod http;
mod metrics;
pub mod notifier;
mod outcome;
pub mod receivers;
mod retry;
mod secrets;
mod text;

pub use metrics::describe as describe_metrics;
pub use notifier::{Notifier, Settings};
pub use outcome::Outcome;
