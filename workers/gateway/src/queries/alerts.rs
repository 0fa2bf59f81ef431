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

/// Alerts that are over are deleted eventually, so the default range covers every alert there is.
const TIME_LIMITS: TimeLimits = TimeLimits { default: LONGEST_RANGE, longest: None };
/// The number of changes returned by default.
const DEFAULT_CHANGES: u32 = 100;

/// Filters for the list of alerts.
#[derive(Debug, Clone, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filters {
    /// Return only alerts of this rule.
    #[param(max_length = 256)]
    rule: Option<String>,
    /// Return only alerts of this severity: `info`, `warning` or `critical`.
    #[param(pattern = "^(info|warning|critical)$")]
    severity: Option<&'static str>,
    /// Return only alerts in this state: `inactive`, `pending`, `firing` or `recovering`.
    #[param(pattern = "^(inactive|pending|firing|recovering)$")]
    condition: Option<&'static str>,
}

/// The query parameters of the list.
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

/// Lists alerts, most recently changed first.
#[utoipa::path(get, path = "/api/alerts", operation_id = "alerts", params(Page, Filters), responses(
    (status = 200, description = "A page of alerts.", body = List<AlertItem>),
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

/// The alerting rules in force.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Rules {
    /// The rules as configured.
    #[schema(value_type = Vec<Object>)]
    rules: Value,
    /// When they were loaded; null if no alert worker has run yet.
    loaded_at: Option<DateTime<Utc>>,
    /// What is wrong with the rules that were to replace these. Null unless the caller may see every organization.
    problem: Option<String>,
}

/// Returns the alerting rules in force. All organizations share one configuration.
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

/// The largest `int32`, which is the type of the number in the OpenAPI document.
const LAST_VERSION: u32 = i32::MAX.unsigned_abs();

/// Selects the part of an alert's history to return.
#[derive(Debug, Clone, Copy, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryParams {
    /// The maximum number of changes.
    #[param(minimum = 1, maximum = 1000, default = 100, value_type = Option<u32>)]
    limit: u32,
    /// Return only changes before this version.
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

/// An alert and its history.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Alert {
    alert: AlertItem,
    /// Changes of the alert, newest first. Use `before_version` to read older ones.
    history: Vec<TransitionRow>,
}

/// Returns an alert and its history.
#[utoipa::path(get, path = "/api/alerts/{id}", operation_id = "alert", params(("id" = Uuid, Path), HistoryParams), responses(
    (status = 200, description = "The alert.", body = Alert),
    (status = 404, description = "No such alert, or the caller may not see it.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
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

/// An acknowledgement of an alert.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AcknowledgeRequest {
    /// The reason, or what is being done about it.
    #[schema(min_length = 1, max_length = 4096)]
    reason: String,
    /// When the acknowledgement ends at the latest. Without it, it lasts until the alert is over.
    until: Option<DateTime<Utc>>,
}

/// Acknowledges an alert: it is not repeated until the acknowledgement ends. Its resolution is still notified. Fails
/// if the alert is over.
#[utoipa::path(post, path = "/api/alerts/{id}/acknowledge", operation_id = "acknowledge", params(("id" = Uuid, Path)),
    request_body = AcknowledgeRequest, responses(
    (status = 204, description = "The alert is acknowledged."),
    (status = 404, description = "No such alert, or the caller may not see it.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
    (status = 409, description = "The alert is over.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
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
        return Err(Problem::parameters(vec![Fault::of("until", "is in the past")]));
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
