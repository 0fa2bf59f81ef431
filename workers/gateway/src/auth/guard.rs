//! The guard: authorizes the requests of every route. No other code does.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Role;
use super::credentials::{self, Unreadable};
use super::session;
use super::verifier::{Expiry, Refusal, Verified};
use crate::app::App;
use crate::problem::Problem;
use crate::rate_limit::Budget;
use crate::request_context::Peer;
use crate::response_memory;

/// The access that a route requires. A route cannot be mounted without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// No token is needed.
    Public,
    /// A valid token with at least this role.
    AtLeast(Role),
}

/// The state of the guard of one route.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    pub(crate) app: App,
    pub(crate) access: Access,
    /// The budget to which the route's requests are charged.
    pub(crate) budget: Budget,
}

/// Passes an authorized request to its handler, or responds with the reason why not.
pub(crate) async fn guard(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    if let Access::AtLeast(role) = guard.access {
        let address = Peer::address(request.extensions());
        match guard.admit(request.method(), request.headers(), address, role).await {
            Ok(verified) => {
                request.extensions_mut().insert(Expiry(verified.expires_at));
                let caller = verified.caller.subject.clone();
                request.extensions_mut().insert(verified.caller);
                let answer = match guard.budget {
                    Budget::Publishing => next.run(request).await,
                    Budget::Requests => guard.with_permit(&caller, next.run(request)).await,
                };
                return response_memory::track(&guard.app, &caller, answer).await;
            }
            Err(problem) => return problem.into_response(),
        }
    }
    next.run(request).await
}

impl Guard {
    /// Runs a query with a permit of the caller's concurrency limit. The query continues if the caller disconnects: its
    /// statement still uses a database connection, so it must keep the permit.
    async fn with_permit(
        &self,
        caller: &Arc<str>,
        answer: impl Future<Output = Response> + Send + 'static,
    ) -> Response {
        let permit = self.app.query_limit.acquire(caller).await;
        // No longer than the middleware waits, or a database that never responds would keep all permits.
        let within = self.app.settings.gateway.request_timeout;
        let answering = tokio::spawn(async move {
            let answer = tokio::time::timeout(within, answer).await;
            drop(permit);
            answer
        });
        match answering.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Problem::of_status(StatusCode::SERVICE_UNAVAILABLE).into_response(),
            Err(error) => match error.try_into_panic() {
                // The middleware logs the panic.
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Problem::of_status(StatusCode::SERVICE_UNAVAILABLE).into_response(),
            },
        }
    }

    async fn admit(
        &self,
        method: &Method,
        headers: &HeaderMap,
        address: Option<IpAddr>,
        role: Role,
    ) -> Result<Verified, Problem> {
        let refuse = |reason| Err(self.app.rates.refuse(address, unauthorized(reason)));
        let credentials = match credentials::find(headers) {
            Ok(Some(credentials)) => credentials,
            Ok(None) => return refuse(None),
            Err(Unreadable) => return refuse(Some("expected one header `Authorization: Bearer <token>`")),
        };
        if credentials.by_cookie && !method.is_safe() {
            session::refuse_foreign_pages(headers, session::CsrfCheck::Header)?;
        }
        let verified = verify(&self.app, credentials.token, address).await?;
        let caller = &verified.caller;
        self.app.rates.charge(caller, self.budget)?;
        if caller.role < role { Err(forbidden(caller.role, role)) } else { Ok(verified) }
    }
}

/// Verifies a token and returns its caller. A rejected token is charged to the address.
///
/// # Errors
/// 401 for an invalid token, 429 after too many rejected tokens from this address, and 503 if the token cannot be
/// verified now.
pub(crate) async fn verify(app: &App, token: &str, address: Option<IpAddr>) -> Result<Verified, Problem> {
    app.verifier.verify(token).await.map_err(|refusal| match refusal {
        Refusal::Invalid(_) => app.rates.refuse(address, refusal.problem()),
        Refusal::Unknown(_) => refusal.problem(),
    })
}

/// Returns 401 with a challenge (RFC 6750, section 3), which has no error code if the request has no token.
pub(super) fn unauthorized(reason: Option<&str>) -> Problem {
    let detail = reason.unwrap_or("a token is required: `Authorization: Bearer <token>`, or a session").to_owned();
    let challenge = match reason {
        None => r#"Bearer realm="watchbook""#.to_owned(),
        // The reasons are messages of this crate. Quotes and backslashes are replaced, so nothing needs escaping.
        Some(reason) => {
            format!(
                r#"Bearer realm="watchbook", error="invalid_token", error_description="{}""#,
                reason.replace(['"', '\\'], "'")
            )
        }
    };
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "No valid token", detail)
        .with_header(header::WWW_AUTHENTICATE, challenge)
}

fn forbidden(has: Role, needs: Role) -> Problem {
    let (has, needs) = (has.name(), needs.name());
    let detail = format!("this requires the role `{needs}`, but the token has `{has}`");
    Problem::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed", detail).with_header(
        header::WWW_AUTHENTICATE,
        format!(r#"Bearer realm="watchbook", error="insufficient_scope", scope="{needs}""#),
    )
}
