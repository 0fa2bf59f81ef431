//! Retention runs and their actions.

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

/// The cause of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A time of the schedule.
    Schedule,
    /// A time of the schedule that passed while no worker ran.
    Missed,
    /// The previous run failed.
    Retry,
    /// The previous run was interrupted.
    Resume,
    /// A container exceeded its log volume limit.
    Volume,
    /// A command.
    Command,
}

impl Cause {
    /// Returns the name in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Missed => "missed",
            Self::Retry => "retry",
            Self::Resume => "resume",
            Self::Volume => "volume",
            Self::Command => "command",
        }
    }
}

/// A run to start.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Id.
    pub id: Uuid,
    /// Cause.
    pub cause: Cause,
    /// The time of the schedule that it runs for.
    pub scheduled_for: Option<DateTime<Utc>>,
    /// Who started it; `system` for the worker.
    pub actor_id: String,
    /// Process that executes it.
    pub process: String,
    /// The plan.
    pub planned: Value,
}

/// A stored run.
#[derive(Debug, Clone, FromRow, Serialize, utoipa::ToSchema)]
#[schema(as = RetentionRun)]
pub struct Run {
    /// Id.
    pub id: Uuid,
    /// Cause: `schedule`, `missed`, `retry`, `resume`, `volume` or `command`.
    pub cause: String,
    /// The time of the schedule that it ran for.
    pub scheduled_for: Option<DateTime<Utc>>,
    /// Who started it; `system` for the worker.
    pub actor_id: String,
    /// Process that executed it.
    pub process: String,
    /// `running`, `done`, `failed` or `interrupted`.
    pub outcome: String,
    /// Problem, if it failed.
    pub problem: Option<String>,
    /// Start time.
    pub started_at: DateTime<Utc>,
    /// End time.
    pub ended_at: Option<DateTime<Utc>>,
    /// Number of rows removed.
    pub rows: i64,
    /// Bytes freed, as far as known.
    pub bytes: i64,
    /// Number of items executed.
    pub items: i64,
}

const RUNS: &str = "SELECT run.id, run.cause, run.scheduled_for, run.actor_id, run.process, run.outcome, run.problem,
           run.started_at, run.ended_at, coalesce(sum(action.rows), 0)::bigint AS rows,
           coalesce(sum(action.bytes), 0)::bigint AS bytes, count(action.run_id) AS items
      FROM watchbook.retention_runs AS run LEFT JOIN watchbook.retention_actions AS action ON action.run_id = run.id";

/// Inserts a run. Returns `false` if there is a run for its time of the schedule already.
///
/// # Errors
/// If the statement fails.
pub async fn begin(connection: &mut PgConnection, run: &NewRun) -> crate::Result<bool> {
    let begun = sqlx::query(
        "INSERT INTO watchbook.retention_runs
                (id, cause, scheduled_for, actor_id, process, outcome, planned, started_at)
         VALUES ($1, $2, $3, $4, $5, 'running', $6, clock_timestamp())
             ON CONFLICT DO NOTHING",
    )
    .bind(run.id)
    .bind(run.cause.name())
    .bind(run.scheduled_for)
    .bind(&run.actor_id)
    .bind(&run.process)
    .bind(&run.planned)
    .execute(connection)
    .await?;
    Ok(begun.rows_affected() == 1)
}

/// The outcome of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All items were executed.
    Done,
    /// At least one item failed.
    Failed,
    /// The process ended during the run.
    Interrupted,
}

