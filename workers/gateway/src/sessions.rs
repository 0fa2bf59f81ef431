//! `POST` and `DELETE /api/session`: how a browser signs in with a token, and out.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::session::{self, CsrfCheck};
use crate::problem::{Fault, Problem};
use crate::queries::me::Me;
use crate::query::{NoParams, Query};
use crate::rate_limit::Budget;
use crate::request_context::RequestContext;
use crate::{auth, body};

/// A request to sign in at the most. Anybody may send one, so it must not take the room of those who publish.
const SIGN_IN_BYTES: u64 = 16 * 1024;
/// A token that becomes a cookie at the most: browsers drop a cookie above 4 KiB without a word.
const COOKIE_BYTES: usize = 3_900;

/// What a browser signs in with.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignIn {
    /// A token, as `watchbook token create` makes it.
    token: String,
}

/// Begins a session: the token goes into a cookie that no script can read.
///
/// With the cookie, requests that change something need the header `X-Watchbook-CSRF` too.
#[utoipa::path(post, path = "/api/session", request_body = SignIn, responses(
    (status = 200, description = "Who signed in.", body = Me),
    (status = 401, description = "The token is not valid.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
    (status = 429, description = "Too many requests of this caller, or refused tokens from its address; see Retry-After.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn begin(
    State(app): State<App>,
    Query(NoParams): Query<NoParams>,
    context: RequestContext,
    headers: HeaderMap,
    request: Request,
) -> Result<impl IntoResponse, Problem> {
    session::refuse_foreign_pages(&headers, CsrfCheck::Origin)?;
    // Who they are is in it: until then all who sign in are one caller, of a name that nobody has.
    let body = body::read_json(&app, &"".into(), request, SIGN_IN_BYTES).await?;
    let sign_in: SignIn = serde_json::from_slice(&body.bytes)
        .map_err(|_| Problem::parameters(vec![Fault::of("token", r#"expected the body {"token": "..."}"#)]))?;
    let verified = auth::verify(&app, &sign_in.token, context.ip_address).await?;
    app.rates.charge(&verified.caller, Budget::Requests)?;
    if sign_in.token.len() > COOKIE_BYTES {
        let reason = format!(
            "is good, but longer than the {COOKIE_BYTES} bytes that browsers keep in a cookie: name fewer organizations"
        );
        return Err(Problem::parameters(vec![Fault::of("token", reason)]));
    }
    let seconds = verified.expires_at.saturating_sub(jsonwebtoken::get_current_timestamp());
    let cookie = session::cookie(&headers, &sign_in.token, seconds);
    Ok(([(header::SET_COOKIE, cookie)], Json(Me::of(&verified.caller))))
}

/// Ends the session.
#[utoipa::path(delete, path = "/api/session", responses((status = 204, description = "There is no session any more.")))]
pub(crate) async fn end(Query(NoParams): Query<NoParams>, headers: HeaderMap) -> Result<impl IntoResponse, Problem> {
    let check = if session::token(&headers).is_some() { CsrfCheck::Header } else { CsrfCheck::Origin };
    session::refuse_foreign_pages(&headers, check)?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, session::no_cookie(&headers))]))
}
