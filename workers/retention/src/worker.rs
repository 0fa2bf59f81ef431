//! The life of the retention worker: wait for the lease, do what it is time for while it is held, give it up.

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

/// How often erasures are looked for: the directory asks for them at any time.
const ERASURES_EVERY: Duration = Duration::from_secs(2);
/// Erasures that are done together, between two looks at everything else.
const ERASURES_AT_ONCE: u32 = 100;
/// The errors by which the alert worker hears that days are missing for which records will come.
const NO_PARTITIONS: &str = "watchbook.partitions";
/// How long the right to act is waited for: whoever has it is at work, and the next look is not far.
const ACT_WITHIN: Duration = Duration::from_secs(1);
/// Runs that are looked at to know whether to try again.
const NEWEST: u32 = 20;

/// Removes what is too old.
#[derive(Debug)]
pub struct RetentionWorker {
    /// This process, for people.
    pub name: String,
    /// Where everything stands.
    pub database: Database,
    /// Publishes what it says of itself.
    pub publisher: Publisher,
    /// How long everything is kept.
    pub settings: Settings,
    /// How it tells how it is.
    pub health: Part,
}

impl RetentionWorker {
    /// The name of the lease: one for a database, whatever prefixes write to it, because its tables know none.
    pub const LEASE: &str = "retention";

    /// Works until `stop`. Outages are waited out; nothing but `stop` ends this.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::for_server();
        let mut failing = false;
        while !stop.is_cancelled() {
            let standing_by = || {
                tracing::info!("another process removes what is too old; standing by");
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
                        tracing::warn!(%error, "the lease on retention cannot be asked for; trying again until it can");
                    }
                    pause(backoff.next_wait(), &stop).await;
                }
            }
        }
    }

    /// Works for as long as the lease is held.
    async fn work_with(&self, lease: Lease, stop: &CancellationToken) {
        tracing::info!(schedule = self.settings.retention.schedule, "removing what is too old");
        gauge!(metrics::ACTIVE).set(1.0);
        let held = stop.child_token();
        let keeper = tokio::spawn(lease.keep(held.clone()));
        let (database, publisher) = (self.database.clone(), self.publisher.clone());
        let publisher_task = tokio::spawn(self_audit::run_publisher(database, publisher, held.clone()));
        let mut backoff = Backoff::for_server();
        let mut failing = false;
        while !held.is_cancelled() {
            let ended = tokio::select! {
                // A run in the middle of its work is cut off like that: a crash would do the same, and worse.
                () = held.cancelled() => break,
                ended = self.session() => ended,
            };
            let problem = match ended {
                Ok(()) => continue,
                Err(error) => format!("{error:#}"),
            };
            self.health.failing(problem.clone());
            if !std::mem::replace(&mut failing, true) {
                tracing::warn!(problem, "retention cannot go on; trying again until it can");
            }
            pause(backoff.next_wait(), &held).await;
        }
        held.cancel();
        // Both end by the token; a panic in one of them is reported by its own hook.
        let _ = tokio::join!(keeper, publisher_task);
        gauge!(metrics::ACTIVE).set(0.0);
    }

    /// Does what it is time for, until something fails.
    async fn session(&self) -> anyhow::Result<()> {
        let mut connection = partition_removal::session(&self.database).await?;
        let (sender, mut tasks) = mpsc::channel(TASKS_WAITING);
        // What was missed is made up for at once, whatever second it is.
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

    /// Makes a run where its time has come, was missed, or the last one has to be tried again.
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
        // Now that nobody else acts, a run without an end is one that was interrupted.
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
                // A database in which nobody has removed anything, and nothing has to be: the schedule begins here,
                // and there is no audit event to tell of.
                return Ok(run::record_empty_run(connection, &request).await?);
            }
            self.execute(&plan, &request, now).await
        };
        let done = run_lease.run_while_held(work).await;
        run_lease.release().await;
        done.unwrap_or(Ok(()))
    }

    /// Trims containers that hold more of their logs than they may.
    async fn limit_volume(&self, connection: &mut PgConnection) -> anyhow::Result<()> {
        // Looked at by who alone may act: nobody else trims the same meanwhile.
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
                tracing::info!(%run, cause = request.cause.name(), items, took_ms, "a run of retention is done");
            }
            Some(problem) => {
                tracing::error!(%run, cause = request.cause.name(), items, took_ms, problem, "a run of retention failed; it is tried again");
            }
        }
        Ok(())
    }

    /// Does the erasures that were asked for.
    async fn erase_pending(&self, connection: &mut PgConnection) -> anyhow::Result<()> {
        if erasures::pending(connection, 1).await?.is_empty() {
            return Ok(());
        }
        let Some(run_lease) = RunLease::acquire(&self.database, ACT_WITHIN).await? else { return Ok(()) };
        let work = async {
            // Whoever had the right till now may have done them.
            let pending = erasures::pending(connection, ERASURES_AT_ONCE).await?;
            let ended = erase::execute(connection, pending, |_| {}).await?;
            counter!(metrics::ERASURES).increment(ended.len() as u64);
            anyhow::Ok(())
        };
        let done = run_lease.run_while_held(work).await;
        run_lease.release().await;
        done.unwrap_or(Ok(()))
    }

    /// Makes the partitions of the coming days, for kinds that nobody writes now as well, and says so where they
    /// cannot be made: records of tomorrow would wait.
    async fn make_partitions(&self, connection: &mut PgConnection) -> anyhow::Result<()> {
        let days_ahead = self.settings.partition_days_ahead;
        let now = Utc::now();
        let tomorrow = now.checked_add_days(Days::new(1)).unwrap_or(now);
        let mut missing = Vec::new();
        for &kind in Kind::ALL {
            let Err(error) = Partitions::default().ensure_ahead(connection, kind, now, days_ahead).await else {
                continue;
            };
            // Another session may have been in the way, and made it. Every kind needs that of dead letters as well.
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
        tracing::error!(problem, "partitions for tomorrow cannot be made");
        let mut transaction = connection.begin().await?;
        self_audit::error(&mut transaction, NO_PARTITIONS, Uuid::now_v7(), &problem).await?;
        Ok(transaction.commit().await?)
    }
}

/// Looks that wait while the worker is busy: one of each kind is enough, and two do no harm.
const TASKS_WAITING: usize = 8;

async fn pause(wait: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = sleep(wait) => {}
    }
}
