//! Sandbox executions of strategies, and their statistics.

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::select::{Select, known_as, midnight};
use super::{MAX_UNINDEXED_RANGE, Page, Span, StoredJson, listed_by, printable};
use crate::scoped_read::{ReadTransaction, Scope};

/// The maximum number of days of trends: as long as executions are kept by default.
pub const MAX_DAYS: u32 = 90;
/// The number of executions from which the health of a strategy is computed.
pub const HEALTH_OF: u32 = 100;

/// A filter for executions. `None` matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecutionFilter {
    /// The organization to match.
    pub organization_id: Option<String>,
    /// The user to match.
    pub user_id: Option<String>,
    /// The strategy to match.
    pub strategy_id: Option<String>,
    /// The type to match: `VALIDATION` or `TERMINAL`.
    pub execution_type: Option<String>,
    /// The outcome to match.
    pub success: Option<bool>,
}

impl ExecutionFilter {
    /// Returns the longest range to query; `None` if an index leads to the records, or if all are requested.
    pub fn longest(&self, scope: &Scope) -> Option<TimeDelta> {
        let is_led = self.user_id.is_some() || self.strategy_id.is_some() || self.success == Some(false);
        let is_narrowed = self.execution_type.is_some() || self.success.is_some();
        let is_of_one = self.organization_id.is_some() || *scope != Scope::All;
        (is_narrowed && !is_led && !is_of_one).then_some(MAX_UNINDEXED_RANGE)
    }

    fn add_to<'q>(&'q self, select: &mut Select<'q>, transaction: &ReadTransaction) {
        select
            .organization("organization_id", transaction, self.organization_id.as_deref())
            .and_optional("user_id = ", self.user_id.as_deref())
            .and_optional("strategy_id = ", self.strategy_id.as_deref())
            .and_optional("execution_type = ", self.execution_type.as_deref());
        // Spelled exactly like the predicate of the index of failures, which is otherwise not used.
        match self.success {
            Some(true) => select.and("success"),
            Some(false) => select.and("NOT success"),
            None => select,
        };
    }
}

/// An execution.
#[derive(Debug, Clone, FromRow, Serialize, ToSchema)]
pub struct ExecutionRow {
    /// Its id.
    pub id: Uuid,
    /// The organization that owns it; null if it belongs to the platform.
    pub organization_id: Option<String>,
    /// When it happened.
    pub created_at: DateTime<Utc>,
    /// When JetStream stored it.
    pub received_at: DateTime<Utc>,
    /// The service that published it.
    pub source: Option<String>,
    /// The user who executed the strategy.
    pub user_id: String,
    /// The user's name, if the directory has it.
    pub user_name: Option<String>,
    /// The user's email address, if the directory has it.
    pub user_email: Option<String>,
    /// The strategy.
    pub strategy_id: String,
    /// The strategy's name, if the directory has it.
    pub strategy_name: Option<String>,
    /// `VALIDATION` or `TERMINAL`.
    pub execution_type: String,
    /// Whether it succeeded.
    pub success: bool,
    /// Its duration in milliseconds.
    pub execution_time_ms: i64,
    /// The memory used, in MB.
    pub memory_used_mb: Option<i64>,
    /// CPU usage in percent of one core.
    pub cpu_usage_percent: Option<f64>,
    /// Whether it timed out.
    pub timed_out: bool,
    /// The number of errors found.
    pub error_count: i64,
    /// The number of warnings.
    pub warning_count: i64,
    /// The names of the classes found.
    pub classes_found: Option<Vec<String>>,
    /// Additional data of the execution.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<StoredJson>,
    /// Fields that the contract does not define.
    #[schema(value_type = Object)]
    pub attributes: StoredJson,
}
listed_by!(created_at: ExecutionRow);

