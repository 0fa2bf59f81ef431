//! Answers that are ready and not yet sent: bounded all together, because who reads slowly, or not at all, keeps them.

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

/// What answers that are held may have together: as much as some tens of the largest.
pub(crate) const TOTAL_BYTES: u64 = 256 << 20;
/// And those of one caller, so that one who does not read leaves others theirs.
pub(crate) const CALLER_BYTES: u64 = TOTAL_BYTES / 2;
/// Answers below this are not counted: the connection's own buffers have as much.
const SMALL: u64 = 64 * 1024;
/// What is handed to the connection at once: it lets go of what it is handed, and takes the next when there is room.
const CHUNK: usize = 64 * 1024;
/// When some may have been read.
const READ_AFTER: Duration = Duration::from_secs(1);

/// A body, and the room that it takes until its last piece is taken.
struct TrackedBody {
    rest: Bytes,
    _permit: Permit,
}

/// Counts a caller's answer for as long as it waits, or refuses to hold it. What is written while it is sent, such as an
/// export, passes as it is.
pub(crate) async fn track(app: &App, caller: &Arc<str>, answer: Response) -> Response {
    let Some(bytes) = answer.body().size_hint().exact().filter(|bytes| *bytes > SMALL) else { return answer };
    let permit = match app.response_memory.acquire(caller, bytes) {
        Ok(permit) => permit,
        Err(QuotaExceeded::Caller) => {
            let detail = "this caller has as many answers unread as it may have: read them, or ask for less at once";
            return Problem::too_many("unread-answers", detail, READ_AFTER).into_response();
        }
        Err(QuotaExceeded::Total) => {
            return Problem::unavailable("too many answers are on their way", READ_AFTER).into_response();
        }
    };
    let (parts, body) = answer.into_parts();
    match to_bytes(body, usize::MAX).await {
        Ok(rest) => Response::from_parts(parts, Body::new(TrackedBody { rest, _permit: permit })),
        Err(error) => {
            tracing::error!(%error, "an answer that was ready cannot be read, which is a bug");
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
