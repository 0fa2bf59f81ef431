//! The metrics of the writers: names, and what they mean to whoever scrapes them.

use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub(crate) const MESSAGES: &str = "watchbook_messages_total";
pub(crate) const UNREAD: &str = "watchbook_unread_messages";
pub(crate) const ACTIVE: &str = "watchbook_writer_active";
pub(crate) const BATCH_ROWS: &str = "watchbook_batch_rows";
pub(crate) const BATCH_COMMIT: &str = "watchbook_batch_commit_seconds";

/// Tells the recorder of this process what the writers' metrics mean. Once, before a writer starts.
pub fn describe() {
    describe_counter!(
        MESSAGES,
        "Messages settled by this process: stored, duplicate, dead_letter, or deleted from the stream"
    );
    describe_gauge!(UNREAD, "Messages behind the last one read, when a batch was last dispatched");
    describe_gauge!(ACTIVE, "1 where this process holds the lease of the kind");
    describe_histogram!(BATCH_ROWS, "Rows of a batch");
    describe_histogram!(BATCH_COMMIT, Unit::Seconds, "How long a batch took to commit, of the attempt that succeeded");
}
