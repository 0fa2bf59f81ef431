//! The errors of publishing.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::ErrorCode;
use records::Reject;

/// JetStream's error code for a stream that cannot store a message now, usually because it is full.
const STORE_FAILED: ErrorCode = ErrorCode(10077);

/// The reason why a record was not acknowledged.
///
/// The message of each variant says what to do. [`PublishError::is_retryable`] tells whether the same record can
/// succeed later, and [`PublishError::is_unclear`] whether it may be stored already. Publishing it again with the
/// same id and time is safe in both cases.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The record is invalid and would become a dead letter. Nothing was sent.
    #[error("the record is invalid and was not sent: {0}")]
    Rejected(#[from] Reject),
    /// The record cannot be serialized as JSON. Nothing was sent.
    #[error("cannot serialize the record as JSON: {0}")]
    NotJson(String),
    /// A prefix, an organization, a subject or a header is malformed. Nothing was sent.
    #[error("cannot publish: {0}")]
    Invalid(String),
    /// The message is larger than the server's `max_payload` or the stream's `max_msg_size`, or a record is larger
    /// than the `max_bytes` of a [buffer](crate::Buffered). Nothing was stored.
    #[error(
        "a message of {bytes} bytes on `{subject}` is too large (the server's max_payload is {limit} bytes): make the record smaller, or raise max_payload and the stream's max_msg_size"
    )]
    TooLarge {
        /// The subject of the message.
        subject: String,
        /// Size of the message in bytes: headers and body.
        bytes: usize,
        /// The server's `max_payload` in bytes, or the `max_bytes` of the buffer.
        limit: usize,
    },
    /// No stream matches the subject. Nothing was stored. This may be temporary while a server or a cluster starts.
    #[error("no stream matches the subject `{subject}`: run `watchbook setup`, or check the prefix")]
    StreamMissing {
        /// The subject of the message.
        subject: String,
    },
    /// The stream is full and rejects new messages. Nothing was stored.
    #[error(
        "the stream for `{subject}` cannot store the message ({detail}): the writers are behind or stopped; retry later, or raise the stream's max_bytes"
    )]
    StreamFull {
        /// The subject of the message.
        subject: String,
        /// The server's error message.
        detail: String,
    },
    /// The connection has no permission to publish on the subject. Nothing was stored.
    #[error(
        "not permitted to publish on `{subject}`: {detail}; grant the user publish on this subject and subscribe on its inbox"
    )]
    NotPermitted {
        /// The subject of the message.
        subject: String,
        /// The server's error message.
        detail: String,
    },
    /// No acknowledgement arrived in time. The record may or may not be stored. A missing permission can also end
    /// in this error, see [`Publisher::from_client`](crate::Publisher::from_client).
    #[error(
        "no acknowledgement for `{subject}` within {waited:?}: the record may or may not be stored; publish the same record again, and check that the user may publish on the subject and subscribe to its inbox"
    )]
    TimedOut {
        /// The subject of the message.
        subject: String,
        /// How long the publisher waited.
        waited: Duration,
    },
    /// The connection was lost before the acknowledgement arrived. The record may or may not be stored.
    #[error(
        "the connection was lost before `{subject}` was acknowledged: the record may or may not be stored; publish the same record again"
    )]
    ConnectionLost {
        /// The subject of the message.
        subject: String,
    },
    /// There was no connection during the whole wait. Nothing was sent.
    #[error("not connected to NATS for {waited:?}: nothing was sent; the client keeps trying to connect")]
    NotConnected {
        /// How long the publisher waited for a connection.
        waited: Duration,
    },
    /// The server abandoned an atomic batch, because a part of it did not arrive or was rejected. Nothing of the
    /// batch was stored.
    #[error("the server abandoned the atomic batch that ends on `{subject}` and stored nothing of it: {detail}")]
    BatchAbandoned {
        /// The subject of the last message of the batch.
        subject: String,
        /// The server's error message.
        detail: String,
    },
    /// The server returned another error. Nothing was stored.
    #[error("JetStream rejected the message on `{subject}`: {detail}")]
    Refused {
        /// The subject of the message.
        subject: String,
        /// The status: below 500 the message is at fault, from 500 on the server.
        status: usize,
        /// The JetStream error code, such as 10054.
        code: u64,
        /// The server's error message.
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
    /// The client was closed or drained, or stopped reconnecting. Nothing was sent.
    #[error("the NATS connection is closed: create a new publisher")]
    Closed,
}

impl PublishError {
    /// Returns whether the same record can succeed when it is published again later.
    ///
    /// If `false`, the record, its size or a permission must change first, or, after [`PublishError::Closed`], the
    /// publisher must be replaced.
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

    /// Returns whether the record may be stored although it was not acknowledged.
    pub fn is_unclear(&self) -> bool {
        matches!(self, Self::TimedOut { .. } | Self::ConnectionLost { .. } | Self::OtherDomain { .. })
    }

    /// Returns whether a retry within a second makes sense, because only the acknowledgement was lost or the batch
    /// was incomplete.
    pub(crate) fn is_worth_repeating_at_once(&self) -> bool {
        matches!(self, Self::TimedOut { .. } | Self::ConnectionLost { .. })
            || matches!(self, Self::BatchAbandoned { .. })
            || matches!(self, Self::Refused { code, .. } if *code == ErrorCode::ATOMIC_PUBLISH_TOO_MANY_INFLIGHT.0)
    }

    /// Returns whether the stream or server does not support atomic batches, or only smaller ones than JetStream's
    /// default.
    pub(crate) fn is_without_atomic_batches(&self) -> bool {
        const WITHOUT: [u64; 2] = [ErrorCode::ATOMIC_PUBLISH_DISABLED.0, ErrorCode::ATOMIC_PUBLISH_TOO_LARGE_BATCH.0];
        matches!(self, Self::Refused { code, .. } if WITHOUT.contains(code))
    }

    /// Builds the error for a server that ignored the batch headers, as if it had reported that atomic batches are
    /// disabled.
    pub(crate) fn without_atomic_batches(subject: &str) -> Self {
        let code = ErrorCode::ATOMIC_PUBLISH_DISABLED.0;
        let detail = "the server does not support atomic batches".to_owned();
        Self::Refused { subject: subject.to_owned(), status: 400, code, detail }
    }

    /// Maps a JetStream error response to a `PublishError`.
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
