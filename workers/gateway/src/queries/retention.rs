//! `GET /api/retention`: retention runs and holds.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Serialize;
use store::holds::Hold;
use store::queries::{Page as Part, retention};
use store::retention::Run;
use utoipa::{IntoParams, ToSchema};

use super::listing::run_query;
use crate::app::App;
use crate::auth::Caller;
use crate::page::MAX_ITEMS;
use crate::problem::Problem;
use crate::query::{FromQuery, Parameters, Query};

/// The default number of runs and of holds.
const DEFAULT_RANGE: u32 = 100;

/// The query parameters.
#[derive(Debug, Clone, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// The maximum number of runs, and of holds.
    #[param(minimum = 1, maximum = 1000, default = 100, value_type = Option<u32>)]
    limit: u32,
    /// Whether to include runs that only enforced the line limit of containers.
    #[param(default = false, value_type = Option<bool>)]
    volume: bool,
    /// Return only holds of this organization.
    #[param(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    organization_id: Option<String>,
}

impl FromQuery for ListParams {
    fn from_query(parameters: &mut Parameters) -> Self {
        Self {
            limit: parameters.number("limit", 1..=MAX_ITEMS).unwrap_or(DEFAULT_RANGE),
            volume: parameters.flag("volume").unwrap_or_default(),
            organization_id: parameters.text("organization_id"),
        }
    }
}

/// Retention runs and holds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Retention {
    /// Runs, newest first. They cover all organizations: the list is empty unless the caller may see all of them.
    runs: Vec<Run>,
    /// Holds, newest first, including those that are over.
    holds: Vec<Hold>,
}

/// Returns retention runs and holds.
#[utoipa::path(get, path = "/api/retention", operation_id = "retention", params(ListParams), responses(
    (status = 200, description = "Runs and holds.", body = Retention),
))]
pub(crate) async fn retention(
    State(app): State<App>,
    Query(params): Query<ListParams>,
    caller: Caller,
) -> Result<Json<Retention>, Problem> {
    let scope = caller.scope(params.organization_id.as_deref())?;
    let part = Part { from: DateTime::UNIX_EPOCH, to: Utc::now(), after: None, limit: params.limit };
    run_query(&app, &scope, async |transaction| {
        let runs = retention::runs(transaction, params.volume, params.limit).await?;
        let holds = retention::holds(transaction, None, &part).await?;
        Ok(Retention { runs, holds })
    })
    .await
    .map(Json)
}
