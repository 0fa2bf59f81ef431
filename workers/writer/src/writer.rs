//! The life of a writer: wait for the lease, write while it is held, give it up.

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
use crate::lane::{Ended, Lane, LaneContext};
use crate::metrics;
use crate::origin;
use crate::session::{Bounds, End, Session};
use crate::signal;

/// A session that read for so long was none that failed.
const SOUND_AFTER: Duration = Duration::from_millis(500);
/// After so many sessions that ended where they began, the message there is read by itself.
const READ_SINGLY_AFTER: u32 = 2;
/// After so many failures in a row the connection to NATS is made anew.
const RENEW_AFTER: u32 = 3;
/// The largest message that a stream takes, with its subject and headers.
const LARGEST_MESSAGE: usize = 2 * limits::MESSAGE_BYTES + 64 * 1024;

/// What a writer may use and how it behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Parallel transactions.
    pub lanes: NonZeroU32,
    /// Rows of a batch at the most.
    pub batch_rows: NonZeroU32,
    /// What a lone record waits for company.
    pub linger: Duration,
    /// Bytes of messages and rows that this writer may hold.
    pub memory: usize,
    /// How long the kind is kept; `None` for ever.
    pub keep: Option<TimeDelta>,
    /// How long settled messages stay in the stream.
    pub replay_window: Duration,
    /// Days for which partitions are made ahead.
    pub partition_days_ahead: u32,
}

impl Settings {
    /// The settings of one of `writers` writers in this process, which share its memory.
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

    /// The memory shared out: a window on its way from the server, a batch being gathered (messages and
    /// rows), and the same for each lane.
    fn bounds(&self) -> Bounds {
        let shares = 3 + 2 * self.lanes.get() as usize;
        let bytes = self.memory / shares;
        let rows = self.batch_rows.get() as usize;
        Bounds {
            rows,
            bytes,
            linger: self.linger,
            window: Window { messages: rows, bytes: bytes.max(LARGEST_MESSAGE) },
        }
    }
}

/// Writes one kind.
#[derive(Debug)]
pub struct Writer {
    /// Which.
    pub kind: Kind,
    /// Where it reads.
    pub bus: Bus,
    /// Where it writes.
    pub database: Database,
    /// How.
    pub settings: Settings,
    /// How it tells how it is.
    pub health: Part,
}

impl Writer {
    /// The name of the lease on a stream: databases and stream prefixes may be shared.
    pub fn lease_name(stream: &str) -> String {
        format!("writer {stream}")
    }

    /// Writes until `stop`. Outages are waited out; nothing but `stop` ends this.
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
                    self.health.failing(format!("Postgres does not answer: {error}"));
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(kind = %self.kind, %error, "the lease cannot be asked for; trying again until it can");
                    }
                    pause(backoff.next_wait(), &stop).await;
                }
            }
        }
    }

    /// The lease once nobody else holds it; `None` where the process stops first.
    async fn wait_for_lease(&self, stop: &CancellationToken) -> store::Result<Option<Lease>> {
        let standing_by = || {
            tracing::info!(kind = %self.kind, "another process writes; standing by");
            self.health.standby();
        };
        Lease::wait(&self.database, &Self::lease_name(&self.bus.stream_name(self.kind)), standing_by, stop).await
    }

    /// Writes for as long as the lease is held.
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
        // All end by the token; a panic in one of them is reported by its own hook.
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
                // A question that nobody answers must not hold the process.
                () = held.cancelled() => return,
                found = self.find_origin() => found,
            };
            let origin = match found {
                Ok(origin) => {
                    failures = 0;
                    origin
                }
                Err(error) => {
                    self.health.failing(error.to_string());
                    failures += 1;
                    if failures == 1 {
                        tracing::warn!(kind = %self.kind, %error, "the stream cannot be read; trying again until it can");
                    }
                    // The client heals from all that a network does. Where it does not, it may have ended
                    // itself; where the server is away, this fails as well and changes nothing.
                    if failures.is_multiple_of(RENEW_AFTER) && self.bus.renew().await.is_ok() {
                        tracing::info!(kind = %self.kind, "the connection to NATS was made anew");
                    }
                    pause(backoff.next_wait(), held).await;
                    continue;
                }
            };
            // A session that got further was no failure: a stream with many gaps ends many of them.
            let (hole, _) = origin.position.first_hole();
            ended_there = if hole == last_hole { ended_there + 1 } else { 0 };
            if hole != last_hole {
                last_hole = hole;
                backoff.reset();
            }
            if ended_there >= READ_SINGLY_AFTER && self.write_singly(&contract, &origin, hole, &mut idle).await {
                continue;
            }
            let session = Session {
                bus: &self.bus,
                contract: &contract,
                origin,
                bounds: self.settings.bounds(),
                health: &self.health,
                stop: held,
            };
            let opened = tokio::time::Instant::now();
            match session.run(&mut idle).await {
                End::Stopped => {}
                End::Reopen(reason) => {
                    tracing::info!(kind = %self.kind, reason, "reading again from the first hole");
                    // A session that held for a while was no failure: the next one opens at once.
                    if opened.elapsed() > SOUND_AFTER {
                        backoff.reset();
                    }
                    pause(backoff.next_wait(), held).await;
                }
            }
        }
    }

    /// Reads the message of one sequence by request and writes it by itself: whatever ends every reader
    /// at this message (bytes in a subject or header on which the client gives up) must not stop what
    /// comes behind it. `false` where the stream holds no such message or it could not be written.
    async fn write_singly(
        &self,
        contract: &Contract,
        origin: &origin::Origin,
        sequence: u64,
        idle: &mut [Lane],
    ) -> bool {
        let (Ok(Some(delivery)), Some(lane)) = (self.bus.message(self.kind, sequence).await, idle.first_mut()) else {
            return false;
        };
        tracing::warn!(kind = %self.kind, sequence, "reading ended at this message again and again; it is taken by itself");
        let mut batch = Batch::starting_at(sequence);
        batch.push(contract, delivery);
        lane.write(&origin.identity, &batch).await == Ended::Settled
    }

    async fn find_origin(&self) -> Result<origin::Origin, origin::OriginError> {
        let mut connection = self.database.connect(self.kind.name()).await?;
        origin::find(&self.bus, &mut connection, self.kind).await
    }
}

async fn pause(wait: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = sleep(wait) => {}
    }
}
