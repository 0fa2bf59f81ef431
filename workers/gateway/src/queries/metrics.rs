//! `GET /api/metrics`: metrics of a container, as samples or aggregated by step.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, TimeDelta, Utc};
use records::Kind;
use serde::Serialize;
use store::metric_hours::Point;
use store::queries::Span;
use store::queries::metrics::{self, MetricFilter, MetricRow};
use store::{BadSteps, Steps};
use utoipa::ToSchema;

use super::listing::{TimeLimits, list, run_query};
use crate::app::App;
use crate::auth::Caller;
use crate::page::{List, Page};
use crate::problem::{Fault, Problem};
use crate::query::{FromQuery, Parameters, Query};

/// The default number of steps in a chart: as many as a screen can show.
const DEFAULT_STEPS: i32 = 1_000;

/// The longest step in days: a month. The first and the last step are whole, so longer ones would reach far beyond the
/// requested range.
const LONGEST_STEP: i64 = 31;

/// The container, and the form of the result.
#[derive(Debug, Clone, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Return only samples of this container.
    #[param(min_length = 1, max_length = 256)]
    container_id: String,
    /// The length of each step, such as `60s`, `5m`, `1h` or `1d`: it divides an hour or is a multiple of one, and is
    /// at most 31 days. Without it, samples are listed as they were taken. It cannot be combined with `limit` or
    /// `cursor`.
    #[param(pattern = "^[0-9]{1,9}[smhd]$", value_type = Option<String>)]
    step: Option<TimeDelta>,
    #[param(ignore)]
    page: Page,
}

impl FromQuery for ListParams {
    fn from_query(parameters: &mut Parameters) -> Self {
        let step = parameters.length("step");
        if let Some(step) = step {
            if step > TimeDelta::days(LONGEST_STEP) {
                parameters.refuse("step", format!("expected {LONGEST_STEP}d at the most"));
            }
            parameters.refuse_beside("step", &["limit", "cursor"]);
        }
        Self { container_id: parameters.required_text("container_id"), step, page: Page::from_query(parameters) }
    }
}

/// Metrics: a page of samples, or with `step` a series.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum MetricsResponse {
    /// Samples, newest first.
    Samples(List<MetricRow>),
    /// Aggregates by step, in chronological order.
    Series(Series),
}

/// Averages and peaks by step.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Series {
    /// The start of the first step.
    from: DateTime<Utc>,
    /// The end of the last step.
    to: DateTime<Utc>,
    /// The length of each step.
    step_seconds: i64,
    /// One point for each step that has samples. Where only hourly data is left, one point an hour.
    points: Vec<Point>,
}

/// Returns the metrics of a container.
///
/// The default range is the last 30 days; with `step`, the last thousand steps within them.
#[utoipa::path(get, path = "/api/metrics", params(ListParams, Page), responses(
    (status = 200, description = "A page of samples, or with `step` a series.", body = MetricsResponse),
))]
pub(crate) async fn list_metrics(
    State(app): State<App>,
    caller: Caller,
    Query(ListParams { container_id, step, page }): Query<ListParams>,
) -> Result<Json<MetricsResponse>, Problem> {
    let filter = MetricFilter { organization_id: page.organization_id.clone(), container_id };
    let limits = TimeLimits::of(Kind::Metrics, None);
    let Some(step) = step else {
        let query = async |transaction: &mut _, page: &_| metrics::list(transaction, &filter, page).await;
        let Json(samples) = list(&app, &caller, "/api/metrics", &page, limits, query).await?;
        return Ok(Json(MetricsResponse::Samples(samples)));
    };
    let steps = steps_of(&page, step, limits)?;
    let scope = page.scope(&caller)?;
    let points =
        run_query(&app, &scope, async |transaction| metrics::series(transaction, &filter, &steps).await).await?;
    let step_seconds = steps.step().num_seconds();
    Ok(Json(MetricsResponse::Series(Series { from: steps.from(), to: steps.to(), step_seconds, points })))
}

/// Returns the requested steps.
fn steps_of(page: &Page, step: TimeDelta, limits: TimeLimits) -> Result<Steps, Problem> {
    let steps = step.checked_mul(DEFAULT_STEPS).unwrap_or(limits.default);
    // `Steps::of` rejects a step of zero below, with the reason.
    let default = steps.clamp(TimeDelta::seconds(1), limits.default);
    let Span { from, to } = TimeLimits { default, ..limits }.span(&page.of())?;
    Steps::of(from, to, step).map_err(|bad| {
        let field = if bad == BadSteps::Empty { "from" } else { "step" };
        Problem::parameters(vec![Fault::of(field, bad.to_string())])
    })
}
