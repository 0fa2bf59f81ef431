//! Middleware for every request: request id, time-out, panic handler, metrics, and security headers for browsers.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use futures::FutureExt;
use uuid::Uuid;

use crate::metrics;
use crate::problem::Problem;

/// The header with the id by which a request is found in the log. A valid id sent by the caller is kept.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Maximum length of an id sent by the caller: enough for any trace id.
const REQUEST_ID_BYTES: usize = 128;
/// The metric label for a request that matched no route, and for an unknown method.
const OTHER: &str = "other";

/// The id of a request, for log messages and problem details.
#[derive(Debug, Clone)]
pub struct RequestId(HeaderValue);

impl RequestId {
    fn of(headers: &HeaderMap) -> Self {
        let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:".contains(b);
        let own = headers
            .get(&REQUEST_ID)
            .filter(|value| (1..=REQUEST_ID_BYTES).contains(&value.len()) && value.as_bytes().iter().all(is_plain));
        let new = || HeaderValue::from_str(Uuid::now_v7().simple().encode_lower(&mut Uuid::encode_buffer()));
        Self(own.cloned().or_else(|| new().ok()).unwrap_or(HeaderValue::from_static("-")))
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or("-")
    }
}

/// Counts a request in flight until it is dropped, including when the caller disconnects.
struct InFlight;

impl InFlight {
    fn new() -> Self {
        ::metrics::gauge!(metrics::IN_FLIGHT).increment(1);
        Self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        ::metrics::gauge!(metrics::IN_FLIGHT).decrement(1);
    }
}

/// Passes a request on, and always responds: with 503 after the time-out `within`, and with 500 after a panic.
pub(crate) async fn wrap_request(State(within): State<Duration>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let in_flight = InFlight::new();
    let id = RequestId::of(request.headers());
    let route = request.extensions().get::<MatchedPath>().map_or(OTHER, MatchedPath::as_str).to_owned();
    let method = method_label(request.method());
    request.extensions_mut().insert(id.clone());
    // Unwind safety: the state of a handler is dropped in a panic; shared state is read-only or behind locks.
    let answer = AssertUnwindSafe(tokio::time::timeout(within, next.run(request))).catch_unwind().await;
    let mut response = match answer {
        Ok(Ok(response)) => into_problem(response, &id),
        Ok(Err(_)) => {
            tracing::warn!(request_id = id.as_str(), route, "a request timed out");
            Problem::unavailable("the request took too long and was cancelled", Duration::from_secs(1))
                .write(id.as_str())
        }
        Err(_) => {
            tracing::error!(request_id = id.as_str(), route, "a request ended in a panic, which is a bug");
            Problem::internal().write(id.as_str())
        }
    };
    drop(in_flight);
    let status = response.status().as_str().to_owned();
    ::metrics::counter!(metrics::REQUESTS, "method" => method, "route" => route.clone(), "status" => status)
        .increment(1);
    ::metrics::histogram!(metrics::SECONDS, "route" => route).record(started.elapsed());
    set_security_headers(response.headers_mut());
    response.headers_mut().insert(REQUEST_ID, id.0);
    response
}

/// Turns an error response without a body of its own into problem details. Returns other responses unchanged.
fn into_problem(response: Response, id: &RequestId) -> Response {
    if let Some(problem) = response.extensions().get::<Problem>() {
        return problem.write(id.as_str());
    }
    let status = response.status();
    let has_body =
        response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| !kind.as_bytes().starts_with(b"text/"));
    if !(status.is_client_error() || status.is_server_error()) || has_body {
        return response;
    }
    let mut answer = Problem::of_status(status).write(id.as_str());
    if let Some(allow) = response.headers().get(header::ALLOW) {
        answer.headers_mut().insert(header::ALLOW, allow.clone());
    }
    answer
}

/// Sets security headers unless the handler did: browsers must not cache, sniff, frame or execute a response.
fn set_security_headers(headers: &mut HeaderMap) {
    const DEFAULTS: [(HeaderName, &str); 4] = [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in DEFAULTS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    async fn answer(within: Duration, path: &str) -> (Response, serde_json::Value) {
        let router = Router::new()
            .route("/panics", get(async || -> StatusCode { panic!("a secret of the handler") }))
            .route("/hangs", get(std::future::pending::<StatusCode>))
            .route("/fails", get(async || (StatusCode::INTERNAL_SERVER_ERROR, "a secret of the handler")))
            .route("/unready", get(async || (StatusCode::SERVICE_UNAVAILABLE, axum::Json("why"))))
            .layer(from_fn_with_state(within, wrap_request));
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let (parts, body) = router.oneshot(request).await.unwrap().into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (Response::from_parts(parts, Body::empty()), serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn whatever_happens_is_answered_without_its_secrets() {
        const LONG: Duration = Duration::from_secs(3_600);
        for (within, path, status) in [(LONG, "/panics", 500), (Duration::ZERO, "/hangs", 503), (LONG, "/fails", 500)] {
            let (response, problem) = answer(within, path).await;
            assert_eq!(response.status(), status, "{path}");
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
            assert_eq!(problem["status"], status);
            assert!(!problem.to_string().contains("secret"), "{problem}");
            assert_eq!(problem["request_id"].as_str(), response.headers()[&REQUEST_ID].to_str().ok());
        }
        let (response, said) = answer(LONG, "/unready").await;
        assert_eq!(
            (response.status().as_u16(), said),
            (503, serde_json::json!("why")),
            "a body set by the handler is kept"
        );
    }
}
