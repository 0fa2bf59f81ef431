//! A lane: a writer connection on which batches are committed one after the other.
//!
//! The fast path copies the rows straight into their table. If that fails, the error decides what follows: a
//! duplicate sends the batch down the slow path, a bad row is isolated by bisection, and an outage is waited out. A
//! batch is only abandoned at shutdown, and then none of it is settled.

use std::sync::Arc;
use std::time::Duration;

use ::metrics::{counter, histogram};
use chrono::Utc;
use records::Conflict;
use records::rollup::Rollup;
use runtime::{Backoff, Part};
use store::dead_letters::{self, DeadLetter};
use store::partitions::{Partition, Partitions};
use store::positions::{self, Settlement, StreamIdentity};
use store::{Connection, Database, Failure, PgConnection};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::batch::{Batch, Contract};
use crate::metrics;

/// Contention goes away by itself within milliseconds.
const CONTENTION_FIRST_WAIT: Duration = Duration::from_millis(5);
const CONTENTION_LONGEST_WAIT: Duration = Duration::from_millis(500);

/// After a batch with duplicates, this many batches take the slow path before COPY is tried again.
const MERGES_AFTER_DUPLICATES: u32 = 16;

/// Time limit of one transaction, which normally takes well below a second. Beyond this the connection is dead
/// without an error, or waits for a lock. The guard in `positions::settle` makes another attempt harmless.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// Time left for a running transaction once the writer has to stop. It lies within the budget of the whole
/// shutdown.
const LAST_ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The state that all lanes of a writer share.
#[derive(Debug)]
pub(crate) struct LaneContext {
    pub(crate) contract: Contract,
    pub(crate) database: Database,
    pub(crate) partitions: Arc<Partitions>,
    pub(crate) health: Part,
    /// Notified of each commit that stored rows.
    pub(crate) commits: Arc<Notify>,
    /// Cancelled when the process stops. A batch that cannot be committed by then is left to the next writer.
    pub(crate) stop: CancellationToken,
}

#[derive(Debug)]
pub(crate) struct Lane {
    number: u16,
    context: Arc<LaneContext>,
    connection: Option<PgConnection>,
    /// Number of coming batches that take the slow path at once, because a recent one had duplicates.
    merges_ahead: u32,
}

/// The outcome of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BatchOutcome {
    /// The batch is settled.
    Settled,
    /// Another writer had settled a part of it, or the stream was recreated.
    Overtaken,
    /// The process stops and Postgres did not commit in time. Nothing of the batch is settled.
    Abandoned,
}

/// The way the rows of a batch are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriteMode {
    /// COPY straight into the table: all rows are new.
    Copy,
    /// Merge through a temporary table: some rows are duplicates.
    Merge,
    /// Merge by bisection until the bad rows are alone.
    Isolate,
}

impl Lane {
    pub(crate) fn new(number: u16, context: Arc<LaneContext>) -> Self {
        Self { number, context, connection: None, merges_ahead: 0 }
    }

