//! What goes wrong, as RFC 9457 says it: `application/problem+json`, for every error of the gateway.
//!
//! A handler returns a [`Problem`]; the middleware writes it out, because it alone knows the request's id. What axum
//! answers by itself (404, 405, 413, …) is turned into one there as well.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// Faults that one answer names at the most: who sent a thousand bad records learns enough from so many.
const FAULTS: usize = 100;

/// One field that is at fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Fault {
    /// The parameter, header or field of a record. Empty where a whole record is at fault.
    pub field: String,
    /// What is wrong with it, in words.
    pub reason: String,
    /// Which record of the request, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// The named reason, as dead letters have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub code: Option<&'static str>,
}

impl Fault {
    /// A parameter or a header.
    pub fn of(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into(), index: None, code: None }
    }
}

/// An answer that is an error.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    name: &'static str,
    title: Cow<'static, str>,
    detail: Cow<'static, str>,
    faults: Vec<Fault>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// What went wrong, as RFC 9457 says it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody<'p> {
    /// What kind of problem: a name for programs.
    r#type: String,
    /// The same for people.
    title: &'p str,
    /// The HTTP status.
    status: u16,
    /// What happened here, and what to do about it.
    detail: &'p str,
    /// Which fields are at fault.
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    errors: &'p [Fault],
    /// By which the request is found in the log.
    request_id: &'p str,
}

impl Problem {
    /// A problem of a status, with a name for programs and words for people.
    pub fn new(
        status: StatusCode,
        name: &'static str,
        title: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        let title = Cow::Borrowed(title);
        Self { status, name, title, detail: detail.into(), faults: Vec::new(), headers: Vec::new() }
    }

    /// 400: parameters, headers or a cursor are not what they have to be.
    pub fn parameters(faults: Vec<Fault>) -> Self {
        let detail = "see `errors` for what is wrong, and /api/openapi.json for what is expected";
        Self::new(StatusCode::BAD_REQUEST, "invalid-parameters", "Parameters are not valid", detail)
            .with_faults(faults, 0)
    }

    /// 404: there is nothing of this name, or nothing that the caller may know of.
    pub fn not_found() -> Self {
        Self::of_status(StatusCode::NOT_FOUND)
    }

    /// 500: a fault of ours. What happened stands in the log, and not in the answer.
    pub fn internal() -> Self {
        Self::of_status(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// 429: this caller has, or asks for, as much as one may. `detail` says of what.
    pub(crate) fn too_many(name: &'static str, detail: &'static str, after: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, name, "Too many requests", detail).retry_after(after)
    }

    /// 503: not now. `detail` says what is away.
    pub fn unavailable(detail: impl Into<Cow<'static, str>>, after: Duration) -> Self {
        let title = "Not available now";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", title, detail).retry_after(after)
    }

    /// 503 for a database that does not answer as it should; `error` goes to the log. A query that took too long is
    /// no outage: the answer says what helps.
    pub fn of_database(error: &store::Error) -> Self {
        if store::scoped_read::is_statement_timeout(error) {
            tracing::info!("a query was given up because it took too long");
            let detail = "the query takes too long: ask for a shorter time, or name more filters";
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, "asks-too-much", "Asks for too much", detail)
                .retry_after(Duration::from_secs(1));
        }
        tracing::warn!(error = store::describe(error), "Postgres did not answer a request");
        Self::unavailable("the database does not answer", Duration::from_secs(1))
    }

    /// What a status alone says: for what axum answers by itself.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        let (name, detail) = match status {
            StatusCode::NOT_FOUND => ("not-found", "nothing is here, or nothing that this caller may see"),
            StatusCode::METHOD_NOT_ALLOWED => ("method-not-allowed", "see the header Allow for what this path takes"),
            StatusCode::REQUEST_TIMEOUT => ("request-timeout", "the body did not arrive in time"),
            StatusCode::PAYLOAD_TOO_LARGE => ("payload-too-large", "the body is larger than this gateway takes"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                ("unsupported-media-type", "the body is of another type than is taken here")
            }
            StatusCode::SERVICE_UNAVAILABLE => ("unavailable", "not now: try again"),
            status if status.is_server_error() => {
                ("internal", "a fault of this server; `request_id` finds it in its log")
            }
            _ => ("bad-request", "the request cannot be read"),
        };
        let title = status.canonical_reason().unwrap_or("Error");
        Self::new(status, name, title, detail)
    }

    /// With the fields that are at fault.
    pub(crate) fn with_faults(mut self, mut faults: Vec<Fault>, more: usize) -> Self {
        let left_out = faults.len().saturating_sub(FAULTS) + more;
        faults.truncate(FAULTS);
        if left_out > 0 {
            self.detail = format!("{}; {left_out} more are not listed", self.detail).into();
        }
        self.faults = faults;
        self
    }

    /// With a header.
    pub(crate) fn with_header(mut self, name: HeaderName, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers.push((name, value));
        }
        self
    }

    /// With `Retry-After`, in whole seconds and at least one.
    pub(crate) fn retry_after(self, after: Duration) -> Self {
        let seconds = after.as_millis().div_ceil(1000).max(1);
        self.with_header(header::RETRY_AFTER, seconds.to_string())
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Written out, with what the middleware knows.
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
        // Written out by the middleware.
        response.extensions_mut().insert(self);
        response
    }
}
