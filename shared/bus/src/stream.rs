//! The stream of a kind: its state, its identity, single messages, and purging.

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::context::{GetStreamByNameErrorKind, RequestErrorKind};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::{ErrorCode, stream};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SubsecRound, Utc};
use records::{Headers, Kind, subject};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::error::Error as _;
use std::time::Duration;

use crate::settings::Settings;
use crate::{Bus, Delivery};

/// The `inactive_threshold` of consumers: after this time without a pull, the server deletes the consumer.
pub(crate) const FORGET_READER_AFTER: Duration = Duration::from_secs(60);

/// JetStream's error code for a sequence that the stream does not hold.
const NO_MESSAGE_FOUND: u32 = 10037;

#[derive(Deserialize)]
struct MessageReply {
    message: Option<StoredMessage>,
    error: Option<MessageError>,
}

#[derive(Deserialize)]
struct MessageError {
    err_code: u32,
    description: String,
}

#[derive(Deserialize)]
struct StoredMessage {
    seq: u64,
    time: DateTime<Utc>,
    subject: String,
    hdrs: Option<String>,
    data: Option<String>,
}

/// Parses the headers of a message, one per line. Other lines are ignored.
fn headers_from_text(text: &str) -> Headers {
    let lines = text.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

/// Why a request to JetStream failed.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// There is no such stream.
    #[error("the stream {stream} does not exist: run `watchbook setup`")]
    Missing {
        /// The name of the stream.
        stream: String,
    },
    /// No JetStream subscribes to the expected prefix of its API.
    #[error(
        "no JetStream answers on `{api_prefix}` when asked to {action} {stream}: are jetstream_domain and jetstream_api_prefix in [nats] right, is JetStream enabled for this account, and is a leaf node connected to its hub?"
    )]
    Absent {
        /// The prefix of JetStream's API.
        api_prefix: String,
        /// The action that was requested.
        action: &'static str,
        /// The name of the stream.
        stream: String,
    },
    /// JetStream does not answer. It does not answer requests without permission either.
    #[error(
        "JetStream does not answer when asked to {action} {stream}: the server is away or has no leader, or this user may not{refusals}"
    )]
    Silent {
        /// The action that was requested.
        action: &'static str,
        /// The name of the stream.
        stream: String,
        /// The recent refusals of the server, as the end of the message; empty if there are none.
        refusals: String,
    },
    /// JetStream refuses with a reason.
    #[error("JetStream cannot {action} {stream}: {reason}")]
    Refused {
        /// The action that was requested.
        action: &'static str,
        /// The name of the stream.
        stream: String,
        /// JetStream's error.
        reason: String,
    },
}

/// The state of a stream.
#[derive(Debug, Clone)]
pub struct StreamState {
    /// The name of the stream.
    pub name: String,
    /// When the stream was created, in whole microseconds. It identifies the stream among recreated ones.
    pub created_at: DateTime<Utc>,
    /// The first sequence that the stream holds; `last_sequence` + 1 if it is empty.
    pub first_sequence: u64,
    /// The last sequence that the stream assigned.
    pub last_sequence: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Maximum size in bytes; `None` without a limit.
    pub max_bytes: Option<u64>,
    pub(crate) settings: Settings,
}

/// The fields of the response to `STREAM.INFO` that are used here.
#[derive(Deserialize)]
struct Info {
    created: DateTime<Utc>,
    state: InfoState,
    config: Settings,
}

#[derive(Deserialize)]
struct InfoState {
    first_seq: u64,
    last_seq: u64,
    bytes: u64,
}

impl Bus {
    /// Returns the name of the stream of a kind.
    pub fn stream_name(&self, kind: Kind) -> String {
        subject::stream_name(&self.prefix, kind)
    }

    /// Returns the state of the stream of a kind.
    ///
    /// # Errors
    /// The stream does not exist, or JetStream does not answer.
    pub async fn stream_state(&self, kind: Kind) -> Result<StreamState, BusError> {
        let name = self.stream_name(kind);
        let info: Info = self.stream_request("describe", "INFO", &name, &()).await?;
        Ok(StreamState {
            name,
            created_at: info.created.trunc_subsecs(6),
            // 0 if the stream never held a message.
            first_sequence: info.state.first_seq.max(1),
            last_sequence: info.state.last_seq,
            bytes: info.state.bytes,
            // -1 without a limit.
            max_bytes: info.config.get("max_bytes").and_then(Value::as_u64),
            settings: info.config,
        })
    }

