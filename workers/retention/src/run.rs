//! A run: from its row in `watchbook.retention_runs` to the audit record that tells how it ended.

use archive::Archive;
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use self_audit::AuditEvent;
use serde::Serialize;
use serde_json::json;
use store::partition_removal::{self, DayPartition};
use store::partitions::State;
use store::retention::{self, Cause, NewRun, Outcome, Run};
use store::{Connection, Database, Dataset, Failure, PgConnection};
use uuid::Uuid;

use crate::Settings;
use crate::item::Work;
pub use crate::item::{ItemError, Observer, Step, no_observer};
use crate::plan::{Action, Item, Plan};
use crate::row_deletion::RowDeletion;

/// The errors by which the alert worker hears of a run that failed.
const FAILED: &str = "watchbook.retention";

/// How an item ended.
#[derive(Debug, Clone, Serialize)]
pub struct ItemReport {
    /// The item.
    #[serde(flatten)]
    pub item: Item,
    /// Why it was not done.
    pub problem: Option<String>,
}

/// How a run ended.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The run.
    pub run: Uuid,
    /// Whether all of it was done.
    pub done: bool,
    /// Its items, in their order.
    pub items: Vec<ItemReport>,
}

impl Report {
    /// What failed, in one text.
    pub fn problem(&self) -> Option<String> {
        let failed: Vec<_> =
            self.items.iter().filter_map(|report| Some((&report.item, report.problem.as_ref()?))).collect();
        let (item, problem) = failed.first()?;
        let day = item.day.map(|day| format!(" {day}")).unwrap_or_default();
        let more = if failed.len() > 1 { format!("; and {} more", failed.len() - 1) } else { String::new() };
        Some(format!("{}{day}: {problem}{more}", item.kind))
    }
}

/// Why a run is made, and by whom.
#[derive(Debug, Clone)]
pub struct Request {
    /// Why.
    pub cause: Cause,
    /// Which time of the schedule it answers.
    pub scheduled_for: Option<DateTime<Utc>>,
    /// Who asked for it.
    pub actor_id: String,
    /// Which process executes it.
    pub process: String,
}

impl Request {
    /// For a time that came, or a limit that was passed: nobody asked.
    pub(crate) fn of_system(cause: Cause, scheduled_for: Option<DateTime<Utc>>, process: &str) -> Self {
        Self { cause, scheduled_for, actor_id: self_audit::SYSTEM.to_owned(), process: process.to_owned() }
    }

    /// The run that answers it, under an id of its own.
    fn new_run(&self, plan: &Plan) -> NewRun {
        NewRun {
            id: Uuid::now_v7(),
            cause: self.cause,
            scheduled_for: self.scheduled_for,
            actor_id: self.actor_id.clone(),
            process: self.process.clone(),
            // A plan is plain data: it always is JSON.
            planned: serde_json::to_value(plan).unwrap_or_default(),
        }
    }
}

/// Writes that a time of the schedule is answered, with nothing that was to be done.
///
/// # Errors
/// Where Postgres does not answer.
pub(crate) async fn record_empty_run(connection: &mut PgConnection, request: &Request) -> store::Result<()> {
    let new = request.new_run(&Plan { items: Vec::new() });
    let mut transaction = connection.begin().await?;
    if retention::begin(&mut transaction, &new).await? {
        retention::end(&mut transaction, new.id, Outcome::Done, None).await?;
    }
    transaction.commit().await
}

/// Executes a plan. `None` where its time of the schedule was answered by somebody else meanwhile. The caller has the
/// right to act ([`RunLease`]).
///
/// # Errors
/// Where Postgres does not answer, so that not even the end of the run could be written; whoever acts next does it.
pub async fn execute(
    database: &Database,
    settings: &Settings,
    plan: &Plan,
    request: &Request,
    now: DateTime<Utc>,
    observer: Observer<'_>,
) -> store::Result<Option<Report>> {
    let mut connection = partition_removal::session(database).await?;
    interrupt_unfinished(&mut connection).await?;
    let new = request.new_run(plan);
    let run = new.id;
    if !retention::begin(&mut connection, &new).await? {
        return Ok(None);
    }
    if request.cause == Cause::Volume {
        retention::forget_volume_runs(&mut connection).await?;
    } else {
        clean_up(&mut connection, plan).await?;
    }
    let archive = open_archive(settings, plan).await;
    let mut report = Report { run, done: true, items: Vec::with_capacity(plan.items.len()) };
    let mut outage = None;
    // A table that somebody reads for longer than a day waits keeps its other days from going as well.
    let mut busy: Vec<&str> = Vec::new();
    for (position, item) in plan.items.iter().enumerate() {
        let problem = match &outage {
            Some(problem) => Some(format!("not begun: {problem}")),
            None if is_archived(item) && busy.contains(&item.kind.as_str()) => {
                Some("not begun: somebody reads its table".to_owned())
            }
            None => {
                observer(Step::Begun, item).await;
                let position = i32::try_from(position).unwrap_or(i32::MAX);
                let work = Work {
                    connection: &mut connection,
                    settings,
                    archive: &archive,
                    run,
                    position,
                    item,
                    observer,
                    now,
                };
                match run_item(work).await {
                    Ok(()) => None,
                    Err(error) => {
                        let words = error.to_string();
                        let is_outage = matches!(error, ItemError::Store(_)) && !answers(&mut connection).await;
                        if matches!(error, ItemError::Busy(_)) {
                            busy.push(&item.kind);
                        }
                        if is_outage {
                            outage = Some(words.clone());
                        }
                        tracing::warn!(kind = item.kind, day = ?item.day, problem = words, "an item of retention failed");
                        Some(words)
                    }
                }
            }
        };
        report.done &= problem.is_none();
        report.items.push(ItemReport { item: item.clone(), problem });
    }
    if outage.is_some() {
        // What failed may be the connection itself.
        connection = partition_removal::session(database).await?;
    }
    let outcome = if report.done { Outcome::Done } else { Outcome::Failed };
    end(&mut connection, run, outcome, report.problem().as_deref(), &request.actor_id).await?;
    Ok(Some(report))
}

