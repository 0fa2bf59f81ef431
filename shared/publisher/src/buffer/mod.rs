//! A bounded buffer in front of the stream. Pushing never waits for the network, and an outage loses nothing while
//! there is room. Every record that leaves the buffer is counted as published or refused.
//!
//! `queue` is the state shared by both sides, with its limits. `task` publishes in the background.

mod options;
mod queue;
mod task;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use records::Record;
use tokio::time::Instant;
use uuid::Uuid;

pub use self::options::{BufferOptions, BufferStats, OnRefused, PushError, Refused, Unflushed};
use self::queue::{ENTRY_BYTES, Flushing, Queue};
use crate::Publisher;
use crate::prepare::Prepared;

/// How long a buffer that was dropped without [`Buffered::close`] keeps publishing.
const DROP_DEADLINE: Duration = Duration::from_secs(10);

/// A publisher with a bounded buffer, created by [`Publisher::buffered`]. Clones share the same buffer.
///
/// A background task publishes each kind in order, one atomic batch after the other. Temporary errors are retried
/// without limit, with jittered delays of up to 5 s. Kinds do not wait for each other but share the limits. Use a
/// separate buffer for records that a flood of others must not block.
///
/// The records of a kind are stored in the order in which they were pushed. There is one exception: if the stream
/// does not support atomic batches and a part of the messages is lost in transit, that part is stored later.
///
/// Call [`Buffered::close`] at the end. If the last handle is dropped instead, the task keeps publishing for up to
/// 10 seconds and logs how many records it could not publish.
#[derive(Debug, Clone)]
pub struct Buffered {
    handle: Arc<Handle>,
}

/// Ends the buffer when the last handle is dropped.
#[derive(Debug)]
struct Handle(Arc<Queue>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.end_by(Instant::now() + DROP_DEADLINE);
    }
}

impl Publisher {
    /// Returns a publisher with a buffer. Its task runs on the Tokio runtime in which the publisher was created.
    pub fn buffered(&self, options: BufferOptions) -> Buffered {
        let queue = Arc::new(Queue::new(self.clone(), options));
        self.wire.runtime.spawn(task::run(Arc::clone(&queue)));
        Buffered { handle: Arc::new(Handle(queue)) }
    }
}

impl Buffered {
    fn queue(&self) -> &Queue {
        &self.handle.0
    }

    /// Adds a record if there is room, and never waits. The record gets an id and the current time, and is checked
    /// like by [`Publisher::publish`]. Returns the id.
    ///
    /// # Errors
    /// [`PushError::Full`] or [`PushError::Closed`], which return the record, or [`PushError::Refused`] if it is
    /// invalid.
    pub fn try_push<R: Record>(&self, record: R) -> Result<Uuid, PushError<R>> {
        // Avoids encoding a record that cannot be added.
        if let Err(full) = self.queue().room_for(1, ENTRY_BYTES) {
            return Err(full.map(|()| record));
        }
        let outgoing = self.queue().publisher.outgoing(record);
        let prepared = self.queue().publisher.prepare(&outgoing)?;
        let id = prepared.id;
        match self.try_push_prepared(prepared) {
            Ok(()) => Ok(id),
            Err(error) => Err(error.map(|_| outgoing.record)),
        }
    }

    /// Adds a record, and waits while the buffer is full. Returns the id. Cancel safe: if the future is dropped,
    /// the record is not in the buffer.
    ///
    /// # Errors
    /// [`PushError::Closed`], which returns the record, or [`PushError::Refused`] if it is invalid.
    pub async fn push<R: Record>(&self, record: R) -> Result<Uuid, PushError<R>> {
        let outgoing = self.queue().publisher.outgoing(record);
        let prepared = self.queue().publisher.prepare(&outgoing)?;
        let id = prepared.id;
        match self.push_prepared(prepared).await {
            Ok(()) => Ok(id),
            Err(error) => Err(error.map(|_| outgoing.record)),
        }
    }

    /// Like [`Buffered::try_push`], for a record made by [`Publisher::prepare`] or [`Publisher::prepare_json`].
    ///
    /// # Errors
    /// See [`Buffered::try_push`].
    pub fn try_push_prepared(&self, prepared: Prepared) -> Result<(), PushError<Prepared>> {
        self.queue().take(prepared)
    }

    /// Like [`Buffered::push`], for a record made by [`Publisher::prepare`] or [`Publisher::prepare_json`].
    ///
    /// # Errors
    /// See [`Buffered::push`].
    pub async fn push_prepared(&self, mut prepared: Prepared) -> Result<(), PushError<Prepared>> {
        let mut moved = pin!(self.queue().moved.notified());
        loop {
            moved.as_mut().enable();
            match self.try_push_prepared(prepared) {
                Err(PushError::Full(back)) => prepared = back,
                taken => return taken,
            }
            moved.as_mut().await;
            moved.set(self.queue().moved.notified());
        }
    }

    /// Waits until every record pushed before this call is acknowledged or refused. It waits through an outage, so
    /// add a timeout if needed.
    ///
    /// # Errors
    /// [`Unflushed`] if the buffer ended first, with the number of records left.
    pub async fn flush(&self) -> Result<(), Unflushed> {
        let queue = self.queue();
        let targets = queue.lock().lanes.each_ref().map(|lane| lane.pushed);
        let _flushing = Flushing::begin(queue);
        let mut moved = pin!(queue.moved.notified());
        loop {
            moved.as_mut().enable();
            {
                let state = queue.lock();
                if state.lanes.iter().zip(targets).all(|(lane, target)| lane.settled >= target) {
                    return Ok(());
                }
                if state.ended {
                    return Err(Unflushed { left: state.records });
                }
            }
            moved.as_mut().await;
            moved.set(queue.moved.notified());
        }
    }

    /// Closes the buffer: accepts no more records, publishes the remaining ones, and ends after `deadline` at the
    /// latest.
    ///
    /// # Errors
    /// [`Unflushed`] with the number of records left at the deadline. They are lost. Some of them may be stored, if
    /// only their acknowledgement is missing.
    pub async fn close(&self, deadline: Duration) -> Result<(), Unflushed> {
        let queue = self.queue();
        queue.end_by(Instant::now() + deadline);
        let mut moved = pin!(queue.moved.notified());
        loop {
            moved.as_mut().enable();
            {
                let state = queue.lock();
                if state.ended {
                    return if state.records == 0 { Ok(()) } else { Err(Unflushed { left: state.records }) };
                }
            }
            moved.as_mut().await;
            moved.set(queue.moved.notified());
        }
    }

    /// Returns the content and the counters of the buffer.
    pub fn stats(&self) -> BufferStats {
        let queue = self.queue();
        let state = queue.lock();
        BufferStats {
            buffered_records: state.records,
            buffered_bytes: state.bytes,
            published: queue.published.load(Ordering::Relaxed),
            refused: queue.refused.load(Ordering::Relaxed),
            retries: queue.retries.load(Ordering::Relaxed),
        }
    }

    /// Returns the publisher behind the buffer.
    pub fn publisher(&self) -> &Publisher {
        &self.queue().publisher
    }
}