impl Outcome {
    /// Returns the name in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Stores the outcome of a run. Returns `false` if it has one already.
///
/// # Errors
/// If the statement fails.
pub async fn end(
    transaction: &mut PgConnection,
    run: Uuid,
    outcome: Outcome,
    problem: Option<&str>,
) -> crate::Result<bool> {
    let ended = sqlx::query(
        "UPDATE watchbook.retention_runs SET outcome = $2, problem = $3, ended_at = clock_timestamp()
          WHERE id = $1 AND outcome = 'running'",
    )
    .bind(run)
    .bind(outcome.name())
    .bind(problem)
    .execute(transaction)
    .await?;
    Ok(ended.rows_affected() == 1)
}

/// Returns runs without an outcome. For the holder of the lease, these are interrupted runs.
///
/// # Errors
/// If the query fails.
pub async fn unfinished(connection: &mut PgConnection) -> crate::Result<Vec<Run>> {
    sqlx::query_as(&format!("{RUNS} WHERE run.outcome = 'running' GROUP BY run.id ORDER BY run.started_at"))
        .fetch_all(connection)
        .await
}

/// Returns one run.
///
/// # Errors
/// If the query fails.
pub async fn find(connection: &mut PgConnection, id: Uuid) -> crate::Result<Option<Run>> {
    sqlx::query_as(&format!("{RUNS} WHERE run.id = $1 GROUP BY run.id")).bind(id).fetch_optional(connection).await
}

/// Returns the newest runs, at most `limit`. Includes runs with the cause `volume` only if `volume_too`.
///
/// # Errors
/// If the query fails.
pub async fn newest(connection: &mut PgConnection, volume_too: bool, limit: u32) -> crate::Result<Vec<Run>> {
    sqlx::query_as(&format!(
        "{RUNS} WHERE $1 OR run.cause <> 'volume' GROUP BY run.id ORDER BY run.started_at DESC LIMIT $2"
    ))
    .bind(volume_too)
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await
}

/// Returns the latest time of the schedule that has a run.
///
/// # Errors
/// If the query fails.
pub async fn last_scheduled(connection: &mut PgConnection) -> crate::Result<Option<DateTime<Utc>>> {
    sqlx::query_scalar("SELECT max(scheduled_for) FROM watchbook.retention_runs WHERE scheduled_for IS NOT NULL")
        .fetch_one(connection)
        .await
}

/// How long runs with the cause `volume` are kept. There may be one every ten minutes.
const VOLUME_RUNS_KEPT: &str = "interval '90 days'";

/// Removes runs with the cause `volume` that are older than 90 days.
///
/// # Errors
/// If a statement fails.
pub async fn forget_volume_runs(connection: &mut PgConnection) -> crate::Result<()> {
    sqlx::query(&format!(
        "WITH old AS (DELETE FROM watchbook.retention_runs
                       WHERE cause = 'volume' AND started_at < now() - {VOLUME_RUNS_KEPT} RETURNING id)
         DELETE FROM watchbook.retention_actions WHERE run_id IN (SELECT id FROM old)"
    ))
    .execute(connection)
    .await?;
    Ok(())
}

/// The execution of one item of a plan.
#[derive(Debug, Clone, PartialEq, FromRow, Serialize)]
pub struct Action {
    /// Index of the item in the plan, from 0.
    pub position: i32,
    /// Kind or other dataset.
    pub kind: String,
    /// First day of the partition.
    pub day: Option<NaiveDate>,
    /// Action.
    pub action: String,
    /// Number of rows removed.
    pub rows: i64,
    /// Bytes freed.
    pub bytes: i64,
    /// Number of rows kept by holds.
    pub kept_rows: i64,
    /// Manifest of the archived copy.
    pub archived: Option<Value>,
    /// Duration in milliseconds.
    pub took_ms: i64,
}

/// Records an action. Call it in the transaction that executes it. For an item executed in batches, rows, bytes and
/// durations add up.
///
/// # Errors
/// If the statement fails.
pub async fn record(transaction: &mut PgConnection, run: Uuid, action: &Action) -> crate::Result<()> {
    sqlx::query(
        "INSERT INTO watchbook.retention_actions AS known
                (run_id, position, kind, day, action, rows, bytes, kept_rows, archived, took_ms, at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, clock_timestamp())
             ON CONFLICT (run_id, position) DO UPDATE
            SET rows = known.rows + excluded.rows, bytes = known.bytes + excluded.bytes,
                took_ms = known.took_ms + excluded.took_ms, at = excluded.at",
    )
    .bind(run)
    .bind(action.position)
    .bind(&action.kind)
    .bind(action.day)
    .bind(&action.action)
    .bind(action.rows)
    .bind(action.bytes)
    .bind(action.kept_rows)
    .bind(&action.archived)
    .bind(action.took_ms)
    .execute(transaction)
    .await?;
    Ok(())
}

/// Returns the actions of a run, in the order of its plan.
///
/// # Errors
/// If the query fails.
pub async fn actions(connection: &mut PgConnection, run: Uuid) -> crate::Result<Vec<Action>> {
    sqlx::query_as(
        "SELECT position, kind, day, action, rows, bytes, kept_rows, archived, took_ms
           FROM watchbook.retention_actions WHERE run_id = $1 ORDER BY position",
    )
    .bind(run)
    .fetch_all(connection)
    .await
}
