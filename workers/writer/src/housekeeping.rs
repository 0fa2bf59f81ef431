//! What a writer does beside writing: partitions ahead, settled messages trimmed.

use std::sync::Arc;
use std::time::Duration;

use bus::{Bus, BusError, StreamState};
use chrono::{TimeDelta, Utc};
use records::Kind;
use store::positions::{self, Position};
use store::{Database, partitions::Partitions};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::origin::lost_tail;

/// How often the stream's size is looked at. At 100,000 messages a second of 450 bytes a stream of
/// 1 GiB is full after 23 s.
const SIZE_EVERY: Duration = Duration::from_secs(5);
/// How often messages behind the replay window are looked for; that many minutes more do no harm.
const WINDOW_EVERY: Duration = Duration::from_secs(60);
/// How often partitions are made ahead. Days ahead, so an hour is often.
const PARTITIONS_EVERY: Duration = Duration::from_secs(60 * 60);
/// How often old roll-ups and volumes are folded and roll-ups that are too old removed.
const ROLLUPS_EVERY: Duration = Duration::from_secs(60);
/// What a turn of folding may take: the rest waits for the next one.
const FOLDING_AT_MOST: Duration = Duration::from_secs(20);
/// For how long roll-ups by label are kept: a week to compare with, and a month to try a rule on.
const ROLLUPS_KEPT: TimeDelta = TimeDelta::days(35);
/// Above this share of `max_bytes`, in percent, settled messages go before their window ends: refusing
/// a producer is worse than a shorter replay.
const CROWDED_PERCENT: u64 = 75;

/// What the housekeeping of a kind needs.
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
    #[error("Postgres does not answer: {0}")]
    Store(#[from] store::Error),
}

impl Housekeeping {
    /// Keeps house until `stop`, whatever is under way then: a question that nobody answers must not hold the process.
    pub(crate) async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.keep_house() => {}
        }
    }

    /// What fails is tried again at the next turn.
    async fn keep_house(&self) {
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
                tracing::debug!(kind = %self.kind, %error, "settled messages stay in the stream for now");
            }
            if Instant::now() >= rollups_due {
                rollups_due = Instant::now() + ROLLUPS_EVERY;
                if let Err(error) = self.fold_rollups().await {
                    tracing::debug!(kind = %self.kind, %error, "roll-ups stay as they are for now");
                }
                if let Err(error) = self.fold_volumes().await {
                    tracing::debug!(kind = %self.kind, %error, "volumes stay as they are for now");
                }
            }
            if Instant::now() >= partitions_due {
                match self.make_partitions().await {
                    Ok(()) => partitions_due = Instant::now() + PARTITIONS_EVERY,
                    Err(error) => {
                        tracing::warn!(kind = %self.kind, %error, "partitions for the coming days could not be made")
                    }
                }
            }
        }
    }

    /// Folds the roll-ups of each minute into one row, and removes those that nobody asks for any more.
    async fn fold_rollups(&self) -> store::Result<()> {
        let until = Instant::now() + FOLDING_AT_MOST;
        let mut connection = self.database.connect("rollups").await?;
        while store::rollups::fold(&mut connection, self.kind).await? > 0 && Instant::now() < until {}
        store::rollups::remove_before(&mut connection, self.kind, Utc::now() - ROLLUPS_KEPT).await?;
        Ok(())
    }

    /// Folds the volumes of each day into one row, where the kind's are bounded.
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

    /// Purges settled messages that are behind the replay window, or that crowd the stream.
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
            // The newest message stays: by it alone a stream is known that lost its tail of late.
            old = old.max(position.newest.map_or(0, |(sequence, _)| sequence - 1));
        }
        let up_to = position.settled_up_to().min(old).min(state.last_sequence);
        if up_to >= state.first_sequence {
            let purged = self.bus.purge_up_to(self.kind, up_to).await?;
            tracing::debug!(stream = state.name, purged, crowded, "settled messages were trimmed");
        }
        Ok(())
    }

    /// The position of the stream. None where the two do not agree: until the position is mended, what
    /// it calls settled may be other messages.
    async fn agreed_position(&self, state: &StreamState) -> Result<Option<Position>, TrimError> {
        let mut connection = self.database.connect("trim").await?;
        let account = positions::find(&mut connection, &state.name).await?;
        let Some(position) = account.map(|account| account.position) else { return Ok(None) };
        let agree = position.created_at == state.created_at
            && lost_tail(&self.bus, self.kind, state, &position).await?.is_none();
        Ok(agree.then_some(position))
    }

    async fn behind_window(&self) -> Result<u64, BusError> {
        let edge = Utc::now() - self.replay_window;
        self.bus.last_sequence_before(self.kind, edge.timestamp_nanos_opt().unwrap_or_default()).await
    }
}
