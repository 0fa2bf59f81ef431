//! Reads the stream and dispatches batches, as long as the lease is held and the stream stays the same.

use std::time::Duration;

use ::metrics::gauge;
use bus::{Bus, Lost, Read, Reader, Window};
use runtime::Part;
use store::positions::Position;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::batch::{Batch, Contract};
use crate::lane::{BatchOutcome, Lane};
use crate::metrics;
use crate::start_position::StartPosition;

/// A batch that could still grow, because more messages are in the stream, waits at most this many times the linger.
const LINGER_WHILE_MORE_COMES: u32 = 10;

/// The limits of a batch, and how long a lone record waits for more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
    pub(crate) linger: Duration,
    pub(crate) window: Window,
}

/// The reason why a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The session was told to stop.
    Stopped,
    /// The stream must be opened again: the reader may have missed messages, or another writer settled sequences.
    Reopen(String),
}

/// One continuous run of reading.
pub(crate) struct Session<'s> {
    pub(crate) bus: &'s Bus,
    pub(crate) contract: &'s Contract,
    pub(crate) start: StartPosition,
    pub(crate) bounds: Bounds,
    pub(crate) health: &'s Part,
    pub(crate) stop: &'s CancellationToken,
}

/// The batch that is being filled.
struct PendingBatch {
    batch: Batch,
    /// When the first message was added.
    since: Option<Instant>,
    /// A settled range follows: nothing can be added, and the next batch starts at this sequence.
    resume_at: Option<u64>,
    /// Sequences missing from the stream that are not yet in a batch.
    missing: Option<(u64, u64)>,
    /// Number of messages in the stream after the last one read.
    behind: u64,
    /// The sequence that was missing when the reader was last idle.
    missing_at: Option<u64>,
}

impl PendingBatch {
    fn starting_at(first: u64) -> Self {
        Self {
            batch: Batch::starting_at(first),
            since: None,
            resume_at: None,
            missing: None,
            behind: 0,
            missing_at: None,
        }
    }

    fn is_full(&self, bounds: &Bounds) -> bool {
        self.resume_at.is_some() || self.batch.messages() >= bounds.rows || self.batch.bytes() >= bounds.bytes
    }

    /// Returns when the batch is due: at once if it is full, after the linger if no more messages are waiting, and
    /// after a multiple of the linger if more are coming.
    fn due_at(&self, bounds: &Bounds) -> Option<Instant> {
        let since = self.since?;
        if self.is_full(bounds) {
            return Some(since);
        }
        let patience = if self.behind == 0 { 1 } else { LINGER_WHILE_MORE_COMES };
        Some(since + bounds.linger * patience)
    }

    /// Continues after a settled range.
    fn skip_to(&mut self, next: u64) {
        if self.batch.is_empty() {
            self.batch = Batch::starting_at(next);
        } else {
            self.resume_at = Some(next);
        }
    }

    /// Takes the batch out and starts the next one.
    fn take_batch(&mut self) -> Batch {
        let next = self.resume_at.take().unwrap_or_else(|| self.batch.next());
        self.since = None;
        std::mem::replace(&mut self.batch, Batch::starting_at(next))
    }

    /// Adds the missing sequences, leaving out ranges that are already settled.
    fn add_missing(&mut self, position: &Position) {
        while let Some((first, last)) = self.missing
            && self.resume_at.is_none()
        {
            let (hole, end) = position.hole_from(first);
            if hole > first {
                let next = hole.min(last + 1);
                self.skip_to(next);
                self.missing = (next <= last).then_some((next, last));
                continue;
            }
            let until = end.map_or(last, |end| end.min(last));
            self.batch.push_deleted(first, until);
            self.since.get_or_insert_with(Instant::now);
            self.missing = (until < last).then_some((until + 1, last));
        }
    }
}

