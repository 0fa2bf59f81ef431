//! Sandbox executions of strategies, one by one and summed up.

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::select::{Select, known_as, midnight};
use super::{MAX_UNINDEXED_RANGE, Page, Span, StoredJson, listed_by, printable};
use crate::scoped_read::{ReadTransaction, Scope};

/// Days that trends may be asked for: as long as executions are kept by default.
pub const MAX_DAYS: u32 = 90;
/// So many executions say how a strategy is.
pub const HEALTH_OF: u32 = 100;

/// Which executions; all where nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecutionFilter {
    /// Only of this organization.
    pub organization_id: Option<String>,
    /// Only of this user.
    pub user_id: Option<String>,
    /// Only of this strategy.
    pub strategy_id: Option<String>,
    /// Only such: `VALIDATION` or `TERMINAL`.
    pub execution_type: Option<String>,
    /// Only with this end.
    pub success: Option<bool>,
}

impl ExecutionFilter {
    /// How long a time somebody may ask for; `None` where an index leads to the records, or all are meant.
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
        // To the letter, because only so the index of the failures serves it.
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
    /// Whose it is.
    pub organization_id: Option<String>,
    /// When it was done.
    pub created_at: DateTime<Utc>,
    /// When the stream took it.
    pub received_at: DateTime<Utc>,
    /// Who published it.
    pub source: Option<String>,
    /// Who executed.
    pub user_id: String,
    /// The user's name, where the directory knows it.
    pub user_name: Option<String>,
    /// The user's address, where the directory knows it.
    pub user_email: Option<String>,
    /// Which strategy.
    pub strategy_id: String,
    /// The strategy's name, where the directory knows it.
    pub strategy_name: Option<String>,
    /// `VALIDATION` or `TERMINAL`.
    pub execution_type: String,
    /// How it ended.
    pub success: bool,
    /// How long it took.
    pub execution_time_ms: i64,
    /// Memory that it took.
    pub memory_used_mb: Option<i64>,
    /// Percent of one core.
    pub cpu_usage_percent: Option<f64>,
    /// Whether it took too long.
    pub timed_out: bool,
    /// Errors that were found.
    pub error_count: i64,
    /// Warnings that were given.
    pub warning_count: i64,
    /// Classes that were found.
    pub classes_found: Option<Vec<String>>,
    /// Whatever belongs to it.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<StoredJson>,
    /// Whatever the contract has no field for.
    #[schema(value_type = Object)]
    pub attributes: StoredJson,
}
listed_by!(created_at: ExecutionRow);

/// `GET /api/executions`
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
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

/// Averages and sums. An average is absent where nothing had the value.
#[derive(Debug, Clone, PartialEq, FromRow, Serialize, ToSchema)]
pub struct ExecutionStats {
    /// How many executions.
    pub count: i64,
    /// How long they took.
    pub avg_execution_time_ms: Option<f64>,
    /// Memory that they took.
    pub avg_memory_used_mb: Option<f64>,
    /// Percent of one core.
    pub avg_cpu_usage_percent: Option<f64>,
    /// Errors that were found in all.
    pub total_errors: i64,
    /// Warnings that were given in all.
    pub total_warnings: i64,
}

/// `GET /api/executions/stats?strategy_id=`
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
pub async fn stats(
    transaction: &mut ReadTransaction,
    filter: &ExecutionFilter,
    span: &Span,
) -> crate::Result<ExecutionStats> {
    // Percentages as numerics, because two doubles can add up to more than one holds; less than 10^-20 is nothing. A
    // sum of bigints may pass bigint.
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

/// A day's executions.
#[derive(Debug, Clone, PartialEq, FromRow, Serialize, ToSchema)]
pub struct DayOfExecutions {
    /// The day, in UTC.
    pub day: NaiveDate,
    /// How many.
    pub total: i64,
    /// How many of them succeeded.
    pub successful: i64,
    /// How long they took.
    pub avg_execution_time_ms: Option<f64>,
    /// Memory that they took.
    pub avg_memory_used_mb: Option<f64>,
}

/// `GET /api/executions/trends?days=`: each of the last days, today's the last one, those without an execution as well;
/// [`MAX_DAYS`] at the most.
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
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

/// A user's executions, summed up.
#[derive(Debug, Clone, PartialEq, FromRow, Serialize, ToSchema)]
pub struct UserStats {
    /// How many.
    pub total: i64,
    /// How many of them succeeded.
    pub successful: i64,
    /// Which part of them succeeded, from 0 to 1; absent where there are none.
    pub success_rate: Option<f64>,
    /// How long they took.
    pub avg_execution_time_ms: Option<f64>,
}

/// `GET /api/users/{id}/executions/stats`
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
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

/// How a strategy is, by its newest executions: [`HEALTH_OF`] at the most.
#[derive(Debug, Clone, PartialEq, FromRow, Serialize, ToSchema)]
pub struct StrategyHealth {
    /// How many executions it is said of.
    pub total: i64,
    /// Which part of them succeeded, from 0 to 1; absent where there are none.
    pub success_rate: Option<f64>,
    /// Errors an execution.
    pub avg_errors: Option<f64>,
    /// Warnings an execution.
    pub avg_warnings: Option<f64>,
    /// When the newest of them happened that was a validation.
    pub last_validated: Option<DateTime<Utc>>,
    /// When the newest of them happened.
    pub last_executed: Option<DateTime<Utc>>,
}

/// `GET /api/strategies/{id}/health`: days are read from the newest on, until there are enough.
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
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
