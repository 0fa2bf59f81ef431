//! The retention worker: waits for the lease, and executes tasks as they become due while it holds it.

use std::time::{Duration, Instant};

use ::metrics::{counter, gauge, histogram};
use chrono::{DateTime, Days, Utc};
use publisher::Publisher;
use records::Kind;
use runtime::{Backoff, Part};
use store::partitions::{self, Partition, Partitions};
use store::retention::{self, Cause, Outcome};
use store::{Connection, Database, Lease, PgConnection, erasures, partition_removal};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::plan::{self, Action, Item, Plan};
use crate::run::{self, Request, Step};
use crate::schedule::{self, Task};
use crate::{RunLease, Settings, erase, metrics};

/// The interval between checks for pending erasures. The directory requests them at any time.
const ERASURES_EVERY: Duration = Duration::from_secs(2);
/// The maximum number of erasures that are executed together before other tasks get their turn.
const ERASURES_AT_ONCE: u32 = 100;
/// The type of the internal error record about missing partitions, which the alert worker evaluates.
const NO_PARTITIONS: &str = "watchbook.partitions";
/// How long to wait for the run lease. Its holder is at work, and the next check is soon.
const ACT_WITHIN: Duration = Duration::from_secs(1);
/// The number of newest runs that decide whether to retry.
const NEWEST: u32 = 20;

/// The worker that removes expired records.
#[derive(Debug)]
pub struct RetentionWorker {
    /// The name of this process, for people.
    pub name: String,
    /// The database.
    pub database: Database,
    /// Publishes internal records.
    pub publisher: Publisher,
    /// The settings, with how long each kind is kept.
    pub settings: Settings,
    /// Reports the readiness of this worker.
    pub health: Part,
}

impl RetentionWorker {
    /// The name of the lease. There is one per database, even if several subject prefixes write to it, because the
    /// tables have no prefix.
    pub const LEASE: &str = "retention";

