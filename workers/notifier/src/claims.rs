//! The notifier's side of the outbox: the rows it has claimed, and the outcomes not yet written to Postgres.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::io;
use std::time::Duration;

use ::metrics::{counter, gauge, histogram};
use store::outbox::{self, Bounds, ClaimUpdate, Claimed};
use store::{Database, PgConnection};
use tokio::time::{Instant, timeout};

use crate::metrics;
use crate::notifier::Settings;
use crate::outcome::Outcome;
use crate::retry;

/// Time limit of a statement. Beyond it the connection is considered dead.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Maximum number of concurrent deliveries to one receiver: enough for a fast receiver, and no flood for one that
/// has just recovered.
const PER_RECEIVER: u32 = 8;
/// How long delivered notifications are kept.
const KEEP_DELIVERED: Duration = Duration::from_secs(7 * 86_400);
/// How long failed notifications are kept and shown.
const KEEP_FAILED: Duration = Duration::from_secs(90 * 86_400);
/// Number of rows deleted by one statement. It is small because deliveries wait meanwhile.
const REMOVED_AT_ONCE: u32 = 1_000;
/// Interval between deletions of old rows.
const REMOVE_EVERY: Duration = Duration::from_secs(3_600);
/// Interval between updates of the gauges. The query reads the pending and the failed rows.
const COUNT_EVERY: Duration = Duration::from_secs(30);

/// A finished delivery attempt whose outcome is not yet written.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) claim: Claimed,
    pub(crate) outcome: Outcome,
    pub(crate) took: Duration,
}

/// The claims and outcomes of a notifier, and its connection to Postgres.
#[derive(Debug)]
pub(crate) struct Claims {
    name: String,
    database: Database,
    connection: Option<PgConnection>,
    settings: Settings,
    unwritten: VecDeque<Attempt>,
    remove_at: Instant,
    count_at: Instant,
    /// Receivers that have a gauge. The gauge must drop to zero when no rows of the receiver are left.
    counted: BTreeSet<String>,
}

impl Claims {
    pub(crate) fn new(name: String, database: Database, settings: Settings) -> Self {
        let (remove_at, count_at) = (Instant::now(), Instant::now());
        let (unwritten, counted) = (VecDeque::new(), BTreeSet::new());
        Self { name, database, connection: None, settings, unwritten, remove_at, count_at, counted }
    }

    /// Keeps an outcome until it is written.
    pub(crate) fn ended(&mut self, attempt: Attempt) {
        self.unwritten.push_back(attempt);
    }

    /// Drops the connection, because its state is unknown after an error.
    pub(crate) fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Writes the outcomes of all finished attempts, in order. Outcomes that could not be written are kept for the
    /// next call.
    pub(crate) async fn write(&mut self) -> store::Result<()> {
        while let Some(attempt) = self.unwritten.front() {
            let (claim, name, settings) = (&attempt.claim, self.name.as_str(), &self.settings);
            let connection = open(&mut self.connection, &self.database).await?;
            let written = match &attempt.outcome {
                Outcome::Delivered => answered(outbox::delivered(connection, name, claim)).await?,
                Outcome::Retry { after, problem } => {
                    let wait = retry::wait(claim.attempts, *after);
                    let within = settings.deliver_within;
                    answered(outbox::retry_at(connection, name, claim, wait, within, problem)).await?
                }
                Outcome::GiveUp { problem } => answered(outbox::give_up(connection, name, claim, problem)).await?,
            };
            report(attempt, written);
            self.unwritten.pop_front();
        }
        Ok(())
    }

    /// Claims at most `free` rows. `under_way` names the receiver of each delivery in progress, and counts towards
    /// the limit per receiver.
    pub(crate) async fn claim(&mut self, free: u32, under_way: &[String]) -> store::Result<Vec<Claimed>> {
        let bounds = Bounds { rows: free, per_receiver: PER_RECEIVER, under_way, lease: self.settings.lease };
        let connection = open(&mut self.connection, &self.database).await?;
        let claimed = answered(outbox::claim(connection, &self.name, bounds)).await?;
        // A receiver that was ever notified keeps its gauges, with zero when nothing is pending.
        self.counted.extend(claimed.iter().map(|claim| claim.receiver.clone()));
        Ok(claimed)
    }

