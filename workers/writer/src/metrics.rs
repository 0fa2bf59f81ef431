//! The metrics of the writers: their names and descriptions.

use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub(crate) const MESSAGES: &str = "watchbook_messages_total";
pub(crate) const UNREAD: &str = "watchbook_unread_messages";
pub(crate) const ACTIVE: &str = "watchbook_writer_active";
pub(crate) const BATCH_ROWS: &str = "watchbook_batch_rows";
pub(crate) const BATCH_COMMIT: &str = "watchbook_batch_commit_seconds";

/// Registers the descriptions of the writer metrics. Call it once per process, before a writer starts.
pub fn describe() {
    describe_counter!(
        MESSAGES,
        "Messages settled by this process: stored, duplicate, dead_letter, or deleted (missing from the stream)"
    );
    describe_gauge!(UNREAD, "Messages in the stream after the last one read, at the last dispatch of a batch");
    describe_gauge!(ACTIVE, "1 if this process holds the lease of the kind, else 0");
    describe_histogram!(BATCH_ROWS, "Rows per batch");
    describe_histogram!(BATCH_COMMIT, Unit::Seconds, "Time to commit a batch, of the attempt that succeeded");
}
