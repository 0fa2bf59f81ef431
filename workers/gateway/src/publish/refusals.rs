//! Why records were not taken, in the words of HTTP.

use std::time::Duration;

use axum::http::StatusCode;
use publisher::PublishError;
use records::Reject;

use crate::problem::{Fault, Problem};

/// When to send again what a full stream refused: writers free their room within seconds, or somebody has to help.
const FULL: Duration = Duration::from_secs(5);
/// When to send again what an outage refused.
const AWAY: Duration = Duration::from_secs(2);

/// A record that the writers would not store.
pub(super) fn fault(index: usize, reject: Reject) -> Fault {
    let field = reject.field.map(std::borrow::Cow::into_owned).unwrap_or_default();
    Fault { field, reason: reject.detail, index: Some(index), code: Some(reject.reason.name()) }
}

/// 400 for records that the writers would not store. Nothing was published.
pub(super) fn bad_records(faults: Vec<Fault>) -> Problem {
    let detail = format!("{} records are not valid; nothing was published", faults.len());
    Problem::new(StatusCode::BAD_REQUEST, "bad-records", "Records are not valid", detail).with_faults(faults, 0)
}

/// What the stream did not take, of so many records.
pub(super) fn problem(error: &PublishError, acknowledged: usize, all: usize) -> Problem {
    let (why, after) = match error {
        PublishError::TooLarge { bytes, limit, .. } => {
            // The server's limit, below that of records: others may have been taken before it was reached.
            let detail = format!(
                "a record of {bytes} bytes is larger than the stream takes ({limit} bytes); {acknowledged} of {all} records are stored"
            );
            return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "payload-too-large", "Payload Too Large", detail);
        }
        PublishError::StreamFull { .. } => ("the stream is full", FULL),
        PublishError::StreamMissing { .. } => ("there is no stream for this kind", FULL),
        PublishError::TimedOut { .. } | PublishError::ConnectionLost { .. } => {
            ("the stream did not answer in time", AWAY)
        }
        PublishError::NotConnected { .. } | PublishError::Closed => ("NATS is away", AWAY),
        _ => ("the stream refused", FULL),
    };
    tracing::warn!(%error, acknowledged, all, "records that were posted are not all acknowledged");
    let may_be = error.is_unclear() || acknowledged > 0;
    let what = match (acknowledged, may_be) {
        (0, false) => "nothing was stored".to_owned(),
        (0, true) => "records may be stored: sent again with the same ids and times, or the same Idempotency-Key, they are stored once".to_owned(),
        (some, _) => format!("{some} of {all} records are stored: sent again with the same ids and times, or the same Idempotency-Key, they are stored once"),
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
