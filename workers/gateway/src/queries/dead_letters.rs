//! `GET /api/dead-letters`, `GET /api/dead-letters/{id}` and `POST /api/dead-letters/{id}/replay` or `discard`.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use chrono::TimeDelta;
use records::{Kind, Reason};
use serde_json::{Value, json};
use store::dead_letters::{self as letters, Settled, StoredDeadLetter};
use store::queries::dead_letters::{self, DeadLetterFilter, DeadLetterRow};
use store::scoped_read::Scope;
use utoipa::IntoParams;
use utoipa::openapi::Object;
use uuid::Uuid;

use super::listing::{self, TimeLimits};
use super::mutation;
use crate::app::App;
use crate::audited_action::AuditedAction;
use crate::auth::Caller;
use crate::openapi;
use crate::page::{List, Page};
use crate::problem::Problem;
use crate::query::{FromQuery, NoParams, Parameters, Query};
use crate::request_context::RequestContext;

/// The default range is a month: older dead letters are hardly ever replayed.
const TIME_LIMITS: TimeLimits = TimeLimits { default: TimeDelta::days(30), longest: None };

/// Filters for the list of dead letters.
#[derive(Debug, Clone, Copy, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filters {
    /// Return only dead letters of this kind, such as `events`.
    #[param(schema_with = kinds)]
    kind: Option<&'static str>,
    /// Return only dead letters with this reason, such as `invalid_json`.
    #[param(schema_with = reasons)]
    reason: Option<&'static str>,
    /// Whether to include dead letters that were replayed or discarded.
    #[param(default = false, value_type = Option<bool>)]
    all: bool,
}

fn kinds() -> Object {
    openapi::one_of(Kind::ALL.iter().map(|kind| kind.name()))
}

fn reasons() -> Object {
    openapi::one_of(Reason::ALL.iter().map(|reason| reason.name()))
}

/// The query parameters of the list.
#[derive(Debug)]
pub(crate) struct ListParams {
    page: Page,
    filters: Filters,
}

impl FromQuery for ListParams {
    fn from_query(parameters: &mut Parameters) -> Self {
        let kinds: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        let reasons: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        let filters = Filters {
            kind: parameters.one_of("kind", &kinds),
            reason: parameters.one_of("reason", &reasons),
            all: parameters.flag("all").unwrap_or_default(),
        };
        Self { page: Page::from_query(parameters), filters }
    }
}

/// Lists messages that could not become rows, most recently failed first, without their bodies.
#[utoipa::path(get, path = "/api/dead-letters", operation_id = "dead_letters", params(Page, Filters), responses(
    (status = 200, description = "A page of dead letters.", body = List<DeadLetterRow>),
))]
pub(crate) async fn all(
    State(app): State<App>,
    Query(ListParams { page, filters }): Query<ListParams>,
    caller: Caller,
) -> Result<Json<List<DeadLetterRow>>, Problem> {
    let filter = DeadLetterFilter {
        organization_id: None,
        kind: filters.kind.map(str::to_owned),
        reason: filters.reason.map(str::to_owned),
        settled_too: filters.all,
    };
    listing::list(&app, &caller, "/api/dead-letters", &page, TIME_LIMITS, async |transaction, page| {
        dead_letters::list(transaction, &filter, page).await
    })
    .await
}

/// Returns the dead letter with an id, if the caller may see it.
async fn find(app: &App, caller: &Caller, id: Uuid) -> Result<StoredDeadLetter, Problem> {
    let found =
        listing::run_query(app, &caller.scope(None)?, async |transaction| dead_letters::find(transaction, id).await)
            .await?;
    found.ok_or_else(Problem::not_found)
}

