//! Postgres: connections, migrations, partitions, and the statements with which a batch is stored.
//!
//! Functions here are single steps, each named after what it does to the database. In which order the
//! writers take them, and what they do when one fails, stands in `workers/writer`.

pub mod alerts;
pub mod batch;
pub mod bench;
mod catalogue;
mod connect;
mod dataset;
pub mod days;
pub mod dead_letters;
pub mod enqueue;
pub mod erasures;
mod failure;
pub mod gateway_keys;
pub mod health;
pub mod holds;
pub mod idempotency;
mod lease;
pub mod log_volumes;
pub mod metric_hours;
pub mod migrations;
pub mod outbox;
pub mod outcomes;
pub mod own_records;
pub mod partitions;
pub mod positions;
pub mod questions;
pub mod reading;
pub mod retention;
pub mod rollups;
pub mod silences;
mod steps;

pub use catalogue::TableName;
pub use connect::{Database, check_server, clock};
pub use dataset::Dataset;
pub use failure::{Failure, describe};
pub use lease::Lease;
pub use steps::{BadSteps, MAX_POINTS, Steps};
// The rest of the house speaks to Postgres through these, and names no driver.
pub use sqlx::{Connection, Error, PgConnection, PgPool};

/// Everything here fails with the driver's own error; [`Failure::of`] says what to do about it.
pub type Result<T> = std::result::Result<T, Error>;