    /// Sends the request `STREAM.<request>` of JetStream's API about a stream. `action` is its name in errors.
    pub(crate) async fn stream_request<T: DeserializeOwned>(
        &self,
        action: &'static str,
        request: &str,
        name: &str,
        body: &impl Serialize,
    ) -> Result<T, BusError> {
        let answer = self.jetstream().request(format!("STREAM.{request}.{name}"), body).await;
        let refused = |reason: String| BusError::Refused { action, stream: name.to_owned(), reason };
        match answer {
            Ok(Response::Ok(answer)) => Ok(answer),
            Ok(Response::Err { error }) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Err(BusError::Missing { stream: name.to_owned() })
            }
            Ok(Response::Err { error }) => Err(refused(error.to_string())),
            // A response that is not from JetStream, or that this build cannot parse.
            Err(error) if error.source().is_some_and(|source| source.is::<serde_json::Error>()) => {
                Err(refused(error.to_string()))
            }
            Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                Err(BusError::Absent { api_prefix: self.api_prefix.to_string(), action, stream: name.to_owned() })
            }
            Err(_) => Err(self.silent(action, name)),
        }
    }

    /// Returns the name of the stream that captures a subject, whether or not it is the stream of a kind; `None` if no
    /// stream does.
    ///
    /// # Errors
    /// JetStream does not answer, or this user may not send the request.
    pub async fn stream_taking(&self, subject: &str) -> Result<Option<String>, BusError> {
        match self.jetstream().stream_by_subject(subject).await {
            Ok(name) => Ok(Some(name)),
            Err(error) if error.kind() == GetStreamByNameErrorKind::NotFound => Ok(None),
            Err(_) => Err(self.silent("find the stream of", subject)),
        }
    }

    /// Returns the stream's timestamp of a message, in nanoseconds since 1970; `None` if the stream does not hold it.
    ///
    /// # Errors
    /// JetStream does not answer or refuses.
    pub async fn published_ns(&self, kind: Kind, sequence: u64) -> Result<Option<i64>, BusError> {
        let message = self.stored_message(kind, &format!(r#"{{"seq":{sequence}}}"#)).await?;
        Ok(message.and_then(|message| message.time.timestamp_nanos_opt()))
    }

    /// Returns the first sequence from `sequence` on that the stream holds, according to its leader; `None` if there is
    /// none. A consumer may be on a replica that is behind, so what its replica does not hold may be in the stream.
    ///
    /// # Errors
    /// JetStream does not answer or refuses.
    pub async fn next_held(&self, kind: Kind, sequence: u64) -> Result<Option<u64>, BusError> {
        let message = self.stored_message(kind, &format!(r#"{{"seq":{sequence},"next_by_subj":">"}}"#)).await?;
        Ok(message.map(|message| message.seq))
    }

    /// Reads one message by request; `None` if the stream does not hold it. nats-server stores arbitrary bytes in
    /// subjects and headers, and the client closes the connection on some of them. A request can read any message.
    ///
    /// # Errors
    /// JetStream does not answer or refuses.
    pub async fn message(&self, kind: Kind, sequence: u64) -> Result<Option<Delivery>, BusError> {
        let message = self.stored_message(kind, &format!(r#"{{"seq":{sequence}}}"#)).await?;
        Ok(message.map(|message| {
            // The server always writes valid base64. If not, an empty body becomes a dead letter.
            let decoded = |text: Option<String>| STANDARD.decode(text.unwrap_or_default()).unwrap_or_default();
            let headers = headers_from_text(&String::from_utf8_lossy(&decoded(message.hdrs)));
            Delivery::new(message.seq, message.time, &message.subject, decoded(message.data)).with_headers(headers)
        }))
    }

    /// Sends the request `STREAM.MSG.GET`, which the leader of the stream answers.
    async fn stored_message(&self, kind: Kind, request: &str) -> Result<Option<StoredMessage>, BusError> {
        const ACTION: &str = "read a message of";
        let name = self.stream_name(kind);
        let subject = format!("{}.STREAM.MSG.GET.{name}", self.api_prefix);
        let Ok(reply) = self.client().request(subject, request.to_owned().into()).await else {
            return Err(self.silent(ACTION, &name));
        };
        let refused = |reason: String| BusError::Refused { action: ACTION, stream: name.clone(), reason };
        let reply: MessageReply = serde_json::from_slice(&reply.payload).map_err(|error| refused(error.to_string()))?;
        match (reply.message, reply.error) {
            (Some(message), _) => Ok(Some(message)),
            (None, Some(error)) if error.err_code == NO_MESSAGE_FOUND => Ok(None),
            (None, Some(error)) => Err(refused(error.description)),
            (None, None) => Err(refused("a response without a message".to_owned())),
        }
    }

    /// Returns the last sequence that the stream assigned before `time_ns`, in nanoseconds since 1970, exclusive.
    ///
    /// # Errors
    /// JetStream does not answer or refuses.
    pub async fn last_sequence_before(&self, kind: Kind, time_ns: i64) -> Result<u64, BusError> {
        let start_time = DateTime::from_timestamp_nanos(time_ns);
        let (consumer, _) = self.consumer(kind, DeliverPolicy::ByStartTime { start_time }).await?;
        // A consumer that has delivered nothing reports the position right before its first message.
        let sequence = consumer.cached_info().delivered.stream_sequence;
        self.forget_consumer(kind, &consumer).await;
        Ok(sequence)
    }

    /// Purges the messages up to and including `sequence`, and returns how many were purged. The caller must only purge
    /// settled sequences.
    ///
    /// # Errors
    /// JetStream does not answer or refuses.
    pub async fn purge_up_to(&self, kind: Kind, sequence: u64) -> Result<u64, BusError> {
        let name = self.stream_name(kind);
        let stream = self.stream_without_info(&name).await?;
        // JetStream purges up to this sequence, exclusive.
        match stream.purge().sequence(sequence + 1).await {
            Ok(purged) => Ok(purged.purged),
            Err(error) => match error.kind() {
                stream::PurgeErrorKind::JetStream(refusal) => {
                    Err(BusError::Refused { action: "purge", stream: name, reason: refusal.to_string() })
                }
                _ => Err(self.silent("purge", &name)),
            },
        }
    }

    /// Deletes the stream of a kind with all its messages. For benchmarks and tests.
    ///
    /// # Errors
    /// JetStream does not answer or refuses.
    pub async fn delete_stream(&self, kind: Kind) -> Result<(), BusError> {
        let name = self.stream_name(kind);
        match self.jetstream().delete_stream(&name).await {
            Ok(_) => Ok(()),
            Err(error) => Err(BusError::Refused { action: "delete", stream: name, reason: error.to_string() }),
        }
    }

    /// Creates a consumer without acknowledgements, and returns it with the number of its pending messages.
    pub(crate) async fn consumer(
        &self,
        kind: Kind,
        deliver_policy: DeliverPolicy,
    ) -> Result<(PullConsumer, u64), BusError> {
        let name = self.stream_name(kind);
        let config = pull::Config {
            // With a name, the permission `$JS.API.CONSUMER.CREATE.<stream>.>` is sufficient.
            name: Some(format!("watchbook-{}", random_name())),
            deliver_policy,
            ack_policy: AckPolicy::None,
            inactive_threshold: FORGET_READER_AFTER,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let stream = self.stream_without_info(&name).await?;
        let consumer = stream.create_consumer(config).await.map_err(|error| {
            use stream::ConsumerErrorKind;
            match error.kind() {
                ConsumerErrorKind::JetStream(refusal) if refusal.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    BusError::Missing { stream: name.clone() }
                }
                ConsumerErrorKind::JetStream(refusal) => {
                    BusError::Refused { action: "read", stream: name.clone(), reason: refusal.to_string() }
                }
                _ => self.silent("read", &name),
            }
        })?;
        let pending = consumer.cached_info().num_pending;
        Ok((consumer, pending))
    }

    /// Deletes a consumer. If this fails, the server deletes it after [`FORGET_READER_AFTER`].
    pub(crate) async fn forget_consumer(&self, kind: Kind, consumer: &PullConsumer) {
        let name = self.stream_name(kind);
        if let Err(error) = self.jetstream().delete_consumer_from_stream(&consumer.cached_info().name, &name).await {
            tracing::debug!(stream = name, %error, "the consumer is left to time out");
        }
    }

    async fn stream_without_info(&self, name: &str) -> Result<stream::Stream<()>, BusError> {
        self.jetstream().get_stream_no_info(name).await.map_err(|_| self.silent("find", name))
    }

    pub(crate) fn silent(&self, action: &'static str, stream: &str) -> BusError {
        let refusals = self.refusals();
        let refusals = if refusals.is_empty() { String::new() } else { format!(" (it said: {})", refusals.join("; ")) };
        BusError::Silent { action, stream: stream.to_owned(), refusals }
    }
}

/// Returns a name that no other consumer has. With an existing name, JetStream would return the existing consumer.
fn random_name() -> String {
    format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..))
}
