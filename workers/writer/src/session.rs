//! Reading and dispatching, while the lease is held and the stream stays the same.

use std::time::Duration;

use ::metrics::gauge;
use bus::{Bus, Lost, Read, Reader, Window};
use runtime::Part;
use store::positions::Position;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::batch::{Batch, Contract};
use crate::lane::{Ended, Lane};
use crate::metrics;
use crate::origin::Origin;

/// A batch that could still grow, because more messages are there, waits so many times the linger at the most.
const LINGER_WHILE_MORE_COMES: u32 = 10;

/// Bounds of a batch, and what a lone record waits for company.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
    pub(crate) linger: Duration,
    pub(crate) window: Window,
}

/// Why a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// It was told to.
    Stopped,
    /// The stream has to be looked at again: the reader is in doubt, or somebody else settled sequences.
    Reopen(String),
}

/// One stretch of reading.
pub(crate) struct Session<'s> {
    pub(crate) bus: &'s Bus,
    pub(crate) contract: &'s Contract,
    pub(crate) origin: Origin,
    pub(crate) bounds: Bounds,
    pub(crate) health: &'s Part,
    pub(crate) stop: &'s CancellationToken,
}

/// The batch that is being gathered.
struct Gathering {
    batch: Batch,
    /// Since when it holds something.
    since: Option<Instant>,
    /// A settled range comes next: nothing can be added, and the batch after this one starts there.
    resume_at: Option<u64>,
    /// Sequences that the stream does not hold and that are not in a batch yet.
    gone: Option<(u64, u64)>,
    /// How many messages the stream held behind the last one.
    behind: u64,
    /// What was missing when the reader was last idle.
    missing_at: Option<u64>,
}

impl Gathering {
    fn starting_at(first: u64) -> Self {
        Self { batch: Batch::starting_at(first), since: None, resume_at: None, gone: None, behind: 0, missing_at: None }
    }

    fn is_full(&self, bounds: &Bounds) -> bool {
        self.resume_at.is_some() || self.batch.messages() >= bounds.rows || self.batch.bytes() >= bounds.bytes
    }

    /// From when on the batch is worth a transaction: at once where it is full, soon where nothing more
    /// is there to wait for, a little later where more comes anyway.
    fn ripe_at(&self, bounds: &Bounds) -> Option<Instant> {
        let since = self.since?;
        if self.is_full(bounds) {
            return Some(since);
        }
        let patience = if self.behind == 0 { 1 } else { LINGER_WHILE_MORE_COMES };
        Some(since + bounds.linger * patience)
    }

    /// Goes on behind a settled range.
    fn skip_to(&mut self, next: u64) {
        if self.batch.is_empty() {
            self.batch = Batch::starting_at(next);
        } else {
            self.resume_at = Some(next);
        }
    }

    /// Takes the batch out, and leaves the one after it.
    fn take_batch(&mut self) -> Batch {
        let next = self.resume_at.take().unwrap_or_else(|| self.batch.next());
        self.since = None;
        std::mem::replace(&mut self.batch, Batch::starting_at(next))
    }

    /// Adds what the stream does not hold, between settled ranges.
    fn add_gone(&mut self, position: &Position) {
        while let Some((first, last)) = self.gone
            && self.resume_at.is_none()
        {
            let (hole, end) = position.hole_from(first);
            if hole > first {
                let next = hole.min(last + 1);
                self.skip_to(next);
                self.gone = (next <= last).then_some((next, last));
                continue;
            }
            let until = end.map_or(last, |end| end.min(last));
            self.batch.push_deleted(first, until);
            self.since.get_or_insert_with(Instant::now);
            self.gone = (until < last).then_some((until + 1, last));
        }
    }
}

