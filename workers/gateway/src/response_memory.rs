//! The memory budget for unsent responses: a client that reads slowly, or not at all, keeps its responses in memory.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody, to_bytes};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use crate::app::App;
use crate::problem::Problem;
use crate::quota::{Permit, QuotaExceeded};

/// Memory for the unsent responses of all callers: some tens of the largest responses.
pub(crate) const TOTAL_BYTES: u64 = 256 << 20;
/// Memory for the unsent responses of one caller, so that a caller that does not read leaves memory to others.
pub(crate) const CALLER_BYTES: u64 = TOTAL_BYTES / 2;
/// Responses up to this size, in bytes, are not counted: the connection's own buffers are as large.
const SMALL: u64 = 64 * 1024;
/// Size of the frames that are handed to the connection, in bytes. It asks for the next one when it has room.
const CHUNK: usize = 64 * 1024;
/// `Retry-After` when the budget is used up: by then, clients may have read some responses.
const READ_AFTER: Duration = Duration::from_secs(1);

/// A body with its permit for memory, which is released with the body.
struct TrackedBody {
    rest: Bytes,
    _permit: Permit,
}

/// Charges a response to the caller's memory budget until it is sent, or replaces it with 429 or 503 if the budget is
/// used up. Small responses, and responses without a known size, such as exports, are returned unchanged.
pub(crate) async fn track(app: &App, caller: &Arc<str>, answer: Response) -> Response {
    let Some(bytes) = answer.body().size_hint().exact().filter(|bytes| *bytes > SMALL) else { return answer };
    let permit = match app.response_memory.acquire(caller, bytes) {
        Ok(permit) => permit,
        Err(QuotaExceeded::Caller) => {
            let detail = "this caller has too many unread responses: read them, or request less at once";
            return Problem::too_many("unread-answers", detail, READ_AFTER).into_response();
        }
        Err(QuotaExceeded::Total) => {
            return Problem::unavailable("too many responses are waiting to be read", READ_AFTER).into_response();
        }
    };
    let (parts, body) = answer.into_parts();
    match to_bytes(body, usize::MAX).await {
        Ok(rest) => Response::from_parts(parts, Body::new(TrackedBody { rest, _permit: permit })),
        Err(error) => {
            tracing::error!(%error, "the body of a complete response cannot be read, which is a bug");
            Problem::internal().into_response()
        }
    }
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let chunk = CHUNK.min(self.rest.len());
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(chunk)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