/// Returns a dead letter with its body.
#[utoipa::path(get, path = "/api/dead-letters/{id}", operation_id = "dead_letter", params(("id" = Uuid, Path)), responses(
    (status = 200, description = "The dead letter.", body = StoredDeadLetter),
    (status = 404, description = "No such dead letter, or the caller may not see it.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn one(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(NoParams): Query<NoParams>,
    caller: Caller,
) -> Result<Json<Value>, Problem> {
    let letter = find(&app, &caller, mutation::id(&id)?).await?;
    let mut letter = serde_json::to_value(letter).map_err(|error| {
        tracing::error!(%error, "a dead letter cannot be serialized as JSON; this is a bug");
        Problem::internal()
    })?;
    if caller.scope(None)? != Scope::All {
        // The position in the stream would reveal how much other organizations publish.
        letter["stream_seq"] = Value::Null;
    }
    Ok(Json(letter))
}

/// Marks a dead letter as discarded. It is kept until retention removes it.
#[utoipa::path(post, path = "/api/dead-letters/{id}/discard", operation_id = "discard", params(("id" = Uuid, Path)), responses(
    (status = 204, description = "The dead letter is marked as discarded."),
    (status = 404, description = "No such dead letter, or the caller may not see it.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
    (status = 409, description = "It was already replayed or discarded, or another request is processing it.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn discard(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(NoParams): Query<NoParams>,
    caller: Caller,
    context: RequestContext,
) -> Result<StatusCode, Problem> {
    let letter = find(&app, &caller, mutation::id(&id)?).await?;
    mutation::apply(
        &app,
        &caller,
        &context,
        audited_action("dead_letter.discard", &letter),
        SETTLED,
        async |transaction| {
            let mine = letters::lock(transaction, std::slice::from_ref(&letter)).await?;
            Ok(letters::mark(transaction, mine, Settled::Discarded).await? > 0)
        },
    )
    .await
}

/// Publishes a dead letter again, on behalf of its original publisher. It is stored once, however often it is
/// replayed. If it still cannot become a row, it becomes a dead letter with the same id.
#[utoipa::path(post, path = "/api/dead-letters/{id}/replay", operation_id = "replay", params(("id" = Uuid, Path)), responses(
    (status = 204, description = "The stream stored it."),
    (status = 404, description = "No such dead letter, or the caller may not see it.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
    (status = 409, description = "It was already replayed or discarded, another request is processing it, or it can never be published.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn replay(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(NoParams): Query<NoParams>,
    caller: Caller,
    context: RequestContext,
) -> Result<StatusCode, Problem> {
    let letter = find(&app, &caller, mutation::id(&id)?).await?;
    // Spawned, so that it completes if the caller disconnects: a published dead letter has to be marked and audited.
    let act = async move {
        let mut transaction = app.pool.begin().await?;
        let outcome = ::replay::publish(&mut transaction, &app.publisher, std::slice::from_ref(&letter)).await?;
        if outcome.replayed.iter().any(|replayed| replayed.accepted) {
            audited_action("dead_letter.replay", &letter).write(&mut transaction, &caller, &context).await?;
        }
        transaction.commit().await?;
        Ok::<_, store::Error>(outcome)
    };
    let acted = tokio::spawn(act).await.map_err(|error| {
        tracing::error!(%error, "a replay panicked; this is a bug");
        Problem::internal()
    })?;
    let outcome = acted.map_err(|error| Problem::of_database(&error))?;
    if let Err(error) = outcome.ended {
        tracing::warn!(%error, "a dead letter was not replayed");
        return Err(Problem::unavailable("the stream does not accept the message now", Duration::from_secs(1)));
    }
    match outcome.replayed.into_iter().next() {
        Some(replayed) if replayed.accepted => Ok(StatusCode::NO_CONTENT),
        Some(replayed) => {
            let reason = replayed.reason.unwrap_or_default();
            Err(mutation::conflict(format!("the dead letter cannot be published: {reason}")))
        }
        None => Err(mutation::conflict(SETTLED)),
    }
}

const SETTLED: &str = "the dead letter was already replayed or discarded, or another request is processing it";

fn audited_action(action: &'static str, letter: &StoredDeadLetter) -> AuditedAction {
    AuditedAction {
        organization_id: letter.organization().map(str::to_owned),
        action,
        target_type: "dead_letter",
        target_id: letter.id.to_string(),
        reason: None,
        metadata: json!({ "kind": letter.kind, "reason": letter.reason, "subject": letter.subject,
                          "failed_at": letter.failed_at }),
    }
}
