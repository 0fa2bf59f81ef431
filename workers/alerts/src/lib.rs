//! From roll-ups to the outbox: one alert worker for all rules.
//!
//! The worker holds a lease, keeps the windows of every rule in memory, and looks whenever the writers have
//! counted something, and every second. What changed becomes true in one transaction, with what is to be told
//! about it; the notifier takes it from there.
//!
//! - [`worker`]: the life of the worker, and when it looks
//! - `evaluator`: what an evaluation does
//! - `loading`: what an evaluator begins with
//! - `notifications`: who is told what, in which notification
//! - `silences`: silences and acknowledgements
//! - `ingest`: how far the writers are behind
//! - `entities`: the health of strategies, projects, containers and organizations
//! - `canary`: the dead man's switch
//! - [`overview`]: the same evaluation, once, for who asks why something did or did not fire
//! - [`backtest`]: the same evaluation over the past
//!
//! What never happens, and rests on the version of each alert alone: that a transition is made twice. A crash, a
//! second worker or a zombie wastes work and nothing else.

pub mod backtest;
mod canary;
mod entities;
mod evaluator;
mod ingest;
mod loading;
mod metrics;
mod notifications;
pub mod overview;
pub mod silences;
#[cfg(test)]
mod tests;
pub mod worker;

use chrono::{DateTime, TimeDelta, Utc};

pub use metrics::describe as describe_metrics;
pub use notifications::test_notification;
pub use worker::{AlertWorker, Rules, Settings};

/// The minute of a time.
pub(crate) fn whole_minute(time: DateTime<Utc>) -> DateTime<Utc> {
    time - TimeDelta::microseconds(time.timestamp_micros().rem_euclid(60_000_000))
}
