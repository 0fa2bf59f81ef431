//! The lifecycle of a writer: wait for the lease, write while holding it, release it.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use ::metrics::gauge;
use bus::{Bus, Window};
use chrono::TimeDelta;
use records::{Kind, limits};
use runtime::{Backoff, Config, Part};
use store::partitions::Partitions;
use store::{Database, Lease};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::batch::{Batch, Contract};
use crate::housekeeping::Housekeeping;
use crate::lane::{BatchOutcome, Lane, LaneContext};
use crate::metrics;
use crate::session::{Bounds, End, Session};
use crate::signal;
use crate::start_position;

/// A session that ran at least this long does not count as failed.
const SOUND_AFTER: Duration = Duration::from_millis(500);
/// After this many sessions that ended where they began, the message at that sequence is read on its own.
const READ_SINGLY_AFTER: u32 = 2;
/// The NATS connection is replaced after this many consecutive failures.
const RENEW_AFTER: u32 = 3;
/// Size in bytes of the largest message that a stream accepts, with its subject and headers.
const LARGEST_MESSAGE: usize = 2 * limits::MESSAGE_BYTES + 64 * 1024;

/// The limits and intervals of a writer.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Number of parallel transactions.
    pub lanes: NonZeroU32,
    /// Maximum number of rows in a batch.
    pub batch_rows: NonZeroU32,
    /// How long a lone record waits for more.
    pub linger: Duration,
    /// Maximum bytes of messages and rows that this writer holds.
    pub memory: usize,
    /// How long the kind is kept. `None` keeps it for ever.
    pub keep: Option<TimeDelta>,
    /// How long settled messages stay in the stream.
    pub replay_window: Duration,
    /// Number of days for which partitions are created ahead.
    pub partition_days_ahead: u32,
}

impl Settings {
    /// Returns the settings of one of `writers` writers that share the memory limit of this process.
    pub fn of(config: &Config, kind: Kind, writers: usize) -> Self {
        let keep = config.retention.keep.of(kind.name()).duration();
        Self {
            lanes: config.writer.lanes,
            batch_rows: config.writer.batch_rows,
            linger: config.writer.linger,
            memory: usize::try_from(config.writer.memory.as_u64()).unwrap_or(usize::MAX) / writers.max(1),
            keep: keep.and_then(|keep| TimeDelta::from_std(keep).ok()),
            replay_window: config.streams.replay_window(kind.name()),
            partition_days_ahead: config.writer.partition_days_ahead,
        }
    }

    /// Divides the writer's memory into 3 + 2 × lanes equal parts: one for messages on their way from the
    /// server, two for the batch that is gathered (messages, and rows), and two for each lane.
    ///
    /// With 96 MiB, seven writers and two lanes, a part is just under 2 MiB. A batch is full at `batch_rows`
    /// rows or at one part of bytes. It keeps its messages until it is settled, because a row that Postgres
    /// refuses becomes a dead letter with its whole message. The window is never smaller than the largest
    /// message, which could not be delivered otherwise. When all lanes are busy the writer does not read,
    /// and the server keeps the rest.
    fn bounds(&self) -> Bounds {
        let parts = 3 + 2 * self.lanes.get() as usize;
        let bytes = self.memory / parts;
        let rows = self.batch_rows.get() as usize;
        Bounds {
            rows,
            bytes,
            linger: self.linger,
            window: Window { messages: rows, bytes: bytes.max(LARGEST_MESSAGE) },
        }
    }
}

/// Writes the records of one kind.
#[derive(Debug)]
pub struct Writer {
    /// The record kind.
    pub kind: Kind,
    /// The stream to read from.
    pub bus: Bus,
    /// The database to write to.
    pub database: Database,
    /// Limits and intervals.
    pub settings: Settings,
    /// Reports the state of this writer for `/readyz`.
    pub health: Part,
}

impl Writer {
    /// Returns the name of the lease on a stream. It contains the stream's name because prefixes may share a
    /// database.
    pub fn lease_name(stream: &str) -> String {
        format!("writer {stream}")
    }

