//! The buffered records and their limits.

use std::collections::VecDeque;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use records::Kind;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::options::{BufferOptions, PushError, Refused};
use crate::layer::without_recursion;
use crate::prepare::{Encoded, Prepared};
use crate::{PublishError, Publisher};

/// Memory of a buffered message besides its own bytes: the queue entry, the id and the reference counts.
pub(super) const ENTRY_BYTES: usize = 256;

/// The state shared by the handles of a buffer and its task.
pub(super) struct Queue {
    pub(super) publisher: Publisher,
    pub(super) options: BufferOptions,
    state: Mutex<State>,
    /// Per kind: wakes the task when a record arrived, a batch is full, or nothing may linger.
    pub(super) work: [Notify; Kind::ALL.len()],
    /// Notified when records left the buffer or it ended.
    pub(super) moved: Notify,
    /// When the task must end, if known.
    pub(super) deadline: watch::Sender<Option<Instant>>,
    pub(super) published: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) retries: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) lanes: [Lane; Kind::ALL.len()],
    pub(super) records: usize,
    pub(super) bytes: usize,
    /// Number of flushes in progress. While it is not zero, nothing lingers.
    pub(super) flushing: usize,
    /// No more records are accepted.
    pub(super) closed: bool,
    /// The task has ended.
    pub(super) ended: bool,
}

/// The records of one kind that are not yet in a batch.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) waiting: VecDeque<(Uuid, Encoded)>,
    pub(super) since: Option<Instant>,
    pub(super) pushed: u64,
    pub(super) settled: u64,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Disables lingering until dropped.
pub(super) struct Flushing<'s>(&'s Queue);

impl<'s> Flushing<'s> {
    pub(super) fn begin(queue: &'s Queue) -> Self {
        queue.lock().flushing += 1;
        queue.wake();
        Self(queue)
    }
}

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        self.0.lock().flushing -= 1;
    }
}

impl Queue {
    pub(super) fn new(publisher: Publisher, options: BufferOptions) -> Self {
        Self {
            publisher,
            options,
            state: Mutex::default(),
            work: Default::default(),
            moved: Notify::new(),
            deadline: watch::Sender::new(None),
            published: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            retries: AtomicU64::new(0),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while holding the lock, and the state is consistent after each statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.work.iter().for_each(Notify::notify_one);
    }

    pub(super) fn end_by(&self, deadline: Instant) {
        self.lock().closed = true;
        self.deadline.send_modify(|known| *known = Some(known.map_or(deadline, |known| known.min(deadline))));
        self.wake();
    }

    pub(super) fn room_for(&self, records: usize, bytes: usize) -> Result<(), PushError<()>> {
        let state = self.lock();
        if state.closed {
            return Err(PushError::Closed(()));
        }
        let fits = state.records + records <= self.options.max_records && state.bytes + bytes <= self.options.max_bytes;
        if fits { Ok(()) } else { Err(PushError::Full(())) }
    }

    pub(super) fn take(&self, prepared: Prepared) -> Result<(), PushError<Prepared>> {
        let bytes = weight(&prepared.message);
        if bytes > self.options.max_bytes {
            return Err(PushError::Refused(PublishError::TooLarge {
                subject: prepared.message.subject().to_owned(),
                bytes,
                limit: self.options.max_bytes,
            }));
        }
        let lane_of = prepared.kind as usize;
        let mut state = self.lock();
        if state.closed {
            return Err(PushError::Closed(prepared));
        }
        if state.records >= self.options.max_records || state.bytes + bytes > self.options.max_bytes {
            return Err(PushError::Full(prepared));
        }
        let (Some(lane), Some(work)) = (state.lanes.get_mut(lane_of), self.work.get(lane_of)) else {
            return Err(PushError::Closed(prepared));
        };
        lane.waiting.push_back((prepared.id, prepared.message));
        lane.pushed += 1;
        lane.since.get_or_insert_with(Instant::now);
        let waiting = lane.waiting.len();
        state.records += 1;
        state.bytes += bytes;
        drop(state);
        // The task is woken by the first record and by a full batch, not by each record.
        if waiting == 1 || waiting == self.publisher.wire.limits.batch_records {
            work.notify_one();
        }
        Ok(())
    }

    /// Removes acknowledged or refused records from the totals.
    pub(super) fn release(&self, messages: &[Encoded]) {
        let mut state = self.lock();
        state.records = state.records.saturating_sub(messages.len());
        state.bytes = state.bytes.saturating_sub(messages.iter().map(weight).sum());
        drop(state);
        self.moved.notify_waiters();
    }

    pub(super) fn settle(&self, kind: Kind, records: u64) {
        if let Some(lane) = self.lock().lanes.get_mut(kind as usize) {
            lane.settled += records;
        }
        self.moved.notify_waiters();
    }

    pub(super) fn refuse(&self, record: Prepared, error: PublishError) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(kind = %record.kind, id = %record.id, %error, "a buffered record was refused permanently and dropped");
        let Some(on_refused) = &self.options.on_refused else { return };
        // A panic in the callback must not end the buffer, and an error it logs must not be pushed again.
        let told = std::panic::catch_unwind(AssertUnwindSafe(|| {
            without_recursion(|| on_refused(Refused { record, error }));
        }));
        if told.is_err() {
            tracing::warn!("the `on_refused` callback panicked");
        }
    }
}

fn weight(message: &Encoded) -> usize {
    message.size() + ENTRY_BYTES
}
