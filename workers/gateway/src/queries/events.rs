//! `GET /api/events`: events of projects and runs.

use axum::Json;
use axum::extract::State;
use records::Kind;
use store::queries::events::{self, EventFilter, EventRow};

use super::listing::{TimeLimits, list};
use crate::app::App;
use crate::auth::Caller;
use crate::page::{List, Page};
use crate::problem::Problem;
use crate::query::{FromQuery, Parameters, Query};

/// Filters for events.
#[derive(Debug, Clone, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Return only events of this project.
    #[param(min_length = 1, max_length = 256)]
    project_id: Option<String>,
    /// Return only events of this run.
    #[param(min_length = 1, max_length = 256)]
    run_id: Option<String>,
    /// Return only events of this user.
    #[param(min_length = 1, max_length = 256)]
    user_id: Option<String>,
    /// Return only events of this type.
    #[param(min_length = 1, max_length = 256)]
    event_type: Option<String>,
    #[param(ignore)]
    page: Page,
}

impl FromQuery for ListParams {
    fn from_query(parameters: &mut Parameters) -> Self {
        Self {
            project_id: parameters.text("project_id"),
            run_id: parameters.text("run_id"),
            user_id: parameters.text("user_id"),
            event_type: parameters.text("event_type"),
            page: Page::from_query(parameters),
        }
    }
}

/// Lists events, newest first.
///
/// The default range is the last 30 days. The longest range is 7 days if nothing but the organization is given.
#[utoipa::path(get, path = "/api/events", params(ListParams, Page), responses(
    (status = 200, description = "A page of events.", body = List<EventRow>),
))]
pub(crate) async fn list_events(
    State(app): State<App>,
    caller: Caller,
    Query(params): Query<ListParams>,
) -> Result<Json<List<EventRow>>, Problem> {
    let ListParams { project_id, run_id, user_id, event_type, page } = params;
    let organization_id = page.organization_id.clone();
    let filter = EventFilter { organization_id, project_id, run_id, user_id, event_type };
    let limits = TimeLimits::of(Kind::Events, filter.longest(&page.scope(&caller)?));
    let query = async |transaction: &mut _, page: &_| events::list(transaction, &filter, page).await;
    list(&app, &caller, "/api/events", &page, limits, query).await
}
