//! Why a record was not acknowledged, and whether trying again can help.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::ErrorCode;
use records::Reject;

/// The answer of a stream that cannot take a message now, most often because it is full.
const STORE_FAILED: ErrorCode = ErrorCode(10077);

/// Why a record was not acknowledged.
///
/// Every variant says in words what to do about it. [`PublishError::is_retryable`] says whether the
/// same record may be acknowledged later, [`PublishError::is_unclear`] whether it may be stored
/// already: publishing it again with the same id and time is harmless either way.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The record breaks the contract and would be a dead letter. Nothing was sent.
    #[error("the record was refused before it was sent: {0}")]
    Rejected(#[from] Reject),
    /// The record cannot be written as JSON. Nothing was sent.
    #[error("the record cannot be written as JSON: {0}")]
    NotJson(String),
    /// A prefix, an organization, a subject or a header cannot stand in a message. Nothing was sent.
    #[error("cannot publish: {0}")]
    Invalid(String),
    /// The message is larger than the server or the stream takes. Nothing was stored.
    #[error(
        "a message of {bytes} bytes on `{subject}` is too large (the server's max_payload is {limit} bytes): make the record smaller, or raise max_payload and the stream's max_msg_size"
    )]
    TooLarge {
        /// Where it was to go.
        subject: String,
        /// Headers and body, in bytes.
        bytes: usize,
        /// The server's `max_payload`, in bytes.
        limit: usize,
    },
    /// No stream takes the subject. Nothing was stored. Passes while a server or a cluster starts.
    #[error("no stream takes `{subject}`: run `watchbook setup`, or check the prefix")]
    StreamMissing {
        /// Where it was to go.
        subject: String,
    },
    /// The stream is full and refuses rather than forgets. Nothing was stored.
    #[error(
        "the stream that takes `{subject}` stored nothing ({detail}): the writers are behind or stopped; retry later, or raise the stream's max_bytes"
    )]
    StreamFull {
        /// Where it was to go.
        subject: String,
        /// What the server said.
        detail: String,
    },
    /// The server said that this connection may not publish there. Nothing was stored.
    #[error(
        "not permitted to publish on `{subject}`: {detail}; a producer needs publish on its own subjects and subscribe on its inbox"
    )]
    NotPermitted {
        /// Where it was to go.
        subject: String,
        /// What the server said.
        detail: String,
    },
    /// No answer in time: unclear whether the record is stored. A subject that is forbidden can
    /// show as this too, see [`Publisher::from_client`](crate::Publisher::from_client).
    #[error(
        "no acknowledgement for `{subject}` within {waited:?}: it may or may not be stored, publish the same record again; a user without permission for the subject or for its inbox sees this too"
    )]
    TimedOut {
        /// Where it went.
        subject: String,
        /// How long the answer was awaited.
        waited: Duration,
    },
    /// The connection broke while the answer was awaited: unclear whether the record is stored.
    #[error("the connection was lost before `{subject}` was acknowledged: publish the same record again")]
    ConnectionLost {
        /// Where it went.
        subject: String,
    },
    /// There was no connection for the whole wait. Nothing was sent.
    #[error("not connected to NATS for {waited:?}: nothing was sent, and the client keeps trying to connect")]
    NotConnected {
        /// How long a connection was awaited.
        waited: Duration,
    },
    /// The server gave up an atomic batch, because a part of it did not arrive or was refused.
    /// Nothing of it was stored.
    #[error("the atomic batch that ends on `{subject}` was given up by the server, nothing of it is stored: {detail}")]
    BatchAbandoned {
        /// The subject of its last message.
        subject: String,
        /// What the server said.
        detail: String,
    },
    /// The server answered with another error. Nothing was stored.
    #[error("JetStream refused `{subject}`: {detail}")]
    Refused {
        /// Where it was to go.
        subject: String,
        /// The status: below 500 the message is at fault, from 500 on the server.
        status: usize,
        /// JetStream's number for the error, such as 10054.
        code: u64,
        /// What the server said.
        detail: String,
    },
    /// A stream of another JetStream domain acknowledged, see
    /// [`Builder::jetstream_domain`](crate::Builder::jetstream_domain). It has the record; whether one of the wanted
    /// domain has it too is unclear.
    #[error(
        "`{subject}` was acknowledged by the stream {stream} of the JetStream domain `{domain}`, and not of `{wanted}`: no stream of another domain may take this subject"
    )]
    OtherDomain {
        /// Where it went.
        subject: String,
        /// The domain that was asked for.
        wanted: String,
        /// The domain that acknowledged; empty where that server has none.
        domain: String,
        /// The stream that acknowledged.
        stream: String,
    },
    /// The client was closed or drained, or gave up reconnecting. Nothing was sent.
    #[error("the NATS connection is closed for good: connect again")]
    Closed,
}

