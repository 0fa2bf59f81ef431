//! Problem details for records that were rejected or not acknowledged.

use std::time::Duration;

use axum::http::StatusCode;
use publisher::PublishError;
use records::Reject;

use crate::problem::{Fault, Problem};

/// `Retry-After` for a full stream: writers free space within seconds, or an operator has to act.
const FULL: Duration = Duration::from_secs(5);
/// `Retry-After` for an outage.
const AWAY: Duration = Duration::from_secs(2);

/// Returns the fault of a record that the writers would not store.
pub(super) fn fault(index: usize, reject: Reject) -> Fault {
    let field = reject.field.map(std::borrow::Cow::into_owned).unwrap_or_default();
    Fault { field, reason: reject.detail, index: Some(index), code: Some(reject.reason.name()) }
}

/// Returns 400 for records that the writers would not store. Nothing was published.
pub(super) fn bad_records(faults: Vec<Fault>) -> Problem {
    let detail = match faults.len() {
        1 => "1 record is not valid; nothing was published".to_owned(),
        many => format!("{many} records are not valid; nothing was published"),
    };
    Problem::new(StatusCode::BAD_REQUEST, "bad-records", "Records are not valid", detail).with_faults(faults, 0)
}

/// Returns the problem for records that the stream did not acknowledge: 413 for a record above the server's limit, and
/// 503 otherwise. `acknowledged` of `all` records are stored.
pub(super) fn problem(error: &PublishError, acknowledged: usize, all: usize) -> Problem {
    let (why, after) = match error {
        PublishError::TooLarge { bytes, limit, .. } => {
            // The server's limit is lower than the limit of records. Other records may have been acknowledged before.
            let detail = format!(
                "a record of {bytes} bytes exceeds the stream's limit of {limit} bytes; {acknowledged} of {all} records are stored"
            );
            return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "payload-too-large", "Payload Too Large", detail);
        }
        PublishError::StreamFull { .. } => ("the stream is full", FULL),
        PublishError::StreamMissing { .. } => ("there is no stream for this kind", FULL),
        PublishError::TimedOut { .. } | PublishError::ConnectionLost { .. } => {
            ("the stream did not respond in time", AWAY)
        }
        PublishError::NotConnected { .. } | PublishError::Closed => ("NATS is not connected", AWAY),
        _ => ("the stream refused", FULL),
    };
    tracing::warn!(%error, acknowledged, all, "not all records of a request were acknowledged");
    let may_be = error.is_unclear() || acknowledged > 0;
    let what = match (acknowledged, may_be) {
        (0, false) => "nothing was stored".to_owned(),
        (0, true) => "records may be stored: if sent again with the same ids and times, or the same Idempotency-Key, they are stored once".to_owned(),
        (some, _) => format!("{some} of {all} records are stored: if sent again with the same ids and times, or the same Idempotency-Key, they are stored once"),
    };
    Problem::unavailable(format!("{why}; {what}"), after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_told_whatever_the_reason() {
        let subject = || "watchbook.events.acme.x".to_owned();
        for error in [
            PublishError::TooLarge { subject: subject(), bytes: 9, limit: 8 },
            PublishError::StreamFull { subject: subject(), detail: String::new() },
        ] {
            let told = format!("{:?}", problem(&error, 2, 3));
            assert!(told.contains("2 of 3 records are stored"), "{told}");
        }
    }
}