impl Session<'_> {
    /// Reads until stopped or in doubt. On return every lane is idle again and every batch has ended.
    pub(crate) async fn run(self, idle: &mut Vec<Lane>) -> End {
        let (first, _) = self.start.position.first_hole();
        let mut reader =
            match self.bus.read_from(self.contract.kind, first, &self.start.stream, self.bounds.window).await {
                Ok(reader) => reader,
                Err(error) => return End::Reopen(error.to_string()),
            };
        let mut running = JoinSet::new();
        let end = self.read(&mut reader, idle, &mut running, first).await;
        while let Some(joined) = running.join_next().await {
            if let Ok((lane, _)) = joined {
                idle.push(lane);
            }
        }
        reader.close().await;
        end
    }

    async fn read(
        &self,
        reader: &mut Reader,
        idle: &mut Vec<Lane>,
        running: &mut JoinSet<(Lane, BatchOutcome)>,
        first: u64,
    ) -> End {
        let mut pending = PendingBatch::starting_at(first);
        self.health.active();
        loop {
            pending.add_missing(&self.start.position);
            let due_at = pending.due_at(&self.bounds);
            if due_at.is_some_and(|at| at <= Instant::now())
                && let Some(lane) = idle.pop()
            {
                gauge!(metrics::UNREAD, "kind" => self.contract.kind.name()).set(pending.behind as f64);
                self.dispatch(lane, pending.take_batch(), running);
                continue;
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    self.flush(pending.batch, idle, running).await;
                    return End::Stopped;
                }
                Some(joined) = running.join_next() => match joined {
                    Ok((lane, ended)) => {
                        idle.push(lane);
                        match ended {
                            BatchOutcome::Settled => {}
                            BatchOutcome::Overtaken => return End::Reopen("another writer settled a part of the batch".to_owned()),
                            BatchOutcome::Abandoned => return End::Stopped,
                        }
                        if running.is_empty() && pending.batch.is_empty() {
                            self.health.idle();
                        }
                    }
                    Err(error) => return End::Reopen(format!("a lane panicked: {error}")),
                },
                () = sleep_until(due_at.unwrap_or_else(Instant::now)), if due_at.is_some() && !idle.is_empty() => {}
                read = reader.read(), if pending.missing.is_none() && !pending.is_full(&self.bounds) => match read {
                    Ok(Read::Idle) => if let Some(end) = self.recheck_stream(&mut pending).await { return end },
                    Ok(read) => if let Err(lost) = self.take_arrived(read, reader, &mut pending) {
                        return self.reopen(lost, pending.batch, idle, running).await;
                    },
                    Err(lost) => return self.reopen(lost, pending.batch, idle, running).await,
                },
            }
        }
    }

    /// Handles a reader that may have missed messages. The messages read so far are written first, so that the next
    /// reader starts right at the gap: only a fresh reader can tell whether the stream still holds the missing
    /// ones.
    async fn reopen(
        &self,
        lost: Lost,
        batch: Batch,
        idle: &mut Vec<Lane>,
        running: &mut JoinSet<(Lane, BatchOutcome)>,
    ) -> End {
        self.flush(batch, idle, running).await;
        End::Reopen(lost.to_string())
    }

    /// Adds a message to the batch, and all that have arrived with it.
    fn take_arrived(&self, read: Read, reader: &mut Reader, pending: &mut PendingBatch) -> Result<(), Lost> {
        self.take(read, pending);
        while pending.missing.is_none() && !pending.is_full(&self.bounds) {
            match reader.read_arrived()? {
                Some(read) => self.take(read, pending),
                None => break,
            }
        }
        Ok(())
    }

    fn take(&self, read: Read, pending: &mut PendingBatch) {
        match read {
            Read::Message(delivery) => {
                let (hole, _) = self.start.position.hole_from(delivery.sequence);
                if hole > delivery.sequence {
                    // A faster lane settled it before the previous writer died: skip it.
                    pending.skip_to(delivery.sequence + 1);
                    return;
                }
                pending.behind = delivery.pending;
                if pending.since.is_none() {
                    pending.since = Some(Instant::now());
                    self.health.has_work();
                }
                pending.batch.push(self.contract, delivery);
            }
            Read::Deleted { first, last } => {
                pending.missing = Some((first, last));
                pending.behind = 0;
            }
            Read::Idle => {}
        }
    }

    /// Checks whether the stream is still the same, and whether it holds messages that do not arrive.
    async fn recheck_stream(&self, pending: &mut PendingBatch) -> Option<End> {
        let next = pending.batch.next();
        match self.bus.stream_state(self.contract.kind).await {
            Err(error) => Some(End::Reopen(error.to_string())),
            Ok(state) if state.created_at != self.start.stream.created_at => {
                Some(End::Reopen("the stream was recreated".to_owned()))
            }
            Ok(state) if state.last_sequence + 1 < next => Some(End::Reopen("the stream was truncated".to_owned())),
            // A message may have come since the last pull ended, so only the second check counts.
            Ok(state) if state.last_sequence >= next && pending.missing_at.replace(next) == Some(next) => {
                Some(End::Reopen("the stream holds messages that do not arrive".to_owned()))
            }
            Ok(_) => None,
        }
    }

    fn dispatch(&self, mut lane: Lane, batch: Batch, running: &mut JoinSet<(Lane, BatchOutcome)>) {
        let identity = self.start.identity.clone();
        running.spawn(async move {
            let ended = lane.write(&identity, &batch).await;
            (lane, ended)
        });
    }

    /// Writes the messages read so far, if a lane becomes idle and Postgres commits before the process has to stop.
    async fn flush(&self, batch: Batch, idle: &mut Vec<Lane>, running: &mut JoinSet<(Lane, BatchOutcome)>) {
        let mut taken = true;
        if idle.is_empty()
            && let Some(Ok((lane, ended))) = running.join_next().await
        {
            idle.push(lane);
            // Postgres did not commit that batch in time, so another one would not succeed either.
            taken = ended != BatchOutcome::Abandoned;
        }
        if taken
            && !batch.is_empty()
            && let Some(lane) = idle.pop()
        {
            self.dispatch(lane, batch, running);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::positions::Position;

    fn position(settled: &[(u64, u64)]) -> Position {
        Position { created_at: chrono::DateTime::UNIX_EPOCH, settled: settled.to_vec(), newest: None }
    }

    #[test]
    fn gone_sequences_are_settled_around_what_is_settled_already() {
        let position = position(&[(1, 9), (13, 15), (20, 30)]);
        let mut pending = PendingBatch::starting_at(10);
        pending.missing = Some((10, 40));
        let mut batches = Vec::new();
        loop {
            pending.add_missing(&position);
            if pending.batch.is_empty() {
                break;
            }
            let batch = pending.take_batch();
            batches.push((batch.first(), batch.last(), batch.deleted()));
        }
        assert_eq!(batches, [(10, 12, 3), (16, 19, 4), (31, 40, 10)]);
        assert_eq!(pending.batch.next(), 41);
    }

    #[test]
    fn a_lone_record_waits_for_the_linger_and_a_full_batch_for_nothing() {
        let window = Window { messages: 10, bytes: 1000 };
        let bounds = Bounds { rows: 2, bytes: 1000, linger: Duration::from_millis(10), window };
        let mut pending = PendingBatch::starting_at(1);
        assert_eq!(pending.due_at(&bounds), None);
        let now = Instant::now();
        pending.since = Some(now);
        pending.batch.push_deleted(1, 1);
        assert_eq!(pending.due_at(&bounds), Some(now + bounds.linger));
        pending.behind = 5;
        assert_eq!(pending.due_at(&bounds), Some(now + bounds.linger * LINGER_WHILE_MORE_COMES));
        pending.skip_to(9);
        assert_eq!(pending.due_at(&bounds), Some(now), "a settled range comes next");
        assert_eq!(pending.take_batch().last(), 1);
        assert_eq!(pending.batch.next(), 9);
    }
}