impl PublishError {
    /// Whether the same record may be acknowledged when it is published again later.
    ///
    /// `false` means that it never will be as it is: the record, its size or a permission must change.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::StreamMissing { .. }
            | Self::StreamFull { .. }
            | Self::TimedOut { .. }
            | Self::ConnectionLost { .. }
            | Self::NotConnected { .. }
            | Self::BatchAbandoned { .. } => true,
            Self::Refused { status, code, .. } => {
                *status >= 500 || *code == ErrorCode::ATOMIC_PUBLISH_TOO_MANY_INFLIGHT.0
            }
            Self::Rejected(_)
            | Self::NotJson(_)
            | Self::Invalid(_)
            | Self::TooLarge { .. }
            | Self::NotPermitted { .. }
            | Self::OtherDomain { .. }
            | Self::Closed => false,
        }
    }

    /// Whether the record may be stored although it was not acknowledged.
    pub fn is_unclear(&self) -> bool {
        matches!(self, Self::TimedOut { .. } | Self::ConnectionLost { .. } | Self::OtherDomain { .. })
    }

    /// Whether trying again within a second makes sense: the answer was lost, not the place for it.
    pub(crate) fn is_worth_repeating_at_once(&self) -> bool {
        matches!(self, Self::TimedOut { .. } | Self::ConnectionLost { .. })
            || matches!(self, Self::BatchAbandoned { .. })
            || matches!(self, Self::Refused { code, .. } if *code == ErrorCode::ATOMIC_PUBLISH_TOO_MANY_INFLIGHT.0)
    }

    /// Whether the stream or its server takes no atomic batches, or none as large as JetStream's own bound.
    pub(crate) fn is_without_atomic_batches(&self) -> bool {
        const WITHOUT: [u64; 2] = [ErrorCode::ATOMIC_PUBLISH_DISABLED.0, ErrorCode::ATOMIC_PUBLISH_TOO_LARGE_BATCH.0];
        matches!(self, Self::Refused { code, .. } if WITHOUT.contains(code))
    }

    /// What a server that knows nothing of atomic batches would have said, had it known of them.
    pub(crate) fn without_atomic_batches(subject: &str) -> Self {
        let code = ErrorCode::ATOMIC_PUBLISH_DISABLED.0;
        let detail = "the server takes no atomic batches".to_owned();
        Self::Refused { subject: subject.to_owned(), status: 400, code, detail }
    }

    /// What JetStream's own error answer means for a message.
    pub(crate) fn from_server(error: &jetstream::Error, subject: &str, bytes: usize, limit: usize) -> Self {
        let subject = subject.to_owned();
        let detail = error.to_string();
        match error.error_code() {
            STORE_FAILED => Self::StreamFull { subject, detail },
            ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => Self::TooLarge { subject, bytes, limit },
            ErrorCode::ATOMIC_PUBLISH_INCOMPLETE_BATCH => Self::BatchAbandoned { subject, detail },
            code => Self::Refused { subject, status: error.code(), code: code.0, detail },
        }
    }
}

#[cfg(test)]
mod tests {
    use records::Reason;

    use super::*;

    fn server(status: usize, code: u64) -> PublishError {
        let error = serde_json::json!({ "code": status, "err_code": code, "description": "said the server" });
        let error: jetstream::Error = serde_json::from_value(error).unwrap();
        PublishError::from_server(&error, "watchbook.events._.x", 10, 1024)
    }

    #[test]
    fn what_may_pass_is_retryable_and_what_never_will_is_not() {
        let subject = || "watchbook.events._.x".to_owned();
        let waited = Duration::from_secs(5);
        let cases = [
            (PublishError::Rejected(Reject::message(Reason::InvalidJson, "no object")), false, false),
            (PublishError::NotJson("a map with keys that are no text".to_owned()), false, false),
            (PublishError::Invalid("a subject with a space".to_owned()), false, false),
            (PublishError::TooLarge { subject: subject(), bytes: 2, limit: 1 }, false, false),
            (PublishError::StreamMissing { subject: subject() }, true, false),
            (PublishError::StreamFull { subject: subject(), detail: String::new() }, true, false),
            (PublishError::NotPermitted { subject: subject(), detail: String::new() }, false, false),
            (PublishError::TimedOut { subject: subject(), waited }, true, true),
            (PublishError::ConnectionLost { subject: subject() }, true, true),
            (PublishError::NotConnected { waited }, true, false),
            (PublishError::BatchAbandoned { subject: subject(), detail: String::new() }, true, false),
            (PublishError::Closed, false, false),
            (
                PublishError::OtherDomain {
                    subject: subject(),
                    wanted: "hub".to_owned(),
                    domain: "leaf".to_owned(),
                    stream: "WATCHBOOK_EVENTS".to_owned(),
                },
                false,
                true,
            ),
            (server(503, 10077), true, false),  // maximum bytes exceeded
            (server(503, 10008), true, false),  // JetStream system temporarily unavailable
            (server(503, 10023), true, false),  // insufficient resources
            (server(500, 10041), true, false),  // RAFT
            (server(400, 10054), false, false), // message size exceeds maximum allowed
            (server(400, 10176), true, false),  // batch incomplete
            (server(429, 10210), true, false),  // too many atomic batches in flight
            (server(400, 10071), false, false), // wrong last sequence
        ];
        for (error, retryable, unclear) in cases {
            assert_eq!(error.is_retryable(), retryable, "retryable: {error}");
            assert_eq!(error.is_unclear(), unclear, "unclear: {error}");
        }
    }

    #[test]
    fn the_words_help() {
        let missing = PublishError::StreamMissing { subject: "watchbook.events._.x".to_owned() };
        assert!(missing.to_string().contains("watchbook setup"));
        assert!(matches!(server(503, 10077), PublishError::StreamFull { .. }));
        assert!(server(503, 10077).to_string().contains("max_bytes"));
        assert!(matches!(server(400, 10054), PublishError::TooLarge { .. }));
    }
}
