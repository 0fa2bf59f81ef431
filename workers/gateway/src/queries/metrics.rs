//! `GET /api/metrics`: what was measured of a container, sample by sample or step by step.

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

/// Steps of a chart unless a time is asked for: as many as a screen shows apart.
const DEFAULT_STEPS: i32 = 1_000;

/// A step at the most, in days: a month. The first and the last one are whole, so longer ones would reach far beyond the
/// time that is asked for.
const LONGEST_STEP: i64 = 31;

/// Which samples, and how.
#[derive(Debug, Clone, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Of this container.
    #[param(min_length = 1, max_length = 256)]
    container_id: String,
    /// How long each step is, such as `60s`, `5m`, `1h` or `1d`: it divides an hour, or is made of whole ones, and has
    /// 31 days at the most. Without it, samples are listed as they were taken. `limit` and `cursor` mean nothing beside it.
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

/// What was measured: a list of samples, or with `step` a series.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum MetricsResponse {
    /// As they were taken, the newest first.
    Samples(List<MetricRow>),
    /// Step by step, in the order of time.
    Series(Series),
}

/// Averages and peaks.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Series {
    /// Where the first step begins.
    from: DateTime<Utc>,
    /// Where the last one ends.
    to: DateTime<Utc>,
    /// How long each is.
    step_seconds: i64,
    /// One for each step of which there are samples. Of what is kept by the hour alone, one an hour.
    points: Vec<Point>,
}

/// What was measured of a container.
///
/// Samples of the last 30 days unless asked for; with `step`, the last thousand steps of them.
#[utoipa::path(get, path = "/api/metrics", params(ListParams, Page), responses(
    (status = 200, description = "Samples, or with `step` a series.", body = MetricsResponse),
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

/// The steps that are asked for.
fn steps_of(page: &Page, step: TimeDelta, limits: TimeLimits) -> Result<Steps, Problem> {
    let steps = step.checked_mul(DEFAULT_STEPS).unwrap_or(limits.default);
    // A step of nothing is refused below, with its reason.
    let default = steps.clamp(TimeDelta::seconds(1), limits.default);
    let Span { from, to } = TimeLimits { default, ..limits }.span(&page.of())?;
    Steps::of(from, to, step).map_err(|bad| {
        let field = if bad == BadSteps::Empty { "from" } else { "step" };
        Problem::parameters(vec![Fault::of(field, bad.to_string())])
    })
}