    /// Runs until `stop` is cancelled. Outages are retried without limit.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::for_server();
        let mut failing = false;
        while !stop.is_cancelled() {
            let standing_by = || {
                tracing::info!("another process runs retention; standing by");
                self.health.standby();
            };
            match Lease::wait(&self.database, Self::LEASE, standing_by, &stop).await {
                Ok(Some(lease)) => {
                    backoff.reset();
                    failing = false;
                    self.work_with(lease, &stop).await;
                }
                Ok(None) => return,
                Err(error) => {
                    self.health.failing(format!("Postgres does not answer: {error}"));
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "the retention lease cannot be requested; retrying until it can");
                    }
                    pause(backoff.next_wait(), &stop).await;
                }
            }
        }
    }

    /// Works until the lease is lost or `stop` is cancelled.
    async fn work_with(&self, lease: Lease, stop: &CancellationToken) {
        tracing::info!(schedule = self.settings.retention.schedule, "running retention");
        gauge!(metrics::ACTIVE).set(1.0);
        let held = stop.child_token();
        let keeper = tokio::spawn(lease.keep(held.clone()));
        let (database, publisher) = (self.database.clone(), self.publisher.clone());
        let publisher_task = tokio::spawn(self_audit::run_publisher(database, publisher, held.clone()));
        let mut backoff = Backoff::for_server();
        let mut failing = false;
        while !held.is_cancelled() {
            let ended = tokio::select! {
                // This cancels a run in the middle of its work. A run is safe against that, as against a crash.
                () = held.cancelled() => break,
                ended = self.session() => ended,
            };
            let problem = match ended {
                Ok(()) => continue,
                Err(error) => format!("{error:#}"),
            };
            self.health.failing(problem.clone());
            if !std::mem::replace(&mut failing, true) {
                tracing::warn!(problem, "retention cannot continue; retrying until it can");
            }
            pause(backoff.next_wait(), &held).await;
        }
        held.cancel();
        // Both end with the token. The panic hook reports a panic in one of them.
        let _ = tokio::join!(keeper, publisher_task);
        gauge!(metrics::ACTIVE).set(0.0);
    }

    /// Executes tasks until one fails.
    async fn session(&self) -> anyhow::Result<()> {
        let mut connection = partition_removal::session(&self.database).await?;
        let (sender, mut tasks) = mpsc::channel(TASKS_WAITING);
        // Catch up on missed tasks at once, without waiting for the next tick of the scheduler.
        for task in [Task::Partitions, Task::Run, Task::Volume, Task::Reopen] {
            sender.try_send(task).ok();
        }
        let mut scheduler = schedule::start(sender).await?;
        let ended = self.process_tasks(&mut connection, &mut tasks).await;
        scheduler.shutdown().await.ok();
        ended
    }

    async fn process_tasks(
        &self,
        connection: &mut PgConnection,
        tasks: &mut mpsc::Receiver<Task>,
    ) -> anyhow::Result<()> {
        loop {
            self.health.active();
            let task = tokio::select! {
                task = tasks.recv() => task,
                () = sleep(ERASURES_EVERY) => None,
            };
            match task {
                Some(Task::Run) => self.run_when_due(connection).await?,
                Some(Task::Volume) => self.limit_volume(connection).await?,
                Some(Task::Partitions) => self.make_partitions(connection).await?,
                Some(Task::Reopen) => drop(erasures::reopen(connection).await?),
                None => {}
            }
            self.erase_pending(connection).await?;
        }
    }

    /// Starts a run if it is due, was missed, or the last one has to be retried or resumed.
    async fn run_when_due(&self, connection: &mut PgConnection) -> anyhow::Result<()> {
        let now = plan::now(connection).await?;
        let answered = retention::last_scheduled(connection).await?;
        let due = schedule::unanswered(&self.settings.retention, answered, now);
        let unfinished = !retention::unfinished(connection).await?.is_empty();
        let again = schedule::next_try(&retention::newest(connection, false, NEWEST).await?);
        let again = again.filter(|(_, from)| *from <= now).map(|(cause, _)| cause);
        if due.is_none() && !unfinished && again.is_none() {
            return Ok(());
        }
        let Some(run_lease) = RunLease::acquire(&self.database, ACT_WITHIN).await? else { return Ok(()) };
        // With the run lease held, no other process executes a run: a run without an end was interrupted.
        let interrupted = run::interrupt_unfinished(connection).await?;
        let again = again.or((!interrupted.is_empty()).then_some(Cause::Resume));
        let request = match (due, again) {
            (Some(due), _) => Request::of_system(schedule::cause(due, now), Some(due), &self.name),
            (None, Some(cause)) => Request::of_system(cause, None, &self.name),
            (None, None) => return Ok(()),
        };
        let work = async {
            let plan = plan::make(connection, &self.settings, now, &mut |_| {}).await?;
            if answered.is_none() && plan.changes().next().is_none() {
                // No run has been scheduled in this database yet, and nothing is expired. Record an empty run, from
                // which the schedule counts, without an audit event.
                return Ok(run::record_empty_run(connection, &request).await?);
            }
            self.execute(&plan, &request, now).await
        };
        let done = run_lease.run_while_held(work).await;
        run_lease.release().await;
        done.unwrap_or(Ok(()))
    }

    /// Trims containers whose logs exceed the limit.
    async fn limit_volume(&self, connection: &mut PgConnection) -> anyhow::Result<()> {
        // Make the plan under the run lease, so that no other process trims the same containers meanwhile.
        let Some(run_lease) = RunLease::acquire(&self.database, ACT_WITHIN).await? else { return Ok(()) };
        let work = async {
            let plan = Plan { items: plan::trims(connection, &self.settings, &[]).await? };
            if plan.changes().next().is_none() {
                return Ok(());
            }
            let request = Request::of_system(Cause::Volume, None, &self.name);
            let now = plan::now(connection).await?;
            self.execute(&plan, &request, now).await
        };
        let done = run_lease.run_while_held(work).await;
        run_lease.release().await;
        done.unwrap_or(Ok(()))
    }

    async fn execute(&self, plan: &Plan, request: &Request, now: DateTime<Utc>) -> anyhow::Result<()> {
        let started = Instant::now();
        let observer = |step: Step, item: &Item| {
            let rows = match step {
                Step::Batch { rows } => rows,
                Step::Removed if matches!(item.action, Action::Drop | Action::Rewrite) => item.rows,
                _ => 0,
            };
            counter!(metrics::ROWS, "kind" => item.kind.clone(), "action" => item.action.name()).increment(rows);
            run::no_observer(step, item)
        };
        let Some(report) = run::execute(&self.database, &self.settings, plan, request, now, &observer).await? else {
            return Ok(());
        };
        histogram!(metrics::RUN_SECONDS).record(started.elapsed().as_secs_f64());
        let outcome = if report.done { Outcome::Done } else { Outcome::Failed };
        counter!(metrics::RUNS, "cause" => request.cause.name(), "outcome" => outcome.name()).increment(1);
        let (run, items, took_ms) = (report.run, report.items.len(), started.elapsed().as_millis());
        match report.problem() {
            None => {
                gauge!(metrics::LAST_DONE).set(Utc::now().timestamp() as f64);
                tracing::info!(%run, cause = request.cause.name(), items, took_ms, "a retention run is done");
            }
            Some(problem) => {
                tracing::error!(%run, cause = request.cause.name(), items, took_ms, problem, "a run of retention failed; it is tried again");
            }
        }
        Ok(())
    }

    /// Executes pending erasures.
    async fn erase_pending(&self, connection: &mut PgConnection) -> anyhow::Result<()> {
        if erasures::pending(connection, 1).await?.is_empty() {
            return Ok(());
        }
        let Some(run_lease) = RunLease::acquire(&self.database, ACT_WITHIN).await? else { return Ok(()) };
        let work = async {
            // The previous holder of the run lease may have executed them.
            let pending = erasures::pending(connection, ERASURES_AT_ONCE).await?;
            let ended = erase::execute(connection, pending, |_| {}).await?;
            counter!(metrics::ERASURES).increment(ended.len() as u64);
            anyhow::Ok(())
        };
        let done = run_lease.run_while_held(work).await;
        run_lease.release().await;
        done.unwrap_or(Ok(()))
    }

    /// Creates the partitions of the coming days for every kind, including kinds that no writer writes now. Logs and
    /// records an error if a partition for tomorrow is missing, because tomorrow's records would have to wait for it.
    async fn make_partitions(&self, connection: &mut PgConnection) -> anyhow::Result<()> {
        let days_ahead = self.settings.partition_days_ahead;
        let now = Utc::now();
        let tomorrow = now.checked_add_days(Days::new(1)).unwrap_or(now);
        let mut missing = Vec::new();
        for &kind in Kind::ALL {
            let Err(error) = Partitions::default().ensure_ahead(connection, kind, now, days_ahead).await else {
                continue;
            };
            // The failure may be a conflict with another session, which created the partition. Every kind also needs
            // the partition of dead letters.
            for partition in [Partition::of(kind, tomorrow), Some(Partition::of_dead_letters(tomorrow))] {
                let Some(partition) = partition.filter(|_| days_ahead > 0) else { continue };
                let words = format!("{}: {error}", partition.name());
                if !partitions::exists(connection, partition).await? && !missing.contains(&words) {
                    missing.push(words);
                }
            }
        }
        gauge!(metrics::PARTITIONS_MISSING).set(missing.len() as f64);
        if missing.is_empty() {
            return Ok(());
        }
        let problem = missing.join("; ");
        tracing::error!(problem, "partitions for tomorrow cannot be created");
        let mut transaction = connection.begin().await?;
        self_audit::error(&mut transaction, NO_PARTITIONS, Uuid::now_v7(), &problem).await?;
        Ok(transaction.commit().await?)
    }
}

/// Tasks queued while the worker is busy. One of each kind is enough; two do no harm.
const TASKS_WAITING: usize = 8;

async fn pause(wait: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = sleep(wait) => {}
    }
}
