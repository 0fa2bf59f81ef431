//! A run, from its row in `watchbook.retention_runs` to the audit event about its outcome.

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

/// The type of the internal error record about a failed run, which the alert worker evaluates.
const FAILED: &str = "watchbook.retention";

/// The outcome of an item.
#[derive(Debug, Clone, Serialize)]
pub struct ItemReport {
    /// The item.
    #[serde(flatten)]
    pub item: Item,
    /// The reason why it was not done; `None` if it was.
    pub problem: Option<String>,
}

/// The outcome of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The id of the run.
    pub run: Uuid,
    /// Whether all items were done.
    pub done: bool,
    /// The items, in the order of the plan.
    pub items: Vec<ItemReport>,
}

impl Report {
    /// Returns the first problem and the number of further ones as one text; `None` if no item failed.
    pub fn problem(&self) -> Option<String> {
        let failed: Vec<_> =
            self.items.iter().filter_map(|report| Some((&report.item, report.problem.as_ref()?))).collect();
        let (item, problem) = failed.first()?;
        let day = item.day.map(|day| format!(" {day}")).unwrap_or_default();
        let more = if failed.len() > 1 { format!("; and {} more", failed.len() - 1) } else { String::new() };
        Some(format!("{}{day}: {problem}{more}", item.kind))
    }
}

/// A request for a run: its cause and its actor.
#[derive(Debug, Clone)]
pub struct Request {
    /// The cause of the run.
    pub cause: Cause,
    /// The scheduled time that the run serves, if any.
    pub scheduled_for: Option<DateTime<Utc>>,
    /// The actor that requested the run.
    pub actor_id: String,
    /// The name of the process that executes the run.
    pub process: String,
}

impl Request {
    /// Returns a request by the system itself: for a scheduled time, a retry, or an exceeded limit.
    pub(crate) fn of_system(cause: Cause, scheduled_for: Option<DateTime<Utc>>, process: &str) -> Self {
        Self { cause, scheduled_for, actor_id: self_audit::SYSTEM.to_owned(), process: process.to_owned() }
    }

    /// Returns the run for this request, with a new id.
    fn new_run(&self, plan: &Plan) -> NewRun {
        NewRun {
            id: Uuid::now_v7(),
            cause: self.cause,
            scheduled_for: self.scheduled_for,
            actor_id: self.actor_id.clone(),
            process: self.process.clone(),
            // A plan is plain data and always serializes.
            planned: serde_json::to_value(plan).unwrap_or_default(),
        }
    }
}

/// Records a run without items for a scheduled time at which nothing had to be removed.
///
/// # Errors
/// If a statement fails.
pub(crate) async fn record_empty_run(connection: &mut PgConnection, request: &Request) -> store::Result<()> {
    let new = request.new_run(&Plan { items: Vec::new() });
    let mut transaction = connection.begin().await?;
    if retention::begin(&mut transaction, &new).await? {
        retention::end(&mut transaction, new.id, Outcome::Done, None).await?;
    }
    transaction.commit().await
}

/// Executes a plan. Returns `None` if another process has begun the run for the same scheduled time. The caller holds
/// the [`RunLease`](crate::RunLease).
///
/// # Errors
/// If Postgres does not answer, so that not even the end of the run could be recorded. The next holder of the run lease
/// records it.
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
    // If detaching a day timed out because of a reader of its table, the table's other days would time out too.
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
        // The connection itself may have failed.
        connection = partition_removal::session(database).await?;
    }
    let outcome = if report.done { Outcome::Done } else { Outcome::Failed };
    end(&mut connection, run, outcome, report.problem().as_deref(), &request.actor_id).await?;
    Ok(Some(report))
}