impl Session<'_> {
    /// Reads until told to stop or in doubt. The lanes come back idle, every batch ended.
    pub(crate) async fn run(self, idle: &mut Vec<Lane>) -> End {
        let (first, _) = self.origin.position.first_hole();
        let mut reader =
            match self.bus.read_from(self.contract.kind, first, &self.origin.stream, self.bounds.window).await {
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
        running: &mut JoinSet<(Lane, Ended)>,
        first: u64,
    ) -> End {
        let mut gathering = Gathering::starting_at(first);
        self.health.active();
        loop {
            gathering.add_gone(&self.origin.position);
            let ripe_at = gathering.ripe_at(&self.bounds);
            if ripe_at.is_some_and(|at| at <= Instant::now())
                && let Some(lane) = idle.pop()
            {
                gauge!(metrics::UNREAD, "kind" => self.contract.kind.name()).set(gathering.behind as f64);
                self.dispatch(lane, gathering.take_batch(), running);
                continue;
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    self.flush(gathering.batch, idle, running).await;
                    return End::Stopped;
                }
                Some(joined) = running.join_next() => match joined {
                    Ok((lane, ended)) => {
                        idle.push(lane);
                        match ended {
                            Ended::Settled => {}
                            Ended::Overtaken => return End::Reopen("somebody else settled some of it".to_owned()),
                            Ended::Abandoned => return End::Stopped,
                        }
                        if running.is_empty() && gathering.batch.is_empty() {
                            self.health.idle();
                        }
                    }
                    Err(error) => return End::Reopen(format!("a lane ended: {error}")),
                },
                () = sleep_until(ripe_at.unwrap_or_else(Instant::now)), if ripe_at.is_some() && !idle.is_empty() => {}
                read = reader.read(), if gathering.gone.is_none() && !gathering.is_full(&self.bounds) => match read {
                    Ok(Read::Idle) => if let Some(end) = self.look_again(&mut gathering).await { return end },
                    Ok(read) => if let Err(lost) = self.take_arrived(read, reader, &mut gathering) {
                        return self.reopen(lost, gathering.batch, idle, running).await;
                    },
                    Err(lost) => return self.reopen(lost, gathering.batch, idle, running).await,
                },
            }
        }
    }

    /// The reader is in doubt. What was read is written first: the next reader then begins right at the
    /// gap, where alone it can tell whether the stream still holds what is missing.
    async fn reopen(
        &self,
        lost: Lost,
        batch: Batch,
        idle: &mut Vec<Lane>,
        running: &mut JoinSet<(Lane, Ended)>,
    ) -> End {
        self.flush(batch, idle, running).await;
        End::Reopen(lost.to_string())
    }

    /// Adds what was read to the batch, and what has arrived with it.
    fn take_arrived(&self, read: Read, reader: &mut Reader, gathering: &mut Gathering) -> Result<(), Lost> {
        self.take(read, gathering);
        while gathering.gone.is_none() && !gathering.is_full(&self.bounds) {
            match reader.read_arrived()? {
                Some(read) => self.take(read, gathering),
                None => break,
            }
        }
        Ok(())
    }

    fn take(&self, read: Read, gathering: &mut Gathering) {
        match read {
            Read::Message(delivery) => {
                let (hole, _) = self.origin.position.hole_from(delivery.sequence);
                if hole > delivery.sequence {
                    // Settled already, by a lane that was ahead when somebody died: read past it.
                    gathering.skip_to(delivery.sequence + 1);
                    return;
                }
                gathering.behind = delivery.pending;
                if gathering.since.is_none() {
                    gathering.since = Some(Instant::now());
                    self.health.has_work();
                }
                gathering.batch.push(self.contract, delivery);
            }
            Read::Deleted { first, last } => {
                gathering.gone = Some((first, last));
                gathering.behind = 0;
            }
            Read::Idle => {}
        }
    }

    /// Is the stream still the one that we read, and does it hold something that does not come?
    async fn look_again(&self, gathering: &mut Gathering) -> Option<End> {
        let next = gathering.batch.next();
        match self.bus.stream_state(self.contract.kind).await {
            Err(error) => Some(End::Reopen(error.to_string())),
            Ok(state) if state.created_at != self.origin.stream.created_at => {
                Some(End::Reopen("the stream was made anew".to_owned()))
            }
            Ok(state) if state.last_sequence + 1 < next => Some(End::Reopen("the stream lost its tail".to_owned())),
            // One may have come since the last pull ended. The second time around it would be here.
            Ok(state) if state.last_sequence >= next && gathering.missing_at.replace(next) == Some(next) => {
                Some(End::Reopen("the stream holds messages that do not come".to_owned()))
            }
            Ok(_) => None,
        }
    }

    fn dispatch(&self, mut lane: Lane, batch: Batch, running: &mut JoinSet<(Lane, Ended)>) {
        let identity = self.origin.identity.clone();
        running.spawn(async move {
            let ended = lane.write(&identity, &batch).await;
            (lane, ended)
        });
    }

    /// Reading ends: what was read is written, if Postgres takes it before the process has to stop.
    async fn flush(&self, batch: Batch, idle: &mut Vec<Lane>, running: &mut JoinSet<(Lane, Ended)>) {
        let mut taken = true;
        if idle.is_empty()
            && let Some(Ok((lane, ended))) = running.join_next().await
        {
            idle.push(lane);
            // What Postgres did not take in time it will not take in more time.
            taken = ended != Ended::Abandoned;
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
        let mut gathering = Gathering::starting_at(10);
        gathering.gone = Some((10, 40));
        let mut batches = Vec::new();
        loop {
            gathering.add_gone(&position);
            if gathering.batch.is_empty() {
                break;
            }
            let batch = gathering.take_batch();
            batches.push((batch.first(), batch.last(), batch.deleted()));
        }
        assert_eq!(batches, [(10, 12, 3), (16, 19, 4), (31, 40, 10)]);
        assert_eq!(gathering.batch.next(), 41);
    }

    #[test]
    fn a_lone_record_waits_for_the_linger_and_a_full_batch_for_nothing() {
        let window = Window { messages: 10, bytes: 1000 };
        let bounds = Bounds { rows: 2, bytes: 1000, linger: Duration::from_millis(10), window };
        let mut gathering = Gathering::starting_at(1);
        assert_eq!(gathering.ripe_at(&bounds), None);
        let now = Instant::now();
        gathering.since = Some(now);
        gathering.batch.push_deleted(1, 1);
        assert_eq!(gathering.ripe_at(&bounds), Some(now + bounds.linger));
        gathering.behind = 5;
        assert_eq!(gathering.ripe_at(&bounds), Some(now + bounds.linger * LINGER_WHILE_MORE_COMES));
        gathering.skip_to(9);
        assert_eq!(gathering.ripe_at(&bounds), Some(now), "a settled range comes next");
        assert_eq!(gathering.take_batch().last(), 1);
        assert_eq!(gathering.batch.next(), 9);
    }
}
