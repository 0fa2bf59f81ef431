//! `GET /api/executions`: sandbox executions, their statistics and trends, and statistics of users and strategies.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use chrono::Utc;
use records::Kind;
use serde::Serialize;
use store::queries::executions::{
    self, DayOfExecutions, ExecutionFilter, ExecutionRow, ExecutionStats, MAX_DAYS, StrategyHealth, UserStats,
};
use utoipa::ToSchema;

use super::listing::{TimeLimits, list, run_query};
use crate::app::App;
use crate::auth::Caller;
use crate::page::{List, Page, Range};
use crate::problem::Problem;
use crate::query::{FromQuery, Parameters, Query, path_text};

/// The default number of days of trends.
const DEFAULT_DAYS: u32 = 7;

/// Filters for executions.
#[derive(Debug, Clone, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Return only executions of this user.
    #[param(min_length = 1, max_length = 256)]
    user_id: Option<String>,
    /// Return only executions of this strategy.
    #[param(min_length = 1, max_length = 256)]
    strategy_id: Option<String>,
    /// Return only executions of this type: `VALIDATION` or `TERMINAL`.
    #[param(pattern = "^(VALIDATION|TERMINAL)$")]
    execution_type: Option<String>,
    /// Return only executions that succeeded (`true`), or only those that failed (`false`).
    success: Option<bool>,
    #[param(ignore)]
    page: Page,
}

/// Filters for the executions that the statistics cover.
#[derive(Debug, Clone, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StatsParams {
    /// Count only executions of this strategy.
    #[param(min_length = 1, max_length = 256)]
    strategy_id: Option<String>,
    #[param(ignore)]
    range: Range,
}

/// The days and filters of trends.
#[derive(Debug, Clone, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct TrendParams {
    /// The number of days; the last one is today. At most 8 for all organizations together, unless a strategy is
    /// given.
    #[param(minimum = 1, maximum = 90, default = 7, value_type = Option<u32>)]
    days: u32,
    /// Count only executions of this strategy.
    #[param(min_length = 1, max_length = 256)]
    strategy_id: Option<String>,
    /// Count only executions of this organization. The result is empty if the caller may not see it.
    #[param(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    organization_id: Option<String>,
}

impl FromQuery for ListParams {
    fn from_query(parameters: &mut Parameters) -> Self {
        Self {
            user_id: parameters.text("user_id"),
            strategy_id: parameters.text("strategy_id"),
            execution_type: parameters.one_of("execution_type", &["VALIDATION", "TERMINAL"]).map(str::to_owned),
            success: parameters.flag("success"),
            page: Page::from_query(parameters),
        }
    }
}

impl FromQuery for StatsParams {
    fn from_query(parameters: &mut Parameters) -> Self {
        Self { strategy_id: parameters.text("strategy_id"), range: Range::from_query(parameters) }
    }
}

impl FromQuery for TrendParams {
    fn from_query(parameters: &mut Parameters) -> Self {
        Self {
            days: parameters.number("days", 1..=MAX_DAYS).unwrap_or(DEFAULT_DAYS),
            strategy_id: parameters.text("strategy_id"),
            organization_id: parameters.text("organization_id"),
        }
    }
}

/// Executions by day.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Trends {
    /// The days in chronological order, including days without executions.
    items: Vec<DayOfExecutions>,
}

/// Lists executions, newest first, with the names of users and strategies from the directory.
///
/// The default range is the last 90 days. The longest range is 7 days if only a type or success is given.
#[utoipa::path(get, path = "/api/executions", params(ListParams, Page), responses(
    (status = 200, description = "A page of executions.", body = List<ExecutionRow>),
))]
pub(crate) async fn list_executions(
    State(app): State<App>,
    caller: Caller,
    Query(params): Query<ListParams>,
) -> Result<Json<List<ExecutionRow>>, Problem> {
    let ListParams { user_id, strategy_id, execution_type, success, page } = params;
    let organization_id = page.organization_id.clone();
    let filter = ExecutionFilter { organization_id, user_id, strategy_id, execution_type, success };
    let limits = TimeLimits::of(Kind::Executions, filter.longest(&page.scope(&caller)?));
    let query = async |transaction: &mut _, page: &_| executions::list(transaction, &filter, page).await;
    list(&app, &caller, "/api/executions", &page, limits, query).await
}

