//! Postgres: connections, migrations, partitions and all SQL statements.
//!
//! Each function is a single step, named after what it does to the database. The workers decide in which order to call
//! them and what to do when one fails; for batches see `workers/writer`.

pub mod alerts;
pub mod batch;
pub mod bench;
mod catalogue;
pub mod clocks;
mod connect;
mod dataset;
pub mod dead_letters;
pub mod enqueue;
pub mod erasures;
mod failure;
pub mod gateway_keys;
pub mod health;
pub mod holds;
pub mod idempotency;
pub mod internal_records;
mod lease;
pub mod log_volumes;
pub mod metric_hours;
pub mod migrations;
pub mod outbox;
pub mod outcomes;
pub mod partition_removal;
pub mod partitions;
pub mod positions;
pub mod queries;
pub mod retention;
pub mod rollups;
pub mod scoped_read;
pub mod silences;
mod steps;

pub use catalogue::TableName;
pub use connect::{Database, check_server, clock};
pub use dataset::Dataset;
pub use failure::{Failure, describe};
pub use lease::Lease;
pub use steps::{BadSteps, MAX_POINTS, Steps};
// Other crates use Postgres through these re-exports and do not depend on the driver.
pub use sqlx::{Connection, Error, PgConnection, PgPool};

/// Result with the driver's error, which [`Failure::of`] classifies.
pub type Result<T> = std::result::Result<T, Error>;