    /// Writes until `stop`. Waits out outages; only `stop` ends it.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::for_server();
        let mut failing = false;
        while !stop.is_cancelled() {
            match self.wait_for_lease(&stop).await {
                Ok(Some(lease)) => {
                    backoff.reset();
                    failing = false;
                    self.write_with(lease, &stop).await;
                }
                Ok(None) => return,
                Err(error) => {
                    self.health.failing(format!("cannot acquire the lease from Postgres: {error}"));
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(kind = %self.kind, %error, "cannot acquire the lease; retrying until it succeeds");
                    }
                    pause(backoff.next_wait(), &stop).await;
                }
            }
        }
    }

    /// Waits for the lease. Returns `None` if the process stops first.
    async fn wait_for_lease(&self, stop: &CancellationToken) -> store::Result<Option<Lease>> {
        let standing_by = || {
            tracing::info!(kind = %self.kind, "another process holds the lease; standing by");
            self.health.standby();
        };
        Lease::wait(&self.database, &Self::lease_name(&self.bus.stream_name(self.kind)), standing_by, stop).await
    }

    /// Writes as long as the lease is held.
    async fn write_with(&self, lease: Lease, stop: &CancellationToken) {
        tracing::info!(kind = %self.kind, "writing");
        gauge!(metrics::ACTIVE, "kind" => self.kind.name()).set(1.0);
        let held = stop.child_token();
        let keeper = tokio::spawn(lease.keep(held.clone()));
        let partitions = Arc::new(Partitions::default());
        let housekeeping = Housekeeping {
            kind: self.kind,
            bus: self.bus.clone(),
            database: self.database.clone(),
            partitions: partitions.clone(),
            replay_window: self.settings.replay_window,
            partition_days_ahead: self.settings.partition_days_ahead,
        };
        let housekeeper = tokio::spawn(housekeeping.run(held.clone()));
        let commits = Arc::new(Notify::new());
        let signaller = tokio::spawn(signal::raise_after(commits.clone(), self.bus.clone(), held.clone()));
        self.write_sessions(partitions, commits, &held).await;
        held.cancel();
        // All three end by the token. The panic hook has already reported a panic in one of them.
        let _ = tokio::join!(keeper, housekeeper, signaller);
        gauge!(metrics::ACTIVE, "kind" => self.kind.name()).set(0.0);
    }

    async fn write_sessions(&self, partitions: Arc<Partitions>, commits: Arc<Notify>, held: &CancellationToken) {
        let contract = Contract {
            kind: self.kind,
            prefix: self.bus.prefix().to_owned(),
            stream: self.bus.stream_name(self.kind),
            keep: self.settings.keep,
        };
        let context = Arc::new(LaneContext {
            contract: contract.clone(),
            database: self.database.clone(),
            partitions,
            health: self.health.clone(),
            commits,
            stop: held.clone(),
        });
        let mut idle: Vec<Lane> =
            (0..self.settings.lanes.get()).map(|number| Lane::new(number as u16, context.clone())).collect();
        let mut backoff = Backoff::for_server();
        let (mut last_hole, mut ended_there) = (0, 0_u32);
        let mut failures = 0_u32;
        while !held.is_cancelled() {
            let found = tokio::select! {
                // An unanswered request must not delay the shutdown.
                () = held.cancelled() => return,
                found = self.find_start_position() => found,
            };
            let start = match found {
                Ok(start) => {
                    failures = 0;
                    start
                }
                Err(error) => {
                    self.health.failing(error.to_string());
                    failures += 1;
                    if failures == 1 {
                        tracing::warn!(kind = %self.kind, %error, "cannot read the stream or its position; retrying until it succeeds");
                    }
                    // The client recovers from network failures by itself. If it does not, it may have terminated.
                    // If the server is down, renewing fails too and changes nothing.
                    if failures.is_multiple_of(RENEW_AFTER) && self.bus.renew().await.is_ok() {
                        tracing::info!(kind = %self.kind, "replaced the connection to NATS");
                    }
                    pause(backoff.next_wait(), held).await;
                    continue;
                }
            };
            // A session that made progress did not fail: a stream with many gaps ends many sessions.
            let (hole, _) = start.position.first_hole();
            ended_there = if hole == last_hole { ended_there + 1 } else { 0 };
            if hole != last_hole {
                last_hole = hole;
                backoff.reset();
            }
            if ended_there >= READ_SINGLY_AFTER && self.write_singly(&contract, &start, hole, &mut idle).await {
                continue;
            }
            let session = Session {
                bus: &self.bus,
                contract: &contract,
                start,
                bounds: self.settings.bounds(),
                health: &self.health,
                stop: held,
            };
            let opened = tokio::time::Instant::now();
            match session.run(&mut idle).await {
                End::Stopped => {}
                End::Reopen(reason) => {
                    tracing::info!(kind = %self.kind, reason, "reading again from the first unsettled sequence");
                    // A session that ran for a while did not fail: open the next one at once.
                    if opened.elapsed() > SOUND_AFTER {
                        backoff.reset();
                    }
                    pause(backoff.next_wait(), held).await;
                }
            }
        }
    }

    /// Reads the message at one sequence by request and writes it as a batch of its own. A message that ends every
    /// reader (the client fails on some bytes in a subject or header) must not block the messages after it. Returns
    /// `false` if the stream holds no such message or it could not be written.
    async fn write_singly(
        &self,
        contract: &Contract,
        start: &start_position::StartPosition,
        sequence: u64,
        idle: &mut [Lane],
    ) -> bool {
        let (Ok(Some(delivery)), Some(lane)) = (self.bus.message(self.kind, sequence).await, idle.first_mut()) else {
            return false;
        };
        tracing::warn!(kind = %self.kind, sequence, "reading failed repeatedly at this message; reading it on its own");
        let mut batch = Batch::starting_at(sequence);
        batch.push(contract, delivery);
        lane.write(&start.identity, &batch).await == BatchOutcome::Settled
    }

    async fn find_start_position(&self) -> Result<start_position::StartPosition, start_position::StartPositionError> {
        let mut connection = self.database.connect(self.kind.name()).await?;
        start_position::find(&self.bus, &mut connection, self.kind).await
    }
}

async fn pause(wait: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = sleep(wait) => {}
    }
}