/// Boxed, because the future of a run is large, and is a part of those of the worker and the commands.
fn run_item(work: Work<'_>) -> BoxFuture<'_, Result<(), ItemError>> {
    match work.item.action {
        Action::Keep => Box::pin(std::future::ready(Ok(()))),
        Action::Drop | Action::Rewrite => Box::pin(work.remove_partition()),
        Action::Delete | Action::Trim | Action::Thin => Box::pin(RowDeletion::of(work).execute()),
    }
}

/// Whether a day is taken out of its table for an item: one that is rewritten keeps its place.
const fn detaches(item: &Item) -> bool {
    matches!(item.action, Action::Drop)
}

/// Whether a day goes, or a part of it, that has to be in the archive.
const fn is_archived(item: &Item) -> bool {
    matches!(item.action, Action::Drop | Action::Rewrite)
}

/// The archive, where the plan drops something that has to be in it first.
async fn open_archive(settings: &Settings, plan: &Plan) -> Result<Option<Archive>, String> {
    let drops = plan.items.iter().any(is_archived);
    let Some(location) = settings.retention.archive.as_deref().filter(|_| drops) else { return Ok(None) };
    let archive = Archive::open(location).map_err(|error| error.to_string())?;
    archive.check().await.map_err(|error| error.to_string())?;
    Ok(Some(archive))
}

/// Whether Postgres answers: what failed was the item's fault then, and the others can be done.
async fn answers(connection: &mut PgConnection) -> bool {
    store::clock(connection).await.is_ok()
}

/// Puts right what an earlier run left behind: copies, and days that it took out and this one leaves. What cannot be put
/// right now, because somebody is in the way, waits for the next run.
async fn clean_up(connection: &mut PgConnection, plan: &Plan) -> store::Result<()> {
    for dataset in Dataset::all() {
        tolerate_contention(
            partition_removal::drop_copies(connection, dataset).await,
            "a copy of what is held is left",
        )?;
        let tables = partition_removal::tables(connection, dataset).await?;
        for day in partition_removal::list(connection, dataset).await? {
            if day.state == State::Detached && tables.iter().any(|table| is_in_place_of(table, &day)) {
                tracing::warn!(partition = %day.name, "a day that was taken out has been made anew since; see `watchbook doctor`");
                continue;
            }
            let goes =
                |item: &Item| detaches(item) && item.dataset() == Some(dataset) && item.day == Some(day.first_day());
            if day.state != State::Attached && !plan.items.iter().any(goes) {
                tolerate_contention(
                    reattach(connection, &day).await,
                    "a day that was taken out cannot be put back now",
                )?;
            }
        }
    }
    Ok(())
}

/// Whether another table takes what a day took before it was taken out.
fn is_in_place_of(table: &DayPartition, day: &DayPartition) -> bool {
    table.state != State::Detached && table.starts_at < day.ends_at && table.ends_at > day.starts_at
}

async fn reattach(connection: &mut PgConnection, day: &DayPartition) -> store::Result<()> {
    partition_removal::lock(connection, day.dataset).await?;
    let back = partition_removal::reattach(connection, day).await;
    partition_removal::unlock(connection, day.dataset).await?;
    back?;
    tracing::info!(partition = %day.name, "put back: it was taken out by a run that did not end");
    Ok(())
}

fn tolerate_contention(done: store::Result<()>, words: &str) -> store::Result<()> {
    match done {
        Err(error) if Failure::of(&error) == Failure::Contention => {
            tracing::warn!(%error, "{words}");
            Ok(())
        }
        done => done,
    }
}

/// Writes of runs without an end that they were interrupted. Only for who has the right to act: nobody else does.
///
/// # Errors
/// Where Postgres does not answer.
pub(crate) async fn interrupt_unfinished(connection: &mut PgConnection) -> store::Result<Vec<Run>> {
    let unfinished = retention::unfinished(connection).await?;
    for run in &unfinished {
        let problem = format!("the process {} ended before the run did", run.process);
        end(connection, run.id, Outcome::Interrupted, Some(&problem), &run.actor_id).await?;
        tracing::warn!(run = %run.id, problem, "a run of retention was interrupted");
    }
    Ok(unfinished)
}

/// Writes how a run ended, and tells of it.
async fn end(
    connection: &mut PgConnection,
    run: Uuid,
    outcome: Outcome,
    problem: Option<&str>,
    actor_id: &str,
) -> store::Result<()> {
    let mut transaction = connection.begin().await?;
    if !retention::end(&mut transaction, run, outcome, problem).await? {
        return transaction.rollback().await;
    }
    let Some(ended) = retention::find(&mut transaction, run).await? else { return transaction.rollback().await };
    let event = AuditEvent {
        organization_id: None,
        actor_id,
        action: "retention.run",
        target_type: "retention_run",
        target_id: run.to_string(),
        reason: Some(&ended.cause),
        problem,
        metadata: json!({ "outcome": outcome.name(), "rows": ended.rows, "bytes": ended.bytes, "items": ended.items }),
        ..AuditEvent::default()
    };
    self_audit::audit(&mut transaction, &event).await?;
    // An interruption is resumed at once; what fails is somebody's business.
    if let (Outcome::Failed, Some(problem)) = (outcome, problem) {
        self_audit::error(&mut transaction, FAILED, run, problem).await?;
    }
    transaction.commit().await
}
