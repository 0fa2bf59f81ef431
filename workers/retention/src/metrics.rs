//! The metrics of retention: names and descriptions.

use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub(crate) const ACTIVE: &str = "watchbook_retention_active";
pub(crate) const RUNS: &str = "watchbook_retention_runs_total";
pub(crate) const RUN_SECONDS: &str = "watchbook_retention_run_seconds";
pub(crate) const ROWS: &str = "watchbook_retention_removed_rows_total";
pub(crate) const LAST_DONE: &str = "watchbook_retention_last_done_timestamp_seconds";
pub(crate) const ERASURES: &str = "watchbook_erasures_total";
pub(crate) const PARTITIONS_MISSING: &str = "watchbook_partitions_missing";

/// Registers the descriptions of the metrics with the recorder of this process. Call it once, before the worker starts.
pub fn describe() {
    describe_gauge!(ACTIVE, "1 if this process removes old records");
    describe_counter!(RUNS, "Runs by cause and outcome: done or failed");
    describe_histogram!(RUN_SECONDS, Unit::Seconds, "Duration of a run");
    describe_counter!(ROWS, "Rows that runs of this process removed, by kind and action");
    describe_gauge!(LAST_DONE, Unit::Seconds, "Unix time at which a run of this process last did all that was planned");
    describe_counter!(ERASURES, "Erasures of users and strategies that this process executed");
    describe_counter!(self_audit::PUBLISHED_RECORDS, "Internal records that were published");
    describe_gauge!(PARTITIONS_MISSING, "Tables that have no partition for tomorrow");
}
