//! `POST` and `DELETE /api/session`: browsers sign in with a token, and sign out.

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

/// Maximum size of a sign-in request. Anybody may send one, so these must not use up the memory for published bodies.
const SIGN_IN_BYTES: u64 = 16 * 1024;
/// Maximum length of a token in a cookie: browsers silently drop cookies above 4 KiB.
const COOKIE_BYTES: usize = 3_900;

/// The body of a sign-in request.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignIn {
    /// A token, such as `watchbook token create` prints.
    token: String,
}

/// Sign in: store the token in a cookie that scripts cannot read.
///
/// With the cookie, state-changing requests also need the header `X-Watchbook-CSRF`, with any value.
#[utoipa::path(post, path = "/api/session", request_body = SignIn, responses(
    (status = 200, description = "The session has begun. The body describes the caller.", body = Me),
    (status = 401, description = "The token is not valid.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
    (status = 429, description = "Too many requests by this caller, or too many rejected tokens from its address; see Retry-After.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn begin(
    State(app): State<App>,
    Query(NoParams): Query<NoParams>,
    context: RequestContext,
    headers: HeaderMap,
    request: Request,
) -> Result<impl IntoResponse, Problem> {
    session::refuse_foreign_pages(&headers, CsrfCheck::Origin)?;
    // The caller is not known before the body is read: until then, all sign-ins share the quota of the empty name.
    let body = body::read_json(&app, &"".into(), request, SIGN_IN_BYTES).await?;
    let sign_in: SignIn = serde_json::from_slice(&body.bytes)
        .map_err(|_| Problem::parameters(vec![Fault::of("token", r#"expected the body {"token": "..."}"#)]))?;
    let verified = auth::verify(&app, &sign_in.token, context.ip_address).await?;
    app.rates.charge(&verified.caller, Budget::Requests)?;
    if sign_in.token.len() > COOKIE_BYTES {
        let reason = format!(
            "is valid, but longer than the {COOKIE_BYTES} bytes that browsers keep in a cookie: name fewer organizations"
        );
        return Err(Problem::parameters(vec![Fault::of("token", reason)]));
    }
    let seconds = verified.expires_at.saturating_sub(jsonwebtoken::get_current_timestamp());
    let cookie = session::cookie(&headers, &sign_in.token, seconds);
    Ok(([(header::SET_COOKIE, cookie)], Json(Me::of(&verified.caller))))
}

/// Sign out: remove the cookie.
#[utoipa::path(delete, path = "/api/session", responses((status = 204, description = "The session has ended, or there was none.")))]
pub(crate) async fn end(Query(NoParams): Query<NoParams>, headers: HeaderMap) -> Result<impl IntoResponse, Problem> {
    let check = if session::token(&headers).is_some() { CsrfCheck::Header } else { CsrfCheck::Origin };
    session::refuse_foreign_pages(&headers, check)?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, session::no_cookie(&headers))]))
}
