//! Retention: removes expired records, keeps held ones, archives, restores and erases.
//!
//! A run makes a plan, which is data, and executes exactly that plan. Whole days are removed by dropping their
//! partition, which takes milliseconds and blocks nobody. Everything else is removed in small batches that yield to
//! other sessions.
//!
//! - [`plan`]: the items to remove and to keep, with rows, bytes and the reason
//! - [`run`]: a run, from its row in `watchbook.retention_runs` to its audit event; executes a plan item by item
//! - `item`: the steps of an item and its errors
//! - `run_lease`: [`RunLease`], which permits one process at a time to execute a run
//! - `partition`: removal of a day: archive, detach, count again, drop
//! - `archiving`: writes a day to the archive
//! - `row_deletion`: removal by batches of rows; `batches`: their size and the pauses between them
//! - [`holds`]: adds and releases holds, which keep records from being removed
//! - [`erase`]: removes the data of a user or a strategy
//! - [`restore`]: restores a day from the archive
//! - `schedule`: decides whether a run is due, was missed, or has to be retried
//! - [`worker`]: the retention worker
//!
//! A row that is not expired, or is held, is never removed. The last transaction of each item checks this again with
//! the holds locked, and relies on nothing that was read before it. Whatever precedes that transaction can be lost at
//! any moment; the next run repeats or reverts it.

mod archiving;
mod batches;
pub mod erase;
pub mod holds;
mod item;
mod metrics;
mod partition;
pub mod plan;
pub mod restore;
mod row_deletion;
pub mod run;
mod run_lease;
mod schedule;
mod settings;
pub mod worker;

pub use metrics::describe as describe_metrics;
pub use run_lease::RunLease;
pub use settings::Settings;
pub use worker::RetentionWorker;
