//! `GET /api/logs`: log lines of containers.

use axum::Json;
use axum::extract::State;
use records::Kind;
use store::queries::logs::{self, LogFilter, LogRow};

use super::listing::{TimeLimits, list};
use crate::app::App;
use crate::auth::Caller;
use crate::page::{List, Page};
use crate::problem::Problem;
use crate::query::{FromQuery, Parameters, Query};

/// The maximum length of a searched text in bytes: each line is compared with it.
const SEARCHED_BYTES: usize = 1024;

/// Filters for log lines.
#[derive(Debug, Clone, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Return only lines of this container.
    #[param(min_length = 1, max_length = 256)]
    container_id: Option<String>,
    /// Return only lines of this stream: `stdout` or `stderr`.
    #[param(pattern = "^(stdout|stderr)$")]
    stream: Option<String>,
    /// Return only lines that contain this text. Case matters.
    #[param(min_length = 1, max_length = 1024)]
    contains: Option<String>,
    #[param(ignore)]
    page: Page,
}

impl FromQuery for ListParams {
    fn from_query(parameters: &mut Parameters) -> Self {
        Self {
            container_id: parameters.text("container_id"),
            stream: parameters.one_of("stream", &["stdout", "stderr"]).map(str::to_owned),
            contains: parameters.bounded_text("contains", SEARCHED_BYTES),
            page: Page::from_query(parameters),
        }
    }
}

/// Lists log lines of containers, newest first.
///
/// The default range is the last 30 days. The longest range is 7 days if a text is searched for, or if another filter
/// than the container is given without the container.
#[utoipa::path(get, path = "/api/logs", params(ListParams, Page), responses(
    (status = 200, description = "A page of log lines.", body = List<LogRow>),
))]
pub(crate) async fn list_logs(
    State(app): State<App>,
    caller: Caller,
    Query(params): Query<ListParams>,
) -> Result<Json<List<LogRow>>, Problem> {
    let ListParams { container_id, stream, contains, page } = params;
    let organization_id = page.organization_id.clone();
    let filter = LogFilter { organization_id, container_id, stream, contains };
    let limits = TimeLimits::of(Kind::Logs, filter.longest(&page.scope(&caller)?));
    let query = async |transaction: &mut _, page: &_| logs::list(transaction, &filter, page).await;
    list(&app, &caller, "/api/logs", &page, limits, query).await
}