    /// Releases all claims whose outcome is not written. Returns their number.
    pub(crate) async fn release(&mut self) -> store::Result<u64> {
        let connection = open(&mut self.connection, &self.database).await?;
        answered(outbox::release(connection, &self.name)).await
    }

    /// Deletes old rows and updates the gauges, each at its interval.
    pub(crate) async fn maintain(&mut self) -> store::Result<()> {
        let now = Instant::now();
        if now >= self.remove_at {
            let connection = open(&mut self.connection, &self.database).await?;
            let removing = outbox::remove_old(connection, KEEP_DELIVERED, KEEP_FAILED, REMOVED_AT_ONCE);
            let removed = answered(removing).await?;
            // A full batch means that more rows are left: continue at the next call.
            self.remove_at = if removed == u64::from(REMOVED_AT_ONCE) { now } else { now + REMOVE_EVERY };
        }
        if now >= self.count_at {
            self.count().await?;
            self.count_at = now + COUNT_EVERY;
        }
        Ok(())
    }

    async fn count(&mut self) -> store::Result<()> {
        let connection = open(&mut self.connection, &self.database).await?;
        let summary = answered(outbox::summary(connection)).await?;
        let set = |receiver: &str, pending: i64, oldest: f64, failed: i64| {
            gauge!(metrics::PENDING, "receiver" => receiver.to_owned()).set(pending as f64);
            gauge!(metrics::OLDEST_PENDING, "receiver" => receiver.to_owned()).set(oldest);
            gauge!(metrics::FAILED, "receiver" => receiver.to_owned()).set(failed as f64);
        };
        for receiver in &self.counted {
            if !summary.iter().any(|row| row.receiver == *receiver) {
                set(receiver, 0, 0.0, 0);
            }
        }
        for row in summary {
            set(&row.receiver, row.pending, row.oldest_pending_seconds.unwrap_or_default(), row.failed);
            self.counted.insert(row.receiver);
        }
        Ok(())
    }
}

async fn open<'c>(
    connection: &'c mut Option<PgConnection>,
    database: &Database,
) -> store::Result<&'c mut PgConnection> {
    let opened = match connection.take() {
        Some(open) => open,
        None => database.connect("notifier").await?,
    };
    Ok(connection.insert(opened))
}

/// Runs a statement with a time limit, and treats a missing answer as an outage.
async fn answered<T>(statement: impl Future<Output = store::Result<T>>) -> store::Result<T> {
    timeout(ANSWER_WITHIN, statement).await.unwrap_or_else(|_| {
        let silence = format!("no answer from Postgres within {} s", ANSWER_WITHIN.as_secs());
        Err(store::Error::Io(io::Error::new(io::ErrorKind::TimedOut, silence)))
    })
}

/// Logs and counts an outcome after it was written. `problem` contains no secrets: the receivers remove them.
fn report(attempt: &Attempt, written: ClaimUpdate) {
    let Claimed { id, receiver, attempts, .. } = &attempt.claim;
    let problem = match &attempt.outcome {
        Outcome::Delivered => "",
        Outcome::Retry { problem, .. } | Outcome::GiveUp { problem } => problem,
    };
    let outcome = match (&attempt.outcome, written) {
        (_, ClaimUpdate::NotOurs) => {
            tracing::info!(receiver, %id, attempts, "the claim expired before its outcome was written");
            "not_ours"
        }
        (Outcome::Delivered, _) => {
            let delay = attempt.claim.age_seconds + attempt.took.as_secs_f64();
            histogram!(metrics::DELAY_SECONDS).record(delay);
            tracing::debug!(receiver, %id, attempts, delay, "delivered");
            "delivered"
        }
        (_, ClaimUpdate::Later(due_at)) => {
            // Only the first failure is logged as a warning. The retries would repeat it for a day.
            if *attempts == 1 {
                tracing::warn!(receiver, %id, problem, %due_at, "cannot deliver a notification; will retry");
            } else {
                tracing::debug!(receiver, %id, attempts, problem, %due_at, "cannot deliver a notification; will retry");
            }
            "retry"
        }
        (_, ClaimUpdate::Done | ClaimUpdate::Failed) => {
            tracing::error!(receiver, %id, attempts, problem, "a notification failed permanently; it is kept and shown as failed");
            "given_up"
        }
    };
    counter!(metrics::TRIES, "receiver" => receiver.clone(), "outcome" => outcome).increment(1);
    histogram!(metrics::TRY_SECONDS).record(attempt.took.as_secs_f64());
}