/// Executes an item. The future is boxed because it is large and part of the futures of the worker and the commands.
fn run_item(work: Work<'_>) -> BoxFuture<'_, Result<(), ItemError>> {
    match work.item.action {
        Action::Keep => Box::pin(std::future::ready(Ok(()))),
        Action::Drop | Action::Rewrite => Box::pin(work.remove_partition()),
        Action::Delete | Action::Trim | Action::Thin => Box::pin(RowDeletion::of(work).execute()),
    }
}

/// Returns whether the item detaches a day. A rewritten day stays attached.
const fn detaches(item: &Item) -> bool {
    matches!(item.action, Action::Drop)
}

/// Returns whether the item removes a day or a part of it that has to be archived first.
const fn is_archived(item: &Item) -> bool {
    matches!(item.action, Action::Drop | Action::Rewrite)
}

/// Opens the archive, if one is configured and the plan removes something that has to be archived first.
async fn open_archive(settings: &Settings, plan: &Plan) -> Result<Option<Archive>, String> {
    let drops = plan.items.iter().any(is_archived);
    let Some(location) = settings.retention.archive.as_deref().filter(|_| drops) else { return Ok(None) };
    let archive = Archive::open(location).map_err(|error| error.to_string())?;
    archive.check().await.map_err(|error| error.to_string())?;
    Ok(Some(archive))
}

/// Returns whether Postgres answers. If it does, the failure concerns one item, and the others can be done.
async fn answers(connection: &mut PgConnection) -> bool {
    store::clock(connection).await.is_ok()
}

/// Cleans up after earlier runs: drops copies, and reattaches detached days that this plan does not remove. If another
/// session is in the way, the next run tries again.
async fn clean_up(connection: &mut PgConnection, plan: &Plan) -> store::Result<()> {
    for dataset in Dataset::all() {
        tolerate_contention(
            partition_removal::drop_copies(connection, dataset).await,
            "a copy of held rows cannot be dropped now",
        )?;
        let tables = partition_removal::tables(connection, dataset).await?;
        for day in partition_removal::list(connection, dataset).await? {
            if day.state == State::Detached && tables.iter().any(|table| is_in_place_of(table, &day)) {
                tracing::warn!(partition = %day.name, "a detached day has been created again since; see `watchbook doctor`");
                continue;
            }
            let goes =
                |item: &Item| detaches(item) && item.dataset() == Some(dataset) && item.day == Some(day.first_day());
            if day.state != State::Attached && !plan.items.iter().any(goes) {
                tolerate_contention(reattach(connection, &day).await, "a detached day cannot be reattached now")?;
            }
        }
    }
    Ok(())
}

/// Returns whether an attached table covers a part of the time of a detached day.
fn is_in_place_of(table: &DayPartition, day: &DayPartition) -> bool {
    table.state != State::Detached && table.starts_at < day.ends_at && table.ends_at > day.starts_at
}

async fn reattach(connection: &mut PgConnection, day: &DayPartition) -> store::Result<()> {
    partition_removal::lock(connection, day.dataset).await?;
    let back = partition_removal::reattach(connection, day).await;
    partition_removal::unlock(connection, day.dataset).await?;
    back?;
    tracing::info!(partition = %day.name, "reattached a day that was detached by a run that did not end");
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

/// Records runs without an end as interrupted, and returns them. The caller holds the run lease, so none of them is
/// still being executed.
///
/// # Errors
/// If a statement fails.
pub(crate) async fn interrupt_unfinished(connection: &mut PgConnection) -> store::Result<Vec<Run>> {
    let unfinished = retention::unfinished(connection).await?;
    for run in &unfinished {
        let problem = format!("the process {} ended before the run did", run.process);
        end(connection, run.id, Outcome::Interrupted, Some(&problem), &run.actor_id).await?;
        tracing::warn!(run = %run.id, problem, "a retention run was interrupted");
    }
    Ok(unfinished)
}

/// Records the outcome of a run, with its audit event, and an error record if it failed. Does nothing if the run has
/// ended already.
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
    // An interrupted run is resumed at once; a failed one needs a person.
    if let (Outcome::Failed, Some(problem)) = (outcome, problem) {
        self_audit::error(&mut transaction, FAILED, run, problem).await?;
    }
    transaction.commit().await
}
