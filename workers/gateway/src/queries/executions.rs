//! `GET /api/executions`: sandbox executions, one by one and summed up; how users and strategies fare.

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

/// Days of trends unless asked for.
const DEFAULT_DAYS: u32 = 7;

/// Which executions.
#[derive(Debug, Clone, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Only of this user.
    #[param(min_length = 1, max_length = 256)]
    user_id: Option<String>,
    /// Only of this strategy.
    #[param(min_length = 1, max_length = 256)]
    strategy_id: Option<String>,
    /// Only such.
    #[param(pattern = "^(VALIDATION|TERMINAL)$")]
    execution_type: Option<String>,
    /// Only with this end.
    success: Option<bool>,
    #[param(ignore)]
    page: Page,
}

/// Of which executions the statistics are.
#[derive(Debug, Clone, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StatsParams {
    /// Only of this strategy.
    #[param(min_length = 1, max_length = 256)]
    strategy_id: Option<String>,
    #[param(ignore)]
    range: Range,
}

/// Which days.
#[derive(Debug, Clone, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct TrendParams {
    /// So many days, today's the last one. Of all organizations together 8 at the most, unless a strategy is named.
    #[param(minimum = 1, maximum = 90, default = 7, value_type = Option<u32>)]
    days: u32,
    /// Only of this strategy.
    #[param(min_length = 1, max_length = 256)]
    strategy_id: Option<String>,
    /// Of this organization alone. One that the caller may not see has nothing.
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

/// Executions day by day.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Trends {
    /// The days in their order, those without an execution as well.
    items: Vec<DayOfExecutions>,
}

/// Executions, the newest first, with what the directory knows of their users and strategies.
///
/// Of the last 90 days unless asked for; of 7 days at the most where only a type or success is named.
#[utoipa::path(get, path = "/api/executions", params(ListParams, Page), responses(
    (status = 200, description = "Executions.", body = List<ExecutionRow>),
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

/// How many executions there were; averages of time, memory and CPU, and sums of errors and warnings.
///
/// Of the last 90 days unless asked for.
#[utoipa::path(get, path = "/api/executions/stats", params(StatsParams, Range), responses(
    (status = 200, description = "Statistics; averages are null where there is nothing.", body = ExecutionStats),
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

/// Executions of each of the last days: how many, how many successful, and averages of time and memory.
#[utoipa::path(get, path = "/api/executions/trends", params(TrendParams), responses(
    (status = 200, description = "Days in UTC, the oldest first.", body = Trends),
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

/// A user's executions: how many, which part succeeded, and how long they took; of the last 90 days unless asked for.
#[utoipa::path(get, path = "/api/users/{id}/executions/stats",
    params(("id" = String, Path, description = "The user.", min_length = 1, max_length = 256), Range),
    responses((status = 200, description = "Statistics; null where there is nothing.", body = UserStats)),
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

/// How a strategy is by its last 100 executions, of the last 90 days unless asked for.
#[utoipa::path(get, path = "/api/strategies/{id}/health",
    params(("id" = String, Path, description = "The strategy.", min_length = 1, max_length = 256), Range),
    responses((status = 200, description = "Its health; null where there is nothing.", body = StrategyHealth)),
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
