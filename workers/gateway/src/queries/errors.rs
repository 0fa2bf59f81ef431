//! `GET /api/errors`, the errors of a trace, and groups of errors.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use records::Kind;
use store::queries::errors::{self, ErrorFilter, ErrorGroup, ErrorRow, MAX_GROUPED_RANGE, MAX_SPARKS};

use super::listing::{TimeLimits, list};
use crate::app::App;
use crate::auth::Caller;
use crate::page::{List, Page};
use crate::problem::Problem;
use crate::query::{FromQuery, Parameters, Query, path_text};

/// The default number of counts in a sparkline: one an hour for a day, and about as many as can be told apart in a
/// table row.
const DEFAULT_SPARKS: u32 = 24;
/// The maximum length of an endpoint in bytes, as in the contract.
const ENDPOINT_BYTES: usize = 4096;
/// The severities of the contract.
const SEVERITIES: &[&str] = &["warning", "error", "critical"];

/// Filters for errors.
#[derive(Debug, Clone, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Return only errors of this trace.
    #[param(min_length = 1, max_length = 256)]
    trace_id: Option<String>,
    /// Return only errors of this project.
    #[param(min_length = 1, max_length = 256)]
    project_id: Option<String>,
    /// Return only errors of this run.
    #[param(min_length = 1, max_length = 256)]
    run_id: Option<String>,
    /// Return only errors of this class.
    #[param(min_length = 1, max_length = 256)]
    error_type: Option<String>,
    /// Return only errors of this severity: `warning`, `error` or `critical`.
    #[param(pattern = "^(warning|error|critical)$")]
    severity: Option<String>,
    /// Return only errors of this endpoint.
    #[param(min_length = 1, max_length = 4096)]
    endpoint: Option<String>,
    #[param(ignore)]
    page: Page,
}

/// The query parameters of the errors of a trace, which are only those of a page.
#[derive(Debug, Clone, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct TraceParams {
    #[param(ignore)]
    page: Page,
}

/// Filters for the errors to group, and the resolution of the sparklines.
#[derive(Debug, Clone, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct GroupParams {
    #[param(ignore)]
    params: ListParams,
    /// The number of counts in each sparkline. The time range is divided into this many steps.
    #[param(minimum = 1, maximum = 200, default = 24, value_type = Option<u32>)]
    sparks: u32,
}

impl FromQuery for ListParams {
    fn from_query(parameters: &mut Parameters) -> Self {
        Self {
            trace_id: parameters.text("trace_id"),
            project_id: parameters.text("project_id"),
            run_id: parameters.text("run_id"),
            error_type: parameters.text("error_type"),
            severity: parameters.one_of("severity", SEVERITIES).map(str::to_owned),
            endpoint: parameters.bounded_text("endpoint", ENDPOINT_BYTES),
            page: Page::from_query(parameters),
        }
    }
}

impl FromQuery for TraceParams {
    fn from_query(parameters: &mut Parameters) -> Self {
        Self { page: Page::from_query(parameters) }
    }
}

impl FromQuery for GroupParams {
    fn from_query(parameters: &mut Parameters) -> Self {
        let sparks = parameters.number("sparks", 1..=MAX_SPARKS).unwrap_or(DEFAULT_SPARKS);
        Self { params: ListParams::from_query(parameters), sparks }
    }
}

impl ListParams {
    fn filter(self) -> (Page, ErrorFilter) {
        let Self { trace_id, project_id, run_id, error_type, severity, endpoint, page } = self;
        let organization_id = page.organization_id.clone();
        (page, ErrorFilter { organization_id, trace_id, project_id, run_id, error_type, severity, endpoint })
    }
}

/// Lists errors, newest first.
///
/// The default range is the last 90 days. The longest range is 7 days if only a severity or an endpoint is given.
#[utoipa::path(get, path = "/api/errors", params(ListParams, Page), responses(
    (status = 200, description = "A page of errors.", body = List<ErrorRow>),
))]
pub(crate) async fn list_errors(
    State(app): State<App>,
    caller: Caller,
    Query(params): Query<ListParams>,
) -> Result<Json<List<ErrorRow>>, Problem> {
    let (page, filter) = params.filter();
    let limits = TimeLimits::of(Kind::Errors, filter.longest(&page.scope(&caller)?));
    let query = async |transaction: &mut _, page: &_| errors::list(transaction, &filter, page).await;
    list(&app, &caller, "/api/errors", &page, limits, query).await
}

/// Lists the errors of a trace, newest first. The default range is the last 90 days.
#[utoipa::path(get, path = "/api/errors/{trace_id}",
    params(("trace_id" = String, Path, description = "The trace's id.", min_length = 1, max_length = 256), TraceParams, Page),
    responses((status = 200, description = "A page of errors; empty if the trace is unknown.", body = List<ErrorRow>)),
)]
pub(crate) async fn list_errors_of_trace(
    State(app): State<App>,
    caller: Caller,
    Query(TraceParams { page }): Query<TraceParams>,
    trace_id: Result<Path<String>, PathRejection>,
) -> Result<Json<List<ErrorRow>>, Problem> {
    let trace_id = path_text("trace_id", trace_id)?;
    let page = page.about("trace_id", &trace_id);
    let organization_id = page.organization_id.clone();
    let filter = ErrorFilter { organization_id, trace_id: Some(trace_id), ..ErrorFilter::default() };
    let limits = TimeLimits::of(Kind::Errors, filter.longest(&page.scope(&caller)?));
    let query = async |transaction: &mut _, page: &_| errors::list(transaction, &filter, page).await;
    list(&app, &caller, "/api/errors/{trace_id}", &page, limits, query).await
}

/// Lists groups of errors with the same fingerprint, most recently seen first.
///
/// The longest range is 7 days, because every error in it is read. All pages of a list cover the range of its first
/// page: later errors are in none of them.
#[utoipa::path(get, path = "/api/errors/groups", params(ListParams, GroupParams, Page), responses(
    (status = 200, description = "A page of groups.", body = List<ErrorGroup>),
))]
pub(crate) async fn list_error_groups(
    State(app): State<App>,
    caller: Caller,
    Query(GroupParams { params, sparks }): Query<GroupParams>,
) -> Result<Json<List<ErrorGroup>>, Problem> {
    let (page, filter) = params.filter();
    let longest =
        filter.longest(&page.scope(&caller)?).map_or(MAX_GROUPED_RANGE, |longest| longest.min(MAX_GROUPED_RANGE));
    let limits = TimeLimits::of(Kind::Errors, Some(longest));
    let query = async |transaction: &mut _, page: &_| errors::groups(transaction, &filter, page, sparks).await;
    list(&app, &caller, "/api/errors/groups", &page, limits, query).await
}