/// Serves `GET /api/executions`.
///
/// # Errors
/// If the query fails or times out.
pub async fn list(
    transaction: &mut ReadTransaction,
    filter: &ExecutionFilter,
    page: &Page,
) -> crate::Result<Vec<ExecutionRow>> {
    let mut select = Select::of(&format!(
        "SELECT record.*, person.name AS user_name, person.email AS user_email, strategy.name AS strategy_name
           FROM (SELECT id, organization_id, created_at, received_at, source, user_id, strategy_id, execution_type, success,
                        execution_time_ms, memory_used_mb, cpu_usage_percent, timed_out, error_count, warning_count,
                        classes_found, {}, {}
                   FROM watchbook.sandbox_execution_logs",
        printable("metadata"),
        printable("attributes")
    ));
    filter.add_to(&mut select, transaction);
    select
        .on("created_at", page)
        .newest("created_at", page.limit)
        .push(") AS record")
        .push(&known_as("person", "user", "record.user_id"))
        .push(&known_as("strategy", "strategy", "record.strategy_id"))
        .push(" ORDER BY record.created_at DESC, record.id DESC")
        .all(transaction)
        .await
}

/// Averages and sums. An average is null if no execution has the value.
#[derive(Debug, Clone, PartialEq, FromRow, Serialize, ToSchema)]
pub struct ExecutionStats {
    /// The number of executions.
    pub count: i64,
    /// The average duration in milliseconds.
    pub avg_execution_time_ms: Option<f64>,
    /// The average memory used, in MB.
    pub avg_memory_used_mb: Option<f64>,
    /// The average CPU usage in percent of one core.
    pub avg_cpu_usage_percent: Option<f64>,
    /// The sum of errors found.
    pub total_errors: i64,
    /// The sum of warnings.
    pub total_warnings: i64,
}

/// Serves `GET /api/executions/stats`.
///
/// # Errors
/// If the query fails or times out.
pub async fn stats(
    transaction: &mut ReadTransaction,
    filter: &ExecutionFilter,
    span: &Span,
) -> crate::Result<ExecutionStats> {
    // Percentages are averaged as numerics, because the sum of two doubles can overflow; below 10^-20 they count as
    // zero. The sum of bigints can exceed bigint.
    let mut select = Select::of(
        "SELECT count(*) AS count, avg(execution_time_ms)::float8 AS avg_execution_time_ms,
                avg(memory_used_mb)::float8 AS avg_memory_used_mb,
                avg(round(cpu_usage_percent::numeric, 20))::float8 AS avg_cpu_usage_percent,
                least(coalesce(sum(error_count), 0), 9223372036854775807)::bigint AS total_errors,
                least(coalesce(sum(warning_count), 0), 9223372036854775807)::bigint AS total_warnings
           FROM watchbook.sandbox_execution_logs",
    );
    filter.add_to(&mut select, transaction);
    select.within("created_at", span).one(transaction).await
}

/// The executions of a day.
#[derive(Debug, Clone, PartialEq, FromRow, Serialize, ToSchema)]
pub struct DayOfExecutions {
    /// The day, in UTC.
    pub day: NaiveDate,
    /// The number of executions.
    pub total: i64,
    /// The number of successful executions.
    pub successful: i64,
    /// The average duration in milliseconds; null if there are none.
    pub avg_execution_time_ms: Option<f64>,
    /// The average memory used, in MB; null if there is none.
    pub avg_memory_used_mb: Option<f64>,
}

/// Serves `GET /api/executions/trends`: returns each of the last `days` days up to today, including days without
/// executions; at most [`MAX_DAYS`].
///
/// # Errors
/// If the query fails or times out.
pub async fn trends(
    transaction: &mut ReadTransaction,
    filter: &ExecutionFilter,
    days: u32,
    now: DateTime<Utc>,
) -> crate::Result<Vec<DayOfExecutions>> {
    let days = days.clamp(1, MAX_DAYS);
    let (first, last) = (midnight(now, days - 1), midnight(now, 0));
    let span = Span { from: first, to: last + TimeDelta::days(1) - TimeDelta::microseconds(1) };
    let mut select = Select::of(
        "SELECT (day AT TIME ZONE 'UTC')::date AS day, coalesce(total, 0) AS total,
                coalesce(successful, 0) AS successful, avg_execution_time_ms, avg_memory_used_mb
           FROM generate_series(",
    );
    select
        .bind(first)
        .push(", ")
        .bind(last)
        .begin(
            ", interval '24 hours') AS day LEFT JOIN (
                SELECT date_trunc('day', created_at, 'UTC') AS day, count(*) AS total, count(*) FILTER (WHERE success) AS successful,
                       avg(execution_time_ms)::float8 AS avg_execution_time_ms, avg(memory_used_mb)::float8 AS avg_memory_used_mb
                  FROM watchbook.sandbox_execution_logs",
        );
    filter.add_to(&mut select, transaction);
    select.within("created_at", &span).push(" GROUP BY 1) AS counted USING (day) ORDER BY day").all(transaction).await
}

/// Statistics of a user's executions.
#[derive(Debug, Clone, PartialEq, FromRow, Serialize, ToSchema)]
pub struct UserStats {
    /// The number of executions.
    pub total: i64,
    /// The number of successful executions.
    pub successful: i64,
    /// The proportion that succeeded, from 0 to 1; null if there are none.
    pub success_rate: Option<f64>,
    /// The average duration in milliseconds; null if there are none.
    pub avg_execution_time_ms: Option<f64>,
}

/// Serves `GET /api/users/{id}/executions/stats`.
///
/// # Errors
/// If the query fails or times out.
pub async fn stats_of_user(
    transaction: &mut ReadTransaction,
    user_id: &str,
    organization_id: Option<&str>,
    span: &Span,
) -> crate::Result<UserStats> {
    Select::of(
        "SELECT count(*) AS total, count(*) FILTER (WHERE success) AS successful,
                avg(success::integer)::float8 AS success_rate, avg(execution_time_ms)::float8 AS avg_execution_time_ms
           FROM watchbook.sandbox_execution_logs",
    )
    .organization("organization_id", transaction, organization_id)
    .and_optional("user_id = ", Some(user_id))
    .within("created_at", span)
    .one(transaction)
    .await
}

/// The health of a strategy, computed from its newest executions, at most [`HEALTH_OF`].
#[derive(Debug, Clone, PartialEq, FromRow, Serialize, ToSchema)]
pub struct StrategyHealth {
    /// The number of executions it is computed from.
    pub total: i64,
    /// The proportion that succeeded, from 0 to 1; null if there are none.
    pub success_rate: Option<f64>,
    /// The average number of errors per execution.
    pub avg_errors: Option<f64>,
    /// The average number of warnings per execution.
    pub avg_warnings: Option<f64>,
    /// When the newest validation among them happened.
    pub last_validated: Option<DateTime<Utc>>,
    /// When the newest of them happened.
    pub last_executed: Option<DateTime<Utc>>,
}

/// Serves `GET /api/strategies/{id}/health`: days are read from the newest on, until there are enough executions.
///
/// # Errors
/// If the query fails or times out.
pub async fn health_of_strategy(
    transaction: &mut ReadTransaction,
    strategy_id: &str,
    organization_id: Option<&str>,
    span: &Span,
) -> crate::Result<StrategyHealth> {
    Select::of(
        "SELECT count(*) AS total, avg(success::integer)::float8 AS success_rate, avg(error_count)::float8 AS avg_errors,
                avg(warning_count)::float8 AS avg_warnings, max(created_at) AS last_executed,
                max(created_at) FILTER (WHERE execution_type = 'VALIDATION') AS last_validated
           FROM (SELECT success, error_count, warning_count, execution_type, created_at FROM watchbook.sandbox_execution_logs",
    )
    .organization("organization_id", transaction, organization_id)
    .and_optional("strategy_id = ", Some(strategy_id))
    .within("created_at", span)
    .newest("created_at", HEALTH_OF)
    .push(") AS newest")
    .one(transaction)
    .await
}
