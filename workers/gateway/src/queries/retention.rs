//! `GET /api/retention`: what was removed, and what must stay.

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

/// Runs and holds that are told unless asked for more.
const DEFAULT_RANGE: u32 = 100;

/// What is asked for.
#[derive(Debug, Clone, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Runs, and holds, at the most.
    #[param(minimum = 1, maximum = 1000, default = 100, value_type = Option<u32>)]
    limit: u32,
    /// Runs that only kept containers within their limit as well.
    #[param(default = false, value_type = Option<bool>)]
    volume: bool,
    /// Holds of this organization alone.
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

/// What was removed, and what must stay.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Retention {
    /// Runs, the newest first. They are about every organization: only who may see all sees them.
    runs: Vec<Run>,
    /// Holds, the newest first, those that are over as well.
    holds: Vec<Hold>,
}

/// What was removed, and what must stay.
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
