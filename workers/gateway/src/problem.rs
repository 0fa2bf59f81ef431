//! Problem details (RFC 9457): every error of the gateway is `application/problem+json`.
//!
//! Handlers return a [`Problem`]. The middleware writes its body, because only the middleware knows the request id. It
//! also turns axum's own error responses (404, 405, 413, …) into problem details.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// Maximum number of faults in a response. Further faults are counted: so many are enough to find the mistake.
const FAULTS: usize = 100;

/// An invalid field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Fault {
    /// The parameter, header or field of a record. Empty if a whole record is invalid.
    pub field: String,
    /// The reason, for people.
    pub reason: String,
    /// The index of the record in the request, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// The reason for programs: one of the reasons of dead letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub code: Option<&'static str>,
}

impl Fault {
    /// Creates a fault of a parameter or a header.
    pub fn of(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into(), index: None, code: None }
    }
}

/// An error response.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    name: &'static str,
    title: Cow<'static, str>,
    detail: Cow<'static, str>,
    faults: Vec<Fault>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Problem details (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody<'p> {
    /// The type of the problem, a URN for programs.
    r#type: String,
    /// The type of the problem, for people.
    title: &'p str,
    /// The HTTP status code.
    status: u16,
    /// What happened in this request, and how to fix it.
    detail: &'p str,
    /// The invalid fields, at most 100.
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    errors: &'p [Fault],
    /// The id of the request, by which it is found in the server's log.
    request_id: &'p str,
}

impl Problem {
    /// Creates a problem with a `name` for programs, and `title` and `detail` for people.
    pub fn new(
        status: StatusCode,
        name: &'static str,
        title: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        let title = Cow::Borrowed(title);
        Self { status, name, title, detail: detail.into(), faults: Vec::new(), headers: Vec::new() }
    }

    /// Returns 400 for invalid parameters, headers or cursors.
    pub fn parameters(faults: Vec<Fault>) -> Self {
        let detail = "see `errors` for the invalid fields, and /api/openapi.json for what is expected";
        Self::new(StatusCode::BAD_REQUEST, "invalid-parameters", "The parameters are not valid", detail)
            .with_faults(faults, 0)
    }

    /// Returns 404 for something that does not exist, or that the caller may not see.
    pub fn not_found() -> Self {
        Self::of_status(StatusCode::NOT_FOUND)
    }

    /// Returns 500 for a bug. The caller of this function logs the cause; the response does not contain it.
    pub fn internal() -> Self {
        Self::of_status(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Returns 429 for a caller that exceeded a rate limit or quota. `detail` names it.
    pub(crate) fn too_many(name: &'static str, detail: &'static str, after: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, name, "Too many requests", detail).retry_after(after)
    }

    /// Returns 503. `detail` names what is unavailable.
    pub fn unavailable(detail: impl Into<Cow<'static, str>>, after: Duration) -> Self {
        let title = "Temporarily unavailable";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", title, detail).retry_after(after)
    }

    /// Returns 503 for an error of the database, and logs `error`. A statement time-out is not an outage: its response
    /// says how to make the query cheaper.
    pub fn of_database(error: &store::Error) -> Self {
        if store::scoped_read::is_statement_timeout(error) {
            tracing::info!("a query was cancelled because it took too long");
            let detail = "the query takes too long: ask for a shorter time, or name more filters";
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, "asks-too-much", "Query takes too long", detail)
                .retry_after(Duration::from_secs(1));
        }
        tracing::warn!(error = store::describe(error), "a request failed because of a database error");
        Self::unavailable("the database is not available", Duration::from_secs(1))
    }

    /// Returns the problem for a status without further details, such as those of axum's own error responses.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        let (name, detail) = match status {
            StatusCode::NOT_FOUND => ("not-found", "this does not exist, or the caller may not see it"),
            StatusCode::METHOD_NOT_ALLOWED => ("method-not-allowed", "see the header Allow for supported methods"),
            StatusCode::REQUEST_TIMEOUT => ("request-timeout", "the body did not arrive in time"),
            StatusCode::PAYLOAD_TOO_LARGE => ("payload-too-large", "the body is larger than this gateway accepts"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                ("unsupported-media-type", "this route does not accept the media type of the body")
            }
            StatusCode::SERVICE_UNAVAILABLE => ("unavailable", "temporarily unavailable: try again"),
            status if status.is_server_error() => {
                ("internal", "an error of this server; `request_id` identifies the request in its log")
            }
            _ => ("bad-request", "the request cannot be read"),
        };
        let title = status.canonical_reason().unwrap_or("Error");
        Self::new(status, name, title, detail)
    }

    /// Adds faults, at most [`FAULTS`]. `more` is the number of faults that were not collected.
    pub(crate) fn with_faults(mut self, mut faults: Vec<Fault>, more: usize) -> Self {
        let left_out = faults.len().saturating_sub(FAULTS) + more;
        faults.truncate(FAULTS);
        if left_out > 0 {
            self.detail = format!("{}; {left_out} more are not listed", self.detail).into();
        }
        self.faults = faults;
        self
    }

    /// Adds a response header. An invalid value is ignored.
    pub(crate) fn with_header(mut self, name: HeaderName, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers.push((name, value));
        }
        self
    }

    /// Adds `Retry-After`, in whole seconds, rounded up, and at least one.
    pub(crate) fn retry_after(self, after: Duration) -> Self {
        let seconds = after.as_millis().div_ceil(1000).max(1);
        self.with_header(header::RETRY_AFTER, seconds.to_string())
    }

    /// Returns the HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Builds the response, with the request id from the middleware.
    pub(crate) fn write(&self, request_id: &str) -> Response {
        let written = ProblemBody {
            r#type: format!("urn:watchbook:problem:{}", self.name),
            title: &self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            errors: &self.faults,
            request_id,
        };
        let mut response = Response::new(Body::from(serde_json::to_vec(&written).unwrap_or_default()));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        for (name, value) in &self.headers {
            response.headers_mut().append(name, value.clone());
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        // The middleware writes the body.
        response.extensions_mut().insert(self);
        response
    }
}
