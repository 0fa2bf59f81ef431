//! From roll-ups to the outbox: one alert worker for all rules.
//!
//! The worker holds a lease and keeps the windows of all rules in memory. It evaluates them every second, and whenever
//! writers signal new roll-ups. Changes are committed in one transaction together with their notifications. The
//! notifier delivers those.
//!
//! - [`worker`]: the lifecycle of the worker, and when it evaluates
//! - `evaluator`: the evaluation cycle
//! - `loading`: the initial state of an evaluator
//! - `notifications`: which receiver is notified of what, and in which notification
//! - `silences`: silences and acknowledgements
//! - `ingest`: the lag of the writers
//! - `entities`: the health of strategies, projects, containers and organizations
//! - `canary`: the dead man's switch
//! - [`overview`]: the same evaluation, once, on demand, to explain why an alert did or did not fire
//! - [`backtest`]: the same evaluation over the past
//!
//! A transition is never made twice. This depends only on the version of each alert: a crash, a second worker or a
//! zombie wastes work and does nothing else.

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

/// Truncates a time to its minute.
pub(crate) fn whole_minute(time: DateTime<Utc>) -> DateTime<Utc> {
    time - TimeDelta::microseconds(time.timestamp_micros().rem_euclid(60_000_000))
}
