//! The background work of a writer: create partitions ahead of time, trim settled messages, fold roll-ups.

use std::sync::Arc;
use std::time::Duration;

use bus::{Bus, BusError, StreamState};
use chrono::{TimeDelta, Utc};
use records::Kind;
use store::positions::{self, Position};
use store::{Database, partitions::Partitions};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::start_position::find_truncation;

/// Interval between checks of the stream's size. At 100,000 messages a second of 450 bytes each, a stream of 1 GiB
/// is full after 23 s.
const SIZE_EVERY: Duration = Duration::from_secs(5);
/// Interval between checks for messages older than the replay window. A few minutes more do no harm.
const WINDOW_EVERY: Duration = Duration::from_secs(60);
/// Interval between runs that create partitions. They are created days ahead, so an hour is often enough.
const PARTITIONS_EVERY: Duration = Duration::from_secs(60 * 60);
/// Interval between runs that fold roll-ups and volumes and delete expired roll-ups.
const ROLLUPS_EVERY: Duration = Duration::from_secs(60);
/// Time limit of one folding run. The rest is done in the next run.
const FOLDING_AT_MOST: Duration = Duration::from_secs(20);
/// How long roll-ups by label are kept: long enough to compare with last week and to test a rule on a month.
const ROLLUPS_KEPT: TimeDelta = TimeDelta::days(35);
/// Above this percentage of `max_bytes`, settled messages are purged before their replay window ends: rejecting a
/// producer's message is worse than a shorter replay window.
const CROWDED_PERCENT: u64 = 75;

/// Everything the background work of one kind needs.
#[derive(Debug)]
pub(crate) struct Housekeeping {
    pub(crate) kind: Kind,
    pub(crate) bus: Bus,
    pub(crate) database: Database,
    pub(crate) partitions: Arc<Partitions>,
    pub(crate) replay_window: Duration,
    pub(crate) partition_days_ahead: u32,
}

#[derive(Debug, thiserror::Error)]
enum TrimError {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error("Postgres request failed: {0}")]
    Store(#[from] store::Error),
}

impl Housekeeping {
    /// Runs until `stop` and then aborts the work in progress, so that an unanswered request cannot delay the
    /// shutdown.
    pub(crate) async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.run_tasks() => {}
        }
    }

    /// Runs every task when it is due. A task that fails is tried again at its next interval.
    async fn run_tasks(&self) {
        let window_every = WINDOW_EVERY.min(self.replay_window / 2).max(Duration::from_secs(1));
        let mut ticks = interval(SIZE_EVERY.min(window_every));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut window_due = Instant::now() + window_every;
        let mut partitions_due = Instant::now();
        let mut rollups_due = Instant::now() + ROLLUPS_EVERY;
        loop {
            ticks.tick().await;
            let by_window = Instant::now() >= window_due;
            if by_window {
                window_due = Instant::now() + window_every;
            }
            if let Err(error) = self.trim(by_window).await {
                tracing::debug!(kind = %self.kind, %error, "cannot trim the stream; will try again");
            }
            if Instant::now() >= rollups_due {
                rollups_due = Instant::now() + ROLLUPS_EVERY;
                if let Err(error) = self.fold_rollups().await {
                    tracing::debug!(kind = %self.kind, %error, "cannot fold roll-ups; will try again");
                }
                if let Err(error) = self.fold_volumes().await {
                    tracing::debug!(kind = %self.kind, %error, "cannot fold volumes; will try again");
                }
            }
            if Instant::now() >= partitions_due {
                match self.make_partitions().await {
                    Ok(()) => partitions_due = Instant::now() + PARTITIONS_EVERY,
                    Err(error) => {
                        tracing::warn!(kind = %self.kind, %error, "cannot create partitions for the coming days; will try again")
                    }
                }
            }
        }
    }

    /// Folds the roll-ups of each minute into one row and deletes those older than [`ROLLUPS_KEPT`].
    async fn fold_rollups(&self) -> store::Result<()> {
        let until = Instant::now() + FOLDING_AT_MOST;
        let mut connection = self.database.connect("rollups").await?;
        while store::rollups::fold(&mut connection, self.kind).await? > 0 && Instant::now() < until {}
        store::rollups::remove_before(&mut connection, self.kind, Utc::now() - ROLLUPS_KEPT).await?;
        Ok(())
    }

    /// Folds the volumes of each day into one row. Does nothing for kinds without a volume limit.
    async fn fold_volumes(&self) -> store::Result<()> {
        if self.kind.spec().volume.is_none() {
            return Ok(());
        }
        let until = Instant::now() + FOLDING_AT_MOST;
        let mut connection = self.database.connect("volumes").await?;
        while store::log_volumes::fold(&mut connection, self.kind).await? > 0 && Instant::now() < until {}
        Ok(())
    }

    async fn make_partitions(&self) -> store::Result<()> {
        let mut connection = self.database.connect("partitions").await?;
        self.partitions.ensure_ahead(&mut connection, self.kind, Utc::now(), self.partition_days_ahead).await
    }

    /// Purges settled messages that are older than the replay window, or that fill the stream too far.
    async fn trim(&self, by_window: bool) -> Result<(), TrimError> {
        let state = self.bus.stream_state(self.kind).await?;
        let crowded = state.max_bytes.is_some_and(|max| state.bytes > max / 100 * CROWDED_PERCENT);
        let holds_nothing = state.first_sequence > state.last_sequence;
        if holds_nothing || !(crowded || by_window) {
            return Ok(());
        }
        let Some(position) = self.agreed_position(&state).await? else { return Ok(()) };
        let mut old = if by_window { self.behind_window().await? } else { 0 };
        if crowded {
            // The newest settled message stays: only its timestamp shows whether the stream was truncated recently.
            old = old.max(position.newest.map_or(0, |(sequence, _)| sequence - 1));
        }
        let up_to = position.settled_up_to().min(old).min(state.last_sequence);
        if up_to >= state.first_sequence {
            let purged = self.bus.purge_up_to(self.kind, up_to).await?;
            tracing::debug!(stream = state.name, purged, crowded, "trimmed settled messages");
        }
        Ok(())
    }

    /// Returns the position of the stream, or `None` if stream and position disagree. Until the position is
    /// corrected, its settled sequences may belong to other messages.
    async fn agreed_position(&self, state: &StreamState) -> Result<Option<Position>, TrimError> {
        let mut connection = self.database.connect("trim").await?;
        let account = positions::find(&mut connection, &state.name).await?;
        let Some(position) = account.map(|account| account.position) else { return Ok(None) };
        let agree = position.created_at == state.created_at
            && find_truncation(&self.bus, self.kind, state, &position).await?.is_none();
        Ok(agree.then_some(position))
    }

    async fn behind_window(&self) -> Result<u64, BusError> {
        let edge = Utc::now() - self.replay_window;
        self.bus.last_sequence_before(self.kind, edge.timestamp_nanos_opt().unwrap_or_default()).await
    }
}
