//! Runs of retention, and what each did.

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

/// Why a run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its time had come.
    Schedule,
    /// Its time had come while nobody was there.
    Missed,
    /// The one before it failed.
    Retry,
    /// The one before it was interrupted.
    Resume,
    /// A container holds more of its logs than it may.
    Volume,
    /// Somebody asked for it.
    Command,
}

impl Cause {
    /// Its name in the table.
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

/// A run that begins.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Its id.
    pub id: Uuid,
    /// Why it begins.
    pub cause: Cause,
    /// Which time of the schedule it answers.
    pub scheduled_for: Option<DateTime<Utc>>,
    /// Who asked for it; `system` where nobody did.
    pub actor_id: String,
    /// Which process executes it.
    pub process: String,
    /// What it is going to do.
    pub planned: Value,
}

/// A run as it is kept.
#[derive(Debug, Clone, FromRow, Serialize, utoipa::ToSchema)]
#[schema(as = RetentionRun)]
pub struct Run {
    /// Its id.
    pub id: Uuid,
    /// Why it began.
    pub cause: String,
    /// Which time of the schedule it answered.
    pub scheduled_for: Option<DateTime<Utc>>,
    /// Who asked for it.
    pub actor_id: String,
    /// Which process executed it.
    pub process: String,
    /// `running`, `done`, `failed` or `interrupted`.
    pub outcome: String,
    /// What failed.
    pub problem: Option<String>,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// Rows that it removed.
    pub rows: i64,
    /// Bytes that it freed, as far as they are known.
    pub bytes: i64,
    /// Days and other items that it dealt with.
    pub items: i64,
}

const RUNS: &str = "SELECT run.id, run.cause, run.scheduled_for, run.actor_id, run.process, run.outcome, run.problem,
           run.started_at, run.ended_at, coalesce(sum(action.rows), 0)::bigint AS rows,
           coalesce(sum(action.bytes), 0)::bigint AS bytes, count(action.run_id) AS items
      FROM watchbook.retention_runs AS run LEFT JOIN watchbook.retention_actions AS action ON action.run_id = run.id";

/// Writes that a run begins. `false` where its time of the schedule is answered already.
///
/// # Errors
/// Where the statement fails.
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

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It did all that was planned.
    Done,
    /// Something of it failed.
    Failed,
    /// Its process ended before it did.
    Interrupted,
}

impl Outcome {
    /// Its name in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Writes how a run ended. `false` where somebody wrote that before.
///
/// # Errors
/// Where the statement fails.
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

/// Runs that have no end. Whoever alone may act knows that they are interrupted.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn unfinished(connection: &mut PgConnection) -> crate::Result<Vec<Run>> {
    sqlx::query_as(&format!("{RUNS} WHERE run.outcome = 'running' GROUP BY run.id ORDER BY run.started_at"))
        .fetch_all(connection)
        .await
}

/// One run.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn find(connection: &mut PgConnection, id: Uuid) -> crate::Result<Option<Run>> {
    sqlx::query_as(&format!("{RUNS} WHERE run.id = $1 GROUP BY run.id")).bind(id).fetch_optional(connection).await
}

/// The newest runs, `limit` at the most. Those on account of volume alone only where `volume_too`.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn newest(connection: &mut PgConnection, volume_too: bool, limit: u32) -> crate::Result<Vec<Run>> {
    sqlx::query_as(&format!(
        "{RUNS} WHERE $1 OR run.cause <> 'volume' GROUP BY run.id ORDER BY run.started_at DESC LIMIT $2"
    ))
    .bind(volume_too)
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await
}

/// The newest time of the schedule that was answered.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn last_scheduled(connection: &mut PgConnection) -> crate::Result<Option<DateTime<Utc>>> {
    sqlx::query_scalar("SELECT max(scheduled_for) FROM watchbook.retention_runs WHERE scheduled_for IS NOT NULL")
        .fetch_one(connection)
        .await
}

/// For how long runs are remembered that only kept containers within their limit: they may come every ten minutes.
const VOLUME_RUNS_KEPT: &str = "interval '90 days'";

/// Forgets runs on account of volume that are too old to be of interest.
///
/// # Errors
/// Where a statement fails.
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

/// What a run did with one item of its plan.
#[derive(Debug, Clone, PartialEq, FromRow, Serialize)]
pub struct Action {
    /// The item's place in the plan, from 0.
    pub position: i32,
    /// What it was about.
    pub kind: String,
    /// Of which day.
    pub day: Option<NaiveDate>,
    /// What was done.
    pub action: String,
    /// Rows that are gone.
    pub rows: i64,
    /// Bytes that they took.
    pub bytes: i64,
    /// Rows that stay because of a hold.
    pub kept_rows: i64,
    /// The manifest of the copy that was made before.
    pub archived: Option<Value>,
    /// How long it took, in milliseconds.
    pub took_ms: i64,
}

/// Writes what a run did, in the transaction that does it. Of an item that is done piece by piece rows, bytes and
/// times add up.
///
/// # Errors
/// Where the statement fails.
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

/// What a run did, in the order of its plan.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn actions(connection: &mut PgConnection, run: Uuid) -> crate::Result<Vec<Action>> {
    sqlx::query_as(
        "SELECT position, kind, day, action, rows, bytes, kept_rows, archived, took_ms
           FROM watchbook.retention_actions WHERE run_id = $1 ORDER BY position",
    )
    .bind(run)
    .fetch_all(connection)
    .await
}
