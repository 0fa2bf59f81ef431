//! The one place that lets a request through, for every route.

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

/// Who may call a route. Each route is mounted with one of these, and there is no other way to mount it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody, without a token.
    Public,
    /// Who has at least this role.
    AtLeast(Role),
}

/// What the guard of one route knows.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    pub(crate) app: App,
    pub(crate) access: Access,
    /// Out of which budget the route's requests are paid.
    pub(crate) budget: Budget,
}

/// Lets a request through to its route, or says why not.
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
    /// Answers when it is the caller's turn, and goes on where they hang up: what they have asked keeps its connection to
    /// the database as long as before, and so has to keep its turn.
    async fn with_permit(
        &self,
        caller: &Arc<str>,
        answer: impl Future<Output = Response> + Send + 'static,
    ) -> Response {
        let permit = self.app.query_limit.acquire(caller).await;
        // And no longer than the middleware waits, or a database that never answers would keep all turns.
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
                // The middleware tells of it.
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

/// Who a token says that its bearer is. Of one that is refused the address pays.
///
/// # Errors
/// 401 where the token is not good, 429 where too many from this address were not, 503 where nobody can tell.
pub(crate) async fn verify(app: &App, token: &str, address: Option<IpAddr>) -> Result<Verified, Problem> {
    app.verifier.verify(token).await.map_err(|refusal| match refusal {
        Refusal::Invalid(_) => app.rates.refuse(address, refusal.problem()),
        Refusal::Unknown(_) => refusal.problem(),
    })
}

/// 401, as RFC 6750 says it: without a reason where no token came at all.
pub(super) fn unauthorized(reason: Option<&str>) -> Problem {
    let detail = reason.unwrap_or("a token is needed: `Authorization: Bearer <token>`, or a session").to_owned();
    let challenge = match reason {
        None => r#"Bearer realm="watchbook""#.to_owned(),
        // Of what may stand between the quotes nothing has to be escaped: the reasons are our own words.
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
    let detail = format!("this needs the role `{needs}`, and the token has `{has}`");
    Problem::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed", detail).with_header(
        header::WWW_AUTHENTICATE,
        format!(r#"Bearer realm="watchbook", error="insufficient_scope", scope="{needs}""#),
    )
}
