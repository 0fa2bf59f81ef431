//! `GET`, `POST` and `DELETE /api/silences`.
//!
//! A caller that may not see every organization can only create and see silences for exactly one of its own
//! organizations: those with a matcher that requires its exact name.

use alerting::labels;
use alerting::matcher::{Matcher, Operation};
use alerting::recurrence::Recurrence;
use alerting::silence::Silence;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::queries::alerts;
use store::silences::SilenceRow;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::listing::{self, TimeLimits};
use super::mutation;
use crate::app::App;
use crate::audited_action::AuditedAction;
use crate::auth::{Caller, Organizations};
use crate::page::{LONGEST_RANGE, List, Page};
use crate::problem::{Fault, Problem};
use crate::query::{FromQuery, NoParams, Parameters, Query};
use crate::request_context::RequestContext;

/// No silence is in force for longer than this.
const TIME_LIMITS: TimeLimits = TimeLimits { default: LONGEST_RANGE, longest: None };
/// The label that holds an alert's organization.
const ORGANIZATION: &str = "organization_id";

/// Filters for the list of silences.
#[derive(Debug, Clone, Copy, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filters {
    /// Whether to include silences that are over.
    #[param(default = false, value_type = Option<bool>)]
    all: bool,
}

/// The query parameters of the list.
#[derive(Debug)]
pub(crate) struct ListParams {
    page: Page,
    filters: Filters,
}

impl FromQuery for ListParams {
    fn from_query(parameters: &mut Parameters) -> Self {
        let filters = Filters { all: parameters.flag("all").unwrap_or_default() };
        Self { page: Page::from_query(parameters), filters }
    }
}

/// Lists silences, most recently created first. Those that are over are left out unless `all` is set.
#[utoipa::path(get, path = "/api/silences", operation_id = "silences", params(Page, Filters), responses(
    (status = 200, description = "A page of silences.", body = List<SilenceRow>),
))]
pub(crate) async fn all(
    State(app): State<App>,
    Query(ListParams { page, filters }): Query<ListParams>,
    caller: Caller,
) -> Result<Json<List<SilenceRow>>, Problem> {
    let not_over_at = (!filters.all).then(Utc::now);
    listing::list(&app, &caller, "/api/silences", &page, TIME_LIMITS, async |transaction, page| {
        alerts::silences(transaction, not_over_at, page).await
    })
    .await
}

/// The silence to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSilence {
    /// Label matchers: `label=value`, `label!=value`, `label=~regex` or `label!~regex`. All of them have to match. As
    /// in Prometheus, an expression has to match the whole value, `.` matches line breaks too, and an absent label is
    /// the empty string.
    #[schema(min_items = 1, max_items = 50)]
    matchers: Vec<String>,
    /// The start; now by default.
    starts_at: Option<DateTime<Utc>>,
    /// The end, at most a year after the start.
    ends_at: DateTime<Utc>,
    /// Recurring hours within that time, such as `sat,sun 22:00-06:00`. Requires `timezone`.
    every: Option<String>,
    /// The time zone of `every`, such as `Europe/Berlin`.
    timezone: Option<String>,
    /// The reason for the silence.
    #[schema(min_length = 1, max_length = 4096)]
    reason: String,
}

impl NewSilence {
    fn silence(self, caller: &Caller, now: DateTime<Utc>) -> Result<Silence, Problem> {
        let mut faults = Vec::new();
        let mut matchers = Vec::with_capacity(self.matchers.len().min(50));
        for (index, text) in self.matchers.iter().enumerate() {
            match text.parse::<Matcher>() {
                Ok(_) if text.contains('\0') => faults.push(Fault::of(format!("matchers[{index}]"), "contains NUL")),
                Ok(matcher) => matchers.push(matcher),
                Err(error) => faults.push(Fault::of(format!("matchers[{index}]"), error.to_string())),
            }
        }
        let recurrence = match (self.every.as_deref(), self.timezone.as_deref()) {
            (None, None) => None,
            (Some(every), Some(timezone)) => Recurrence::parse(every, timezone)
                .map_err(|error| faults.push(Fault::of("every", error.to_string())))
                .ok(),
            _ => {
                faults.push(Fault::of("every", "`every` and `timezone` require each other"));
                None
            }
        };
        if !faults.is_empty() {
            return Err(Problem::parameters(faults));
        }
        let silence = Silence {
            id: Uuid::now_v7(),
            matchers,
            starts_at: self.starts_at.unwrap_or(now),
            ends_at: self.ends_at,
            recurrence,
            created_by: caller.subject.to_string(),
            reason: mutation::reason(self.reason)?,
            ended_at: None,
        };
        let mut problems = silence.problems();
        if silence.ends_at <= now {
            problems.push("`ends_at` is in the past".to_owned());
        }
        match problems.is_empty() {
            true => Ok(silence),
            false => Err(Problem::parameters(problems.into_iter().map(|problem| Fault::of("body", problem)).collect())),
        }
    }
}

