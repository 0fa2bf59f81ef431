//! Delivers notifications from the outbox to their receivers.
//!
//! A notifier claims due rows of `watchbook.outbox`, attempts each notification once, and writes the outcome: claim →
//! deliver → write. The next notification of a group becomes due only after that write, so the order within a group
//! holds for any number of notifiers.
//!
//! - [`notifier`]: the delivery loop; the only place that decides whether and when to retry (`retry`)
//! - `claims`: the rows claimed from the outbox, and the outcomes not yet written
//! - [`receivers`]: one file per receiver; each makes a single attempt and returns an [`Outcome`]
//! - `http`: the shared HTTP client, and the meaning of each response status
//! - `secrets`: keeps URLs and keys out of errors and logs
//!
//! Delivery is at least once, under a stable id. After a crash between the delivery and the write the notification is
//! delivered again under the same id. Neither a crash nor a second notifier changes the order within a group.

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
