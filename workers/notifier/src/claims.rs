//! A notifier's conversation with Postgres: what it claims, and the outcomes that are still to be written.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::io;
use std::time::Duration;

use ::metrics::{counter, gauge, histogram};
use store::outbox::{self, Bounds, Claimed, Written};
use store::{Database, PgConnection};
use tokio::time::{Instant, timeout};

use crate::metrics;
use crate::notifier::Settings;
use crate::outcome::Outcome;
use crate::retry;

/// A statement that takes longer than this is on a connection that is gone.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Under way to one receiver: enough for a fast one, and no storm for one that has just come back.
const PER_RECEIVER: u32 = 8;
/// How long what was delivered can be looked up.
const KEEP_DELIVERED: Duration = Duration::from_secs(7 * 86_400);
/// How long what was given up is shown.
const KEEP_FAILED: Duration = Duration::from_secs(90 * 86_400);
/// Rows removed by one statement: few, because deliveries wait meanwhile.
const REMOVED_AT_ONCE: u32 = 1_000;
/// How often old rows are looked for.
const REMOVE_EVERY: Duration = Duration::from_secs(3_600);
/// How often the gauges are set. The question reads what is open and what failed.
const COUNT_EVERY: Duration = Duration::from_secs(30);

/// A try that is over, until its outcome is written.
#[derive(Debug)]
pub(crate) struct Tried {
    pub(crate) claim: Claimed,
    pub(crate) outcome: Outcome,
    pub(crate) took: Duration,
}

/// What of a notifier concerns Postgres.
#[derive(Debug)]
pub(crate) struct Claims {
    name: String,
    database: Database,
    connection: Option<PgConnection>,
    settings: Settings,
    unwritten: VecDeque<Tried>,
    remove_at: Instant,
    count_at: Instant,
    /// Receivers with a gauge, which must fall to zero once nothing is left of them.
    counted: BTreeSet<String>,
}

impl Claims {
    pub(crate) fn new(name: String, database: Database, settings: Settings) -> Self {
        let (remove_at, count_at) = (Instant::now(), Instant::now());
        let (unwritten, counted) = (VecDeque::new(), BTreeSet::new());
        Self { name, database, connection: None, settings, unwritten, remove_at, count_at, counted }
    }

    /// Remembers an outcome until it is written.
    pub(crate) fn ended(&mut self, tried: Tried) {
        self.unwritten.push_back(tried);
    }

    /// Forgets the connection: after an error nobody knows what it is in the middle of.
    pub(crate) fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Writes the outcomes of all tries that are over, in their order. What is not written stays for the next time.
    pub(crate) async fn write(&mut self) -> store::Result<()> {
        while let Some(tried) = self.unwritten.front() {
            let (claim, name, settings) = (&tried.claim, self.name.as_str(), &self.settings);
            let connection = open(&mut self.connection, &self.database).await?;
            let written = match &tried.outcome {
                Outcome::Delivered => answered(outbox::delivered(connection, name, claim)).await?,
                Outcome::Retry { after, problem } => {
                    let wait = retry::wait(claim.attempts, *after);
                    let within = settings.deliver_within;
                    answered(outbox::retry_at(connection, name, claim, wait, within, problem)).await?
                }
                Outcome::GiveUp { problem } => answered(outbox::give_up(connection, name, claim, problem)).await?,
            };
            report(tried, written);
            self.unwritten.pop_front();
        }
        Ok(())
    }

    /// Claims at most `free` rows, beside what is under way to the receivers `under_way`.
    pub(crate) async fn claim(&mut self, free: u32, under_way: &[String]) -> store::Result<Vec<Claimed>> {
        let bounds = Bounds { rows: free, per_receiver: PER_RECEIVER, under_way, lease: self.settings.lease };
        let connection = open(&mut self.connection, &self.database).await?;
        let claimed = answered(outbox::claim(connection, &self.name, bounds)).await?;
        // Who was ever told has gauges, of zero as well: that nothing waits is a figure too.
        self.counted.extend(claimed.iter().map(|claim| claim.receiver.clone()));
        Ok(claimed)
    }

    /// Lets go of all claims whose outcome is not written.
    pub(crate) async fn release(&mut self) -> store::Result<u64> {
        let connection = open(&mut self.connection, &self.database).await?;
        answered(outbox::release(connection, &self.name)).await
    }

    /// Removes old rows and sets the gauges, each when it is time.
    pub(crate) async fn keep_house(&mut self) -> store::Result<()> {
        let now = Instant::now();
        if now >= self.remove_at {
            let connection = open(&mut self.connection, &self.database).await?;
            let removing = outbox::remove_old(connection, KEEP_DELIVERED, KEEP_FAILED, REMOVED_AT_ONCE);
            let removed = answered(removing).await?;
            // A full batch says that there is more: the next turn takes it.
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

/// Waits for a statement, and takes silence for an outage.
async fn answered<T>(statement: impl Future<Output = store::Result<T>>) -> store::Result<T> {
    timeout(ANSWER_WITHIN, statement).await.unwrap_or_else(|_| {
        let silence = format!("no answer within {} s", ANSWER_WITHIN.as_secs());
        Err(store::Error::Io(io::Error::new(io::ErrorKind::TimedOut, silence)))
    })
}

/// Logs and counts an outcome once it is written. Problems hold no secrets: receivers see to that.
fn report(tried: &Tried, written: Written) {
    let Claimed { id, receiver, attempts, .. } = &tried.claim;
    let problem = match &tried.outcome {
        Outcome::Delivered => "",
        Outcome::Retry { problem, .. } | Outcome::GiveUp { problem } => problem,
    };
    let outcome = match (&tried.outcome, written) {
        (_, Written::NotOurs) => {
            tracing::info!(receiver, %id, attempts, "the claim was over before its outcome could be written");
            "not_ours"
        }
        (Outcome::Delivered, _) => {
            let delay = tried.claim.age_seconds + tried.took.as_secs_f64();
            histogram!(metrics::DELAY_SECONDS).record(delay);
            tracing::debug!(receiver, %id, attempts, delay, "delivered");
            "delivered"
        }
        (_, Written::Later(due_at)) => {
            // The first time is news; the tries after it say the same for a day.
            if *attempts == 1 {
                tracing::warn!(receiver, %id, problem, %due_at, "a notification could not be delivered; trying again");
            } else {
                tracing::debug!(receiver, %id, attempts, problem, %due_at, "a notification could not be delivered again");
            }
            "retry"
        }
        (_, Written::Done | Written::GivenUp) => {
            tracing::error!(receiver, %id, attempts, problem, "a notification is given up; it is kept and shown");
            "given_up"
        }
    };
    counter!(metrics::TRIES, "receiver" => receiver.clone(), "outcome" => outcome).increment(1);
    histogram!(metrics::TRY_SECONDS).record(tried.took.as_secs_f64());
}