/// Returns the organizations that the matchers require by exact name. A silence with more than one matches nothing.
fn organizations_of(matchers: &[Matcher]) -> impl Iterator<Item = &str> {
    let names_it =
        |matcher: &&Matcher| matcher.operation() == Operation::Equal && labels::is_named(ORGANIZATION, matcher.name());
    matchers.iter().filter(names_it).map(Matcher::value)
}

/// The created silence.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CreatedSilence {
    /// Its id.
    id: Uuid,
}

/// Creates a silence. Alerts that it matches are still evaluated and shown, but no firing notifications are sent.
///
/// A caller that may not see every organization has to include the matcher `organization_id=…` with one of its own.
#[utoipa::path(post, path = "/api/silences", operation_id = "add_silence", request_body = NewSilence, responses(
    (status = 201, description = "The silence is created.", body = CreatedSilence),
))]
pub(crate) async fn add(
    State(app): State<App>,
    Query(NoParams): Query<NoParams>,
    caller: Caller,
    context: RequestContext,
    request: Request,
) -> Result<(StatusCode, Json<CreatedSilence>), Problem> {
    let now = Utc::now();
    let silence = mutation::body::<NewSilence>(&app, &caller, request).await?.silence(&caller, now)?;
    let organization = organizations_of(&silence.matchers).next();
    if let Organizations::Set(own) = &caller.organizations
        && (organization.is_none()
            || organizations_of(&silence.matchers).any(|organization| !own.contains(organization)))
    {
        let reason = "requires `organization_id=` with an organization of the caller";
        return Err(Problem::parameters(vec![Fault::of("matchers", reason)]));
    }
    let row = SilenceRow {
        id: silence.id,
        matchers: serde_json::to_value(&silence.matchers).unwrap_or_default(),
        starts_at: silence.starts_at,
        ends_at: silence.ends_at,
        recurrence: silence.recurrence.as_ref().map(|recurrence| serde_json::to_value(recurrence).unwrap_or_default()),
        created_by: silence.created_by.clone(),
        reason: silence.reason.clone(),
        created_at: now,
        ended_at: None,
    };
    let action = audited_action("silence.create", organization.map(str::to_owned), &row);
    let act = async {
        let mut transaction = app.pool.begin().await?;
        store::silences::insert(&mut transaction, &row).await?;
        action.write(&mut transaction, &caller, &context).await?;
        transaction.commit().await
    };
    act.await.map_err(|error| Problem::of_database(&error))?;
    Ok((StatusCode::CREATED, Json(CreatedSilence { id: row.id })))
}

fn audited_action(action: &'static str, organization_id: Option<String>, row: &SilenceRow) -> AuditedAction {
    AuditedAction {
        organization_id,
        action,
        target_type: "silence",
        target_id: row.id.to_string(),
        reason: Some(row.reason.clone()),
        metadata: json!({ "matchers": row.matchers, "starts_at": row.starts_at, "ends_at": row.ends_at,
                          "recurrence": row.recurrence }),
    }
}

/// Identifies a silence.
#[derive(Debug, Clone, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SilenceRef {
    /// The silence's id.
    #[param(format = Uuid)]
    id: String,
}

impl FromQuery for SilenceRef {
    fn from_query(parameters: &mut Parameters) -> Self {
        let id = parameters.required_text("id");
        if Uuid::try_parse(&id).is_err() {
            parameters.refuse("id", "expected a UUID");
        }
        Self { id }
    }
}

/// Ends a silence early.
#[utoipa::path(delete, path = "/api/silences", operation_id = "end_silence", params(SilenceRef), responses(
    (status = 204, description = "The silence has ended."),
    (status = 404, description = "No such silence, or the caller may not see it.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
    (status = 409, description = "The silence was already over.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn end(
    State(app): State<App>,
    Query(params): Query<SilenceRef>,
    caller: Caller,
    context: RequestContext,
) -> Result<StatusCode, Problem> {
    let id = mutation::id(&params.id)?;
    let found =
        listing::run_query(&app, &caller.scope(None)?, async |transaction| alerts::silence(transaction, id).await)
            .await?;
    let row = found.ok_or_else(Problem::not_found)?;
    // Matchers of a newer version cannot be decoded, so the audit event is the platform's.
    let matchers: Vec<Matcher> = serde_json::from_value(row.matchers.clone()).unwrap_or_default();
    let action = audited_action("silence.end", organizations_of(&matchers).next().map(str::to_owned), &row);
    mutation::apply(&app, &caller, &context, action, "the silence is already over", async |transaction| {
        store::silences::end(transaction, id, &caller.subject, Utc::now()).await
    })
    .await
}
