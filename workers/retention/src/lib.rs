//! What is removed when, and what stays.
//!
//! A run makes a plan, which is data, and executes exactly it. Whole days go by dropping their partition, which takes
//! milliseconds and makes nobody wait; what cannot go so, goes in small batches that give way to everybody else.
//!
//! - [`plan`]: what would go and what stays, with rows and bytes, and why
//! - [`run`]: a run from its first row in `watchbook.retention_runs` to its last, executing a plan item by item
//! - `item`: what each item of it goes through, and [`RunLease`], the right to do it
//! - `partition`: how a day goes: archived, taken out, counted again, dropped
//! - `archiving`: how a day comes into the archive
//! - `row_deletion`: what goes row by row, and `batches`, how it gives way
//! - [`holds`]: what must stay
//! - [`erase`]: what is stored of a user or a strategy goes
//! - [`restore`]: a day comes back from the archive
//! - `schedule`: when it is time, and which time was missed
//! - [`worker`]: the life of the worker
//!
//! What never happens: that a row goes which is not expired, or is held. The last transaction of each step looks again,
//! with the holds frozen, and takes nothing on trust that was known before it. Everything before that transaction can
//! be lost at any moment, and is made anew or put back by the next run.

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
