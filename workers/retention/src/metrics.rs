//! The metrics of retention: names, and what they mean to whoever scrapes them.

use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub(crate) const ACTIVE: &str = "watchbook_retention_active";
pub(crate) const RUNS: &str = "watchbook_retention_runs_total";
pub(crate) const RUN_SECONDS: &str = "watchbook_retention_run_seconds";
pub(crate) const ROWS: &str = "watchbook_retention_removed_rows_total";
pub(crate) const LAST_DONE: &str = "watchbook_retention_last_done_timestamp_seconds";
pub(crate) const ERASURES: &str = "watchbook_erasures_total";
pub(crate) const PARTITIONS_MISSING: &str = "watchbook_partitions_missing";

/// Tells the recorder of this process what the metrics mean. Once, before the worker starts.
pub fn describe() {
    describe_gauge!(ACTIVE, "1 where this process removes what is too old");
    describe_counter!(RUNS, "Runs by cause and outcome: done or failed");
    describe_histogram!(RUN_SECONDS, Unit::Seconds, "How long a run took");
    describe_counter!(ROWS, "Rows that runs of this process removed, by kind and action");
    describe_gauge!(LAST_DONE, Unit::Seconds, "When a run of this process last did all that was planned, since 1970");
    describe_counter!(ERASURES, "Erasures of users and strategies that this process did");
    describe_counter!(self_audit::PUBLISHED_RECORDS, "Records by which Watchbook told of itself");
    describe_gauge!(PARTITIONS_MISSING, "Tables that have no partition for tomorrow");
}
