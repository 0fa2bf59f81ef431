//! `GET /api/logs`: what containers printed.

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

/// Text that is searched for at the most, in bytes: each line is compared with it.
const SEARCHED_BYTES: usize = 1024;

/// Which lines.
#[derive(Debug, Clone, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Only of this container.
    #[param(min_length = 1, max_length = 256)]
    container_id: Option<String>,
    /// Only of this stream.
    #[param(pattern = "^(stdout|stderr)$")]
    stream: Option<String>,
    /// Only with this text in the line, to the letter.
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

/// Lines of containers, the newest first.
///
/// Of the last 30 days unless asked for; of 7 days at the most where a text is searched for, or where the container is not
/// named and something else is.
#[utoipa::path(get, path = "/api/logs", params(ListParams, Page), responses(
    (status = 200, description = "Lines.", body = List<LogRow>),
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