/// Returns the number of executions, averages of time, memory and CPU, and sums of errors and warnings.
///
/// The default range is the last 90 days.
#[utoipa::path(get, path = "/api/executions/stats", params(StatsParams, Range), responses(
    (status = 200, description = "Statistics. Averages are null if there are no values.", body = ExecutionStats),
))]
pub(crate) async fn execution_stats(
    State(app): State<App>,
    caller: Caller,
    Query(StatsParams { strategy_id, range }): Query<StatsParams>,
) -> Result<Json<ExecutionStats>, Problem> {
    let scope = range.scope(&caller)?;
    let span = TimeLimits::of(Kind::Executions, None).span(&range)?;
    let filter = ExecutionFilter { organization_id: range.organization_id, strategy_id, ..ExecutionFilter::default() };
    run_query(&app, &scope, async |transaction| executions::stats(transaction, &filter, &span).await).await.map(Json)
}

/// Returns for each of the last days how many executions there were and succeeded, and averages of time and memory.
#[utoipa::path(get, path = "/api/executions/trends", params(TrendParams), responses(
    (status = 200, description = "Days in UTC, oldest first.", body = Trends),
))]
pub(crate) async fn execution_trends(
    State(app): State<App>,
    caller: Caller,
    Query(TrendParams { days, strategy_id, organization_id }): Query<TrendParams>,
) -> Result<Json<Trends>, Problem> {
    let scope = caller.scope(organization_id.as_deref())?;
    let filter = ExecutionFilter { organization_id, strategy_id, ..ExecutionFilter::default() };
    let now = Utc::now();
    let items =
        run_query(&app, &scope, async |transaction| executions::trends(transaction, &filter, days, now).await).await?;
    Ok(Json(Trends { items }))
}

/// Returns the number of a user's executions, their success rate and average time. The default range is the last 90
/// days.
#[utoipa::path(get, path = "/api/users/{id}/executions/stats",
    params(("id" = String, Path, description = "The user's id.", min_length = 1, max_length = 256), Range),
    responses((status = 200, description = "Statistics. Rates and averages are null if there are no executions.", body = UserStats)),
)]
pub(crate) async fn execution_stats_of_user(
    State(app): State<App>,
    caller: Caller,
    Query(range): Query<Range>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<UserStats>, Problem> {
    let user = path_text("id", id)?;
    let scope = range.scope(&caller)?;
    let span = TimeLimits::of(Kind::Executions, None).span(&range)?;
    let organization = range.organization_id.as_deref();
    let query = async |transaction: &mut _| executions::stats_of_user(transaction, &user, organization, &span).await;
    run_query(&app, &scope, query).await.map(Json)
}

/// Returns the health of a strategy, computed from its last 100 executions. The default range is the last 90 days.
#[utoipa::path(get, path = "/api/strategies/{id}/health",
    params(("id" = String, Path, description = "The strategy's id.", min_length = 1, max_length = 256), Range),
    responses((status = 200, description = "The strategy's health. Values are null if there are no executions.", body = StrategyHealth)),
)]
pub(crate) async fn health_of_strategy(
    State(app): State<App>,
    caller: Caller,
    Query(range): Query<Range>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<StrategyHealth>, Problem> {
    let strategy = path_text("id", id)?;
    let scope = range.scope(&caller)?;
    let span = TimeLimits::of(Kind::Executions, None).span(&range)?;
    let organization = range.organization_id.as_deref();
    let query =
        async |transaction: &mut _| executions::health_of_strategy(transaction, &strategy, organization, &span).await;
    run_query(&app, &scope, query).await.map(Json)
}
