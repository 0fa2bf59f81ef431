//! `GET /api/alerts`, `GET /api/alerts/rules`, `GET /api/alerts/{id}` and `POST /api/alerts/{id}/acknowledge`.

use alerting::acknowledgement::Acknowledgement;
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::alerts::TransitionRow;
use store::queries::alerts::{self, AlertFilter, AlertItem};
use utoipa::{IntoParams, ToSchema};

use super::listing::{self, TimeLimits};
use super::mutation;
use crate::app::App;
use crate::audited_action::AuditedAction;
use crate::auth::{Caller, Organizations};
use crate::page::{LONGEST_RANGE, List, MAX_ITEMS, Page};
use crate::problem::{Fault, Problem};
use crate::query::{FromQuery, NoParams, Parameters, Query};
use crate::request_context::RequestContext;

/// Alerts that are over are forgotten, so all there are can be read.
const TIME_LIMITS: TimeLimits = TimeLimits { default: LONGEST_RANGE, longest: None };
/// Changes of an alert that are told unless asked for more.
const DEFAULT_CHANGES: u32 = 100;

/// Which alerts are asked for.
#[derive(Debug, Clone, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filters {
    /// Only of this rule.
    #[param(max_length = 256)]
    rule: Option<String>,
    /// Only as bad as this: `info`, `warning` or `critical`.
    #[param(pattern = "^(info|warning|critical)$")]
    severity: Option<&'static str>,
    /// Only those that stand so: `inactive`, `pending`, `firing` or `recovering`.
    #[param(pattern = "^(inactive|pending|firing|recovering)$")]
    condition: Option<&'static str>,
}

/// What a list of alerts is asked with.
#[derive(Debug)]
pub(crate) struct ListParams {
    page: Page,
    filters: Filters,
}

impl FromQuery for ListParams {
    fn from_query(parameters: &mut Parameters) -> Self {
        let filters = Filters {
            rule: parameters.text("rule"),
            severity: parameters.one_of("severity", &["info", "warning", "critical"]),
            condition: parameters.one_of("condition", &["inactive", "pending", "firing", "recovering"]),
        };
        Self { page: Page::from_query(parameters), filters }
    }
}

/// Alerts, by the time when they changed last.
#[utoipa::path(get, path = "/api/alerts", operation_id = "alerts", params(Page, Filters), responses(
    (status = 200, description = "Alerts.", body = List<AlertItem>),
))]
pub(crate) async fn all(
    State(app): State<App>,
    Query(ListParams { page, filters }): Query<ListParams>,
    caller: Caller,
) -> Result<Json<List<AlertItem>>, Problem> {
    let filter = AlertFilter {
        organization_id: None,
        rule: filters.rule,
        severity: filters.severity.map(str::to_owned),
        condition: filters.condition.map(str::to_owned),
    };
    listing::list(&app, &caller, "/api/alerts", &page, TIME_LIMITS, async |transaction, page| {
        alerts::list(transaction, &filter, page).await
    })
    .await
}

/// The rules in force.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Rules {
    /// The rules, as they are configured.
    #[schema(value_type = Vec<Object>)]
    rules: Value,
    /// Since when; null where no alert worker ran yet.
    loaded_at: Option<DateTime<Utc>>,
    /// What is wrong with those that were to replace them. Told to those who may see every organization.
    problem: Option<String>,
}

/// The rules in force: one configuration for all organizations.
#[utoipa::path(get, path = "/api/alerts/rules", operation_id = "alert_rules", responses(
    (status = 200, description = "The rules.", body = Rules),
))]
pub(crate) async fn rules(
    State(app): State<App>,
    Query(NoParams): Query<NoParams>,
    caller: Caller,
) -> Result<Json<Rules>, Problem> {
    let unavailable = |error| Problem::of_database(&error);
    let mut connection = app.pool.acquire().await.map_err(unavailable)?;
    let Some(settings) = store::alerts::settings(&mut connection).await.map_err(unavailable)? else {
        return Ok(Json(Rules { rules: json!([]), loaded_at: None, problem: None }));
    };
    let problem = settings.problem.filter(|_| caller.organizations == Organizations::All);
    Ok(Json(Rules { rules: settings.rules, loaded_at: Some(settings.loaded_at), problem }))
}

