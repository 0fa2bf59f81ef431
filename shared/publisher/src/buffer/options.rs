//! What a buffer can be told, and what it tells.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::PublishError;
use crate::prepare::Prepared;

/// Is told of each record that is refused for good. Runs in the buffer's task: it must not block.
pub type OnRefused = Arc<dyn Fn(Refused) + Send + Sync>;

/// The bounds of a [`Buffered`](crate::Buffered) publisher.
#[derive(Clone)]
pub struct BufferOptions {
    /// The most bytes that wait for an acknowledgement, all kinds together, with 256 for each
    /// record's bookkeeping; 64 MiB unless set: minutes of an outage for most services, and little
    /// enough for a small container.
    pub max_bytes: usize,
    /// The most records that wait for an acknowledgement, all kinds together; 100,000 unless set.
    pub max_records: usize,
    /// How long a record waits for others to share its batch, 5 milliseconds unless set. A full batch,
    /// a flush and closing do not wait.
    pub linger: Duration,
    /// Told of each record that is refused for good, which the buffer then forgets.
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

/// A record that will never be acknowledged as it is.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The record.
    pub record: Prepared,
    /// Why.
    pub error: PublishError,
}

/// Why a record is not in the buffer. What was not refused is handed back.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PushError<R> {
    /// There is no room now.
    #[error("the buffer is full: JetStream takes records more slowly than they come, or not at all")]
    Full(R),
    /// The buffer is closed, or the connection is closed for good.
    #[error("the buffer is closed")]
    Closed(R),
    /// The record breaks the contract, or is larger than the whole buffer.
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

/// The buffer ended with records in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{left} records were not acknowledged when the buffer ended")]
pub struct Unflushed {
    /// How many records it held.
    pub left: usize,
}

/// What a buffer holds and has done. When nothing moves, what was pushed is `buffered_records + published + refused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BufferStats {
    /// Records that wait for an acknowledgement.
    pub buffered_records: usize,
    /// Their bytes, bookkeeping included: what [`BufferOptions::max_bytes`] bounds.
    pub buffered_bytes: usize,
    /// Records that the stream acknowledged.
    pub published: u64,
    /// Records that were refused for good, after they were taken.
    pub refused: u64,
    /// How often publishing was tried again.
    pub retries: u64,
}
