//! `GET /api/retention`: what was removed, and what must stay.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Serialize;
use store::holds::Hold;
use store::questions::{Page as Part, retention};
use store::retention::Run;
use utoipa::{IntoParams, ToSchema};

use super::listing::ask;
use crate::app::App;
use crate::auth::Caller;
use crate::page::MOST_ITEMS;
use crate::problem::Problem;
use crate::query::{FromQuery, Parameters, Query};

/// Runs and holds that are told unless asked for more.
const USUAL: u32 = 100;

/// What is asked for.
#[derive(Debug, Clone, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Asked {
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

impl FromQuery for Asked {
    fn from_query(parameters: &mut Parameters) -> Self {
        Self {
            limit: parameters.number("limit", 1..=MOST_ITEMS).unwrap_or(USUAL),
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
#[utoipa::path(get, path = "/api/retention", operation_id = "retention", params(Asked), responses(
    (status = 200, description = "Runs and holds.", body = Retention),
))]
pub(crate) async fn retention(
    State(app): State<App>,
    Query(asked): Query<Asked>,
    caller: Caller,
) -> Result<Json<Retention>, Problem> {
    let scope = caller.scope(asked.organization_id.as_deref())?;
    let part = Part { from: DateTime::UNIX_EPOCH, to: Utc::now(), after: None, limit: asked.limit };
    ask(&app, &scope, async |reading| {
        let runs = retention::runs(reading, asked.volume, asked.limit).await?;
        let holds = retention::holds(reading, None, &part).await?;
        Ok(Retention { runs, holds })
    })
    .await
    .map(Json)
}