    /// Commits a batch, and retries until it is settled, overtaken, or the process stops.
    pub(crate) async fn write(&mut self, stream: &StreamIdentity, batch: &Batch) -> BatchOutcome {
        let kind = self.context.contract.kind;
        let mut mode = if self.merges_ahead > 0 { WriteMode::Merge } else { WriteMode::Copy };
        let mut outage = Backoff::for_server();
        let mut contention = Backoff::new(CONTENTION_FIRST_WAIT, CONTENTION_LONGEST_WAIT);
        let mut failing = false;
        loop {
            let started = Instant::now();
            let stop = self.context.stop.clone();
            let attempt = tokio::select! {
                ended = timeout(ANSWER_WITHIN, self.attempt(stream, batch, mode)) => ended.unwrap_or_else(|_| Err(timed_out())),
                () = overdue(&stop) => {
                    self.connection = None;
                    return BatchOutcome::Abandoned;
                }
            };
            let error = match attempt {
                Ok(Some(settlement)) => {
                    self.learn(mode, &settlement);
                    self.count(batch, &settlement, started.elapsed());
                    return BatchOutcome::Settled;
                }
                Ok(None) => return BatchOutcome::Overtaken,
                Err(error) => error,
            };
            let wait = match (Failure::of(&error), mode) {
                (Failure::Duplicate, WriteMode::Copy) => {
                    mode = WriteMode::Merge;
                    continue;
                }
                (Failure::BadRow, WriteMode::Copy | WriteMode::Merge) => {
                    mode = WriteMode::Isolate;
                    continue;
                }
                (Failure::MissingPartition, _) => {
                    self.context.partitions.forget();
                    contention.next_wait()
                }
                (Failure::Contention | Failure::Duplicate, _) => contention.next_wait(),
                // A bad row that bisection did not find is a bug. Waiting loses nothing, and the failure shows in
                // `/readyz`.
                (Failure::Outage | Failure::BadRow, _) => {
                    self.connection = None;
                    self.context.health.failing(format!("cannot commit batches to Postgres: {error}"));
                    if !failing {
                        tracing::warn!(%kind, first = batch.first(), last = batch.last(), %error, "cannot commit a batch to Postgres; retrying until it succeeds");
                        failing = true;
                    }
                    outage.next_wait()
                }
            };
            tokio::select! {
                () = self.context.stop.cancelled() => return BatchOutcome::Abandoned,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Runs one transaction: rows, dead letters, roll-ups, and last the settled range. Returns `None` if it was
    /// rolled back because another writer settled the range first.
    async fn attempt(
        &mut self,
        stream: &StreamIdentity,
        batch: &Batch,
        mode: WriteMode,
    ) -> store::Result<Option<Settlement>> {
        let context = self.context.clone();
        let (contract, kind) = (&context.contract, context.contract.kind);
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(context.database.connect(kind.name()).await?),
        };
        // Partitions are created before the transaction, so that it holds no DDL lock.
        let failed_at = Utc::now();
        context.partitions.ensure(connection, Partition::of_dead_letters(failed_at)).await?;
        for partition in batch.partitions(kind) {
            context.partitions.ensure(connection, partition).await?;
        }
        let mut transaction = connection.begin().await?;
        let mut letters: Vec<DeadLetter<'_>> = batch.refused(contract).collect();
        let rollup = match mode {
            _ if batch.row_count() == 0 => Rollup::new(kind),
            WriteMode::Copy => {
                store::batch::copy(&mut transaction, kind, batch.rows(0, batch.row_count())).await?;
                batch.rollup(kind)
            }
            WriteMode::Merge => {
                let new = store::batch::merge(&mut transaction, kind, batch.rows(0, batch.row_count())).await?;
                batch.rollup_of(kind, &new)
            }
            WriteMode::Isolate => {
                let new = isolate(&mut transaction, contract, batch, &mut letters).await?;
                batch.rollup_of(kind, &new)
            }
        };
        dead_letters::insert(&mut transaction, &letters, failed_at).await?;
        let stored = rollup.rows();
        let settlement = Settlement {
            first: batch.first(),
            last: batch.last(),
            newest: batch.newest(),
            stored,
            duplicates: batch.messages() as u64 - letters.len() as u64 - stored,
            dead_letters: letters.len() as u64,
            deleted: batch.deleted(),
        };
        let counts = rollup.finish();
        store::rollups::add(&mut transaction, kind, &counts.minutes).await?;
        store::log_volumes::add(&mut transaction, kind, &counts.volumes).await?;
        let outcomes = store::outcomes::of(kind, &counts.minutes);
        store::outcomes::add(&mut transaction, kind, self.number, &outcomes).await?;
        if !positions::settle(&mut transaction, stream, &settlement).await? {
            transaction.rollback().await?;
            return Ok(None);
        }
        transaction.commit().await?;
        Ok(Some(settlement))
    }

    /// Decides which path the next batches take. Duplicates come in runs (a replay, a producer that retries), and
    /// then a COPY that fails first is wasted. So the slow path is taken at once until it finds no duplicate. For
    /// kinds that keep the newest record an update counts as stored, so finding none proves nothing; there the slow
    /// path is taken for a fixed number of batches.
    fn learn(&mut self, mode: WriteMode, settlement: &Settlement) {
        let all_new =
            settlement.duplicates == 0 && matches!(self.context.contract.kind.spec().conflict, Conflict::KeepFirst);
        self.merges_ahead = match mode {
            WriteMode::Copy => 0,
            _ if all_new => 0,
            _ if settlement.duplicates > 0 || self.merges_ahead == 0 => MERGES_AFTER_DUPLICATES,
            _ => self.merges_ahead - 1,
        };
    }

    fn count(&self, batch: &Batch, settlement: &Settlement, took: Duration) {
        let kind = self.context.contract.kind.name();
        for (outcome, number) in [
            ("stored", settlement.stored),
            ("duplicate", settlement.duplicates),
            ("dead_letter", settlement.dead_letters),
            ("deleted", settlement.deleted),
        ] {
            counter!(metrics::MESSAGES, "kind" => kind, "outcome" => outcome).increment(number);
        }
        histogram!(metrics::BATCH_ROWS, "kind" => kind).record(batch.row_count() as f64);
        histogram!(metrics::BATCH_COMMIT, "kind" => kind).record(took.as_secs_f64());
        self.context.health.progressed();
        if settlement.stored > 0 {
            self.context.commits.notify_one();
        }
    }
}

/// Resolves [`LAST_ANSWER_WITHIN`] after the writer was told to stop.
async fn overdue(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(LAST_ANSWER_WITHIN).await;
}

fn timed_out() -> store::Error {
    let words = format!("no answer from Postgres within {} s", ANSWER_WITHIN.as_secs());
    store::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, words))
}

/// Merges the rows by bisection until each bad row is alone, and turns those into dead letters. Each half has its
/// own savepoint, so an error in one does not undo the other.
async fn isolate<'b>(
    transaction: &mut PgConnection,
    contract: &'b Contract,
    batch: &'b Batch,
    letters: &mut Vec<DeadLetter<'b>>,
) -> store::Result<Vec<store::batch::RecordKey>> {
    let mut new = Vec::new();
    let mut ranges = vec![(0, batch.row_count())];
    while let Some((from, to)) = ranges.pop() {
        let mut savepoint = transaction.begin().await?;
        let error = match store::batch::merge(&mut savepoint, contract.kind, batch.rows(from, to)).await {
            Ok(keys) => {
                savepoint.commit().await?;
                new.extend(keys);
                continue;
            }
            Err(error) => error,
        };
        savepoint.rollback().await?;
        if Failure::of(&error) != Failure::BadRow {
            return Err(error);
        }
        if to - from == 1 {
            letters.extend(batch.rejected_by_database(contract, from, &store::describe(&error)));
            continue;
        }
        let middle = from + (to - from) / 2;
        // The first half is merged first, so that the first of two equal records is kept.
        ranges.push((middle, to));
        ranges.push((from, middle));
    }
    Ok(new)
}