/// What `int32`, by which the document names the number, can hold.
const LAST_VERSION: u32 = i32::MAX.unsigned_abs();

/// Which part of an alert's history is asked for.
#[derive(Debug, Clone, Copy, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryParams {
    /// Changes at the most.
    #[param(minimum = 1, maximum = 1000, default = 100, value_type = Option<u32>)]
    limit: u32,
    /// Only those before this version.
    #[param(minimum = 1, maximum = 2_147_483_647)]
    before_version: Option<u32>,
}

impl FromQuery for HistoryParams {
    fn from_query(parameters: &mut Parameters) -> Self {
        Self {
            limit: parameters.number("limit", 1..=MAX_ITEMS).unwrap_or(DEFAULT_CHANGES),
            before_version: parameters.number("before_version", 1..=LAST_VERSION),
        }
    }
}

/// An alert, and how it came to stand so.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Alert {
    /// The alert.
    alert: AlertItem,
    /// Its changes, the newest first. More are had with `before_version`.
    history: Vec<TransitionRow>,
}

/// An alert, and how it came to stand so.
#[utoipa::path(get, path = "/api/alerts/{id}", operation_id = "alert", params(("id" = Uuid, Path), HistoryParams), responses(
    (status = 200, description = "The alert.", body = Alert),
    (status = 404, description = "There is none that the caller may see.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn one(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(changes): Query<HistoryParams>,
    caller: Caller,
) -> Result<Json<Alert>, Problem> {
    let id = mutation::id(&id)?;
    let found = listing::run_query(&app, &caller.scope(None)?, async |transaction| {
        let Some(alert) = alerts::find(transaction, id).await? else { return Ok(None) };
        let before = changes.before_version.map(i64::from);
        let history = alerts::history(transaction, id, before, changes.limit).await?;
        Ok(Some(Alert { alert, history }))
    })
    .await?;
    found.map(Json).ok_or_else(Problem::not_found)
}

/// That somebody takes note of an alert.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AcknowledgeRequest {
    /// Why, or what is being done.
    #[schema(min_length = 1, max_length = 4096)]
    reason: String,
    /// Until when at the most; until the alert is over where nothing is said.
    until: Option<DateTime<Utc>>,
}

/// Takes note of an alert that is not over: no repetition until it is. That it is over is still told.
#[utoipa::path(post, path = "/api/alerts/{id}/acknowledge", operation_id = "acknowledge", params(("id" = Uuid, Path)),
    request_body = AcknowledgeRequest, responses(
    (status = 204, description = "It is noted."),
    (status = 404, description = "There is none that the caller may see.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
    (status = 409, description = "It is over.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn acknowledge(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(NoParams): Query<NoParams>,
    caller: Caller,
    context: RequestContext,
    request: Request,
) -> Result<StatusCode, Problem> {
    let id = mutation::id(&id)?;
    let note: AcknowledgeRequest = mutation::body(&app, &caller, request).await?;
    let reason = mutation::reason(note.reason)?;
    let at = Utc::now();
    if note.until.is_some_and(|until| until <= at) {
        return Err(Problem::parameters(vec![Fault::of("until", "is over")]));
    }
    let found =
        listing::run_query(&app, &caller.scope(None)?, async |transaction| alerts::find(transaction, id).await).await?;
    let alert = found.ok_or_else(Problem::not_found)?;
    let note = Acknowledgement { by: caller.subject.to_string(), reason: reason.clone(), at, until: note.until };
    let note = serde_json::to_value(note).unwrap_or_default();
    let action = AuditedAction {
        organization_id: Some(alert.organization_id),
        action: "alert.acknowledge",
        target_type: "alert",
        target_id: id.to_string(),
        reason: Some(reason),
        metadata: json!({ "rule": alert.rule, "labels": alert.labels, "until": note["until"] }),
    };
    mutation::apply(&app, &caller, &context, action, "the alert is over", async |transaction| {
        store::alerts::acknowledge(transaction, id, &note).await
    })
    .await
}
