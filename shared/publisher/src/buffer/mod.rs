//! A bounded buffer in front of the stream: pushing never waits for the network, an outage costs
//! nothing while there is room, and no record leaves it without a name for how.
//!
//! `queue` is what both sides share, with its bounds; `task` is the other side, which publishes.

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

/// How long a buffer that was dropped, not closed, goes on publishing what it holds.
const DROP_DEADLINE: Duration = Duration::from_secs(10);

/// A publisher with a bounded buffer; made by [`Publisher::buffered`]. A clone is another handle to
/// the same buffer.
///
/// A background task publishes each kind in order, one atomic batch after the other, and retries
/// what may pass for ever, with growing jittered delays. Kinds do not wait for each other, but they
/// share the bounds: give a flood a buffer of its own where something precious must not wait for it.
///
/// The order of a kind's records in the stream is the order in which they were pushed. Only where
/// the stream takes no atomic batches, and a part of what is on its way gets lost, does that part
/// come later.
///
/// End it with [`Buffered::close`]. When the last handle is dropped instead, the task goes on for up
/// to 10 seconds, and logs how many records it had to leave.
#[derive(Debug, Clone)]
pub struct Buffered {
    handle: Arc<Handle>,
}

/// Ends the buffer when the last handle is gone.
#[derive(Debug)]
struct Handle(Arc<Queue>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.end_by(Instant::now() + DROP_DEADLINE);
    }
}

impl Publisher {
    /// This publisher with a buffer in front. Its task runs in the runtime in which the publisher was made.
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

    /// Takes a record if there is room. Never waits. Gives it an id and the current time, and checks
    /// it as [`Publisher::publish`] does. The id is what comes back.
    ///
    /// # Errors
    /// [`PushError::Full`] or [`PushError::Closed`] with the record, [`PushError::Refused`] where it
    /// breaks the contract.
    pub fn try_push<R: Record>(&self, record: R) -> Result<Uuid, PushError<R>> {
        // Not worth encoding it for nothing, at the very moment in which there is no room.
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

    /// Takes a record as soon as there is room, and waits until then. Where the future is dropped
    /// before, the record is not in the buffer.
    ///
    /// # Errors
    /// [`PushError::Closed`] with the record, [`PushError::Refused`] where it breaks the contract.
    pub async fn push<R: Record>(&self, record: R) -> Result<Uuid, PushError<R>> {
        let outgoing = self.queue().publisher.outgoing(record);
        let prepared = self.queue().publisher.prepare(&outgoing)?;
        let id = prepared.id;
        match self.push_prepared(prepared).await {
            Ok(()) => Ok(id),
            Err(error) => Err(error.map(|_| outgoing.record)),
        }
    }

    /// As [`Buffered::try_push`], of what [`Publisher::prepare`] or [`Publisher::prepare_json`] made.
    ///
    /// # Errors
    /// As [`Buffered::try_push`].
    pub fn try_push_prepared(&self, prepared: Prepared) -> Result<(), PushError<Prepared>> {
        self.queue().take(prepared)
    }

    /// As [`Buffered::push`], of what [`Publisher::prepare`] or [`Publisher::prepare_json`] made.
    ///
    /// # Errors
    /// As [`Buffered::push`].
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

    /// Waits until everything that was pushed before is acknowledged, or refused for good. Waits
    /// through an outage: put a timeout around it where that must end.
    ///
    /// # Errors
    /// Where the buffer ended before, with how many records.
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

    /// Takes nothing more, publishes what there is, and ends; at the latest after `deadline`.
    ///
    /// # Errors
    /// How many records were left when the deadline came. They are lost with the process; some may
    /// be in the stream without its answer having come.
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

    /// What the buffer holds and has done.
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

    /// The publisher behind the buffer.
    pub fn publisher(&self) -> &Publisher {
        &self.queue().publisher
    }
}
