//! The options, counters and errors of a buffer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::PublishError;
use crate::prepare::Prepared;

/// Callback for each record that is refused permanently. It runs in the buffer's task, so it must not block.
pub type OnRefused = Arc<dyn Fn(Refused) + Send + Sync>;

/// The limits of a [`Buffered`](crate::Buffered) publisher.
#[derive(Clone)]
pub struct BufferOptions {
    /// Maximum bytes of unacknowledged records of all kinds, including 256 bytes of overhead per record. Default:
    /// 64 MiB, which covers minutes of an outage for most services and fits a small container.
    pub max_bytes: usize,
    /// Maximum number of unacknowledged records of all kinds. Default: 100,000.
    pub max_records: usize,
    /// How long a record waits for others to fill its batch. A full batch, a flush and closing do not wait.
    /// Default: 5 ms.
    pub linger: Duration,
    /// Called for each record that is refused permanently. The buffer drops the record afterwards. Default: none;
    /// refused records are logged and counted.
    pub on_refused: Option<OnRefused>,
}

impl Default for BufferOptions {
    fn default() -> Self {
        Self { max_bytes: 64 * 1024 * 1024, max_records: 100_000, linger: Duration::from_millis(5), on_refused: None }
    }
}

impl fmt::Debug for BufferOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferOptions")
            .field("max_bytes", &self.max_bytes)
            .field("max_records", &self.max_records)
            .field("linger", &self.linger)
            .field("on_refused", &self.on_refused.is_some())
            .finish()
    }
}

/// A record that can never be acknowledged unless it, its size or a permission changes.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The record.
    pub record: Prepared,
    /// The reason.
    pub error: PublishError,
}

/// The reason why a record was not added to the buffer. Valid records are returned.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PushError<R> {
    /// The buffer is full.
    #[error("the buffer is full: JetStream acknowledges records more slowly than they are pushed, or not at all")]
    Full(R),
    /// The buffer or the NATS connection is closed.
    #[error("the buffer is closed")]
    Closed(R),
    /// The record is invalid, or larger than the whole buffer.
    #[error(transparent)]
    Refused(#[from] PublishError),
}

impl<R> PushError<R> {
    pub(super) fn map<T>(self, change: impl FnOnce(R) -> T) -> PushError<T> {
        match self {
            Self::Full(record) => PushError::Full(change(record)),
            Self::Closed(record) => PushError::Closed(change(record)),
            Self::Refused(error) => PushError::Refused(error),
        }
    }
}

/// The buffer ended with unacknowledged records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{left} records were not acknowledged when the buffer ended")]
pub struct Unflushed {
    /// Number of records left.
    pub left: usize,
}

/// The content and the counters of a buffer. Once the buffer is idle, the number of pushed records is
/// `buffered_records + published + refused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BufferStats {
    /// Number of unacknowledged records.
    pub buffered_records: usize,
    /// Bytes of unacknowledged records, including the overhead, as limited by [`BufferOptions::max_bytes`].
    pub buffered_bytes: usize,
    /// Number of acknowledged records.
    pub published: u64,
    /// Number of records that were refused permanently after they were pushed.
    pub refused: u64,
    /// Number of failed attempts that were retried.
    pub retries: u64,
}
