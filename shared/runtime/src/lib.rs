//! Infrastructure of every process: configuration, backoff, readiness and its probes, logs and metrics, shutdown.
//!
//! Independent of NATS, Postgres and records.

mod backoff;
pub mod config;
mod health;
mod probes;
mod stopping;
mod telemetry;
pub mod when;

pub use backoff::Backoff;
pub use config::Config;
pub use health::{Health, Part};
pub use probes::{Probes, serve_probes};
pub use stopping::{STOP_BUDGET, stop_signal};
pub use telemetry::{LogFormat, Metrics, start_logging};
pub use when::When;
