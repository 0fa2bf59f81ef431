//! One kind's stream: its state, its identity, and what is cut off its old end.

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

/// A reader that is gone for so long is not coming back; the server then forgets its consumer.
pub(crate) const FORGET_READER_AFTER: Duration = Duration::from_secs(60);

/// JetStream's code for a sequence that the stream does not hold.
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

/// Headers as they stand in a message, each on its line; what is no header is left out.
fn headers_from_text(text: &str) -> Headers {
    let lines = text.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

/// Why JetStream did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// There is no such stream.
    #[error("the stream {stream} does not exist: run `watchbook setup`")]
    Missing {
        /// Which.
        stream: String,
    },
    /// Nothing listens where JetStream's API is expected.
    #[error(
        "no JetStream answers on `{api_prefix}` when asked to {action} {stream}: are jetstream_domain and jetstream_api_prefix in [nats] right, is JetStream enabled for this account, and is a leaf node connected to its hub?"
    )]
    Absent {
        /// Where its API is expected.
        api_prefix: String,
        /// What was asked.
        action: &'static str,
        /// Of which stream.
        stream: String,
    },
    /// JetStream does not answer, which is also how it refuses.
    #[error(
        "JetStream does not answer when asked to {action} {stream}: the server is away or has no leader, or this user may not{refusals}"
    )]
    Silent {
        /// What was asked.
        action: &'static str,
        /// Of which stream.
        stream: String,
        /// What the server refused lately, in words.
        refusals: String,
    },
    /// JetStream refuses, and says why.
    #[error("JetStream cannot {action} {stream}: {reason}")]
    Refused {
        /// What was asked.
        action: &'static str,
        /// Of which stream.
        stream: String,
        /// What it said.
        reason: String,
    },
}

/// A stream as it stands.
#[derive(Debug, Clone)]
pub struct StreamState {
    /// Its name.
    pub name: String,
    /// When it was created, in whole microseconds: tells it from others of that name.
    pub created_at: DateTime<Utc>,
    /// The first sequence that it holds; one past the last where it holds none.
    pub first_sequence: u64,
    /// The last sequence that it ever gave.
    pub last_sequence: u64,
    /// Bytes that it holds.
    pub bytes: u64,
    /// Bytes that it may hold; `None` without a limit.
    pub max_bytes: Option<u64>,
    pub(crate) settings: Settings,
}

/// What `STREAM.INFO` answers, as far as it is of use here.
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
    /// The name of a kind's stream.
    pub fn stream_name(&self, kind: Kind) -> String {
        subject::stream_name(&self.prefix, kind)
    }

    /// The state of a kind's stream.
    ///
    /// # Errors
    /// Where there is none, or JetStream does not answer.
    pub async fn stream_state(&self, kind: Kind) -> Result<StreamState, BusError> {
        let name = self.stream_name(kind);
        let info: Info = self.stream_request("describe", "INFO", &name, &()).await?;
        Ok(StreamState {
            name,
            created_at: info.created.trunc_subsecs(6),
            // A stream that never held a message says 0.
            first_sequence: info.state.first_seq.max(1),
            last_sequence: info.state.last_seq,
            bytes: info.state.bytes,
            // -1 where it is unlimited.
            max_bytes: info.config.get("max_bytes").and_then(Value::as_u64),
            settings: info.config,
        })
    }

    /// The request `STREAM.<request>` of JetStream's API about a stream, with the error in our words.
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
            // An answer that is not JetStream's, or not one that this build understands.
            Err(error) if error.source().is_some_and(|source| source.is::<serde_json::Error>()) => {
                Err(refused(error.to_string()))
            }
            Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                Err(BusError::Absent { api_prefix: self.api_prefix.to_string(), action, stream: name.to_owned() })
            }
            Err(_) => Err(self.silent(action, name)),
        }
    }

    /// The name of the stream that takes a subject, of whatever kind or none; `None` where no stream does.
    ///
    /// # Errors
    /// Where JetStream does not answer, which is also how it refuses.
    pub async fn stream_taking(&self, subject: &str) -> Result<Option<String>, BusError> {
        match self.jetstream().stream_by_subject(subject).await {
            Ok(name) => Ok(Some(name)),
            Err(error) if error.kind() == GetStreamByNameErrorKind::NotFound => Ok(None),
            Err(_) => Err(self.silent("find the stream of", subject)),
        }
    }

    /// The stream's timestamp of a message, in nanoseconds since 1970; `None` where the stream does not hold it.
    ///
    /// # Errors
    /// Where JetStream does not answer.
    pub async fn published_ns(&self, kind: Kind, sequence: u64) -> Result<Option<i64>, BusError> {
        let message = self.stored_message(kind, &format!(r#"{{"seq":{sequence}}}"#)).await?;
        Ok(message.and_then(|message| message.time.timestamp_nanos_opt()))
    }

    /// The first sequence from `sequence` on that the stream holds, by the word of its leader: a consumer
    /// may live on a replica that has yet to catch up, and what that one does not hold is not gone.
    ///
    /// # Errors
    /// Where JetStream does not answer.
    pub async fn next_held(&self, kind: Kind, sequence: u64) -> Result<Option<u64>, BusError> {
        let message = self.stored_message(kind, &format!(r#"{{"seq":{sequence},"next_by_subj":">"}}"#)).await?;
        Ok(message.map(|message| message.seq))
    }

    /// One message by request. nats-server stores whatever bytes a producer puts into a subject or a
    /// header, and the client gives up a connection on some of them; this way reads every message.
    ///
    /// # Errors
    /// Where JetStream does not answer.
    pub async fn message(&self, kind: Kind, sequence: u64) -> Result<Option<Delivery>, BusError> {
        let message = self.stored_message(kind, &format!(r#"{{"seq":{sequence}}}"#)).await?;
        Ok(message.map(|message| {
            // Base64 that the server wrote is base64; an empty body would become a dead letter.
            let decoded = |text: Option<String>| STANDARD.decode(text.unwrap_or_default()).unwrap_or_default();
            let headers = headers_from_text(&String::from_utf8_lossy(&decoded(message.hdrs)));
            Delivery::new(message.seq, message.time, &message.subject, decoded(message.data)).with_headers(headers)
        }))
    }

    /// The request `STREAM.MSG.GET`, answered by the stream's leader.
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
            (None, None) => Err(refused("an answer without a message".to_owned())),
        }
    }

    /// The last sequence that the stream gave before `time`, which is in nanoseconds since 1970 and itself
    /// not before it.
    ///
    /// # Errors
    /// Where JetStream does not answer.
    pub async fn last_sequence_before(&self, kind: Kind, time_ns: i64) -> Result<u64, BusError> {
        let start_time = DateTime::from_timestamp_nanos(time_ns);
        let (consumer, _) = self.consumer(kind, DeliverPolicy::ByStartTime { start_time }).await?;
        // A consumer that has delivered nothing says that it stands right before its first message.
        let sequence = consumer.cached_info().delivered.stream_sequence;
        self.forget_consumer(kind, &consumer).await;
        Ok(sequence)
    }

    /// Removes the messages up to `sequence`. Only what is settled may go.
    ///
    /// # Errors
    /// Where JetStream does not answer or refuses.
    pub async fn purge_up_to(&self, kind: Kind, sequence: u64) -> Result<u64, BusError> {
        let name = self.stream_name(kind);
        let stream = self.stream_without_info(&name).await?;
        // JetStream purges up to but not including the sequence that it is given.
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

    /// Deletes a kind's stream with everything in it. For benches and tests.
    ///
    /// # Errors
    /// Where JetStream does not answer or refuses.
    pub async fn delete_stream(&self, kind: Kind) -> Result<(), BusError> {
        let name = self.stream_name(kind);
        match self.jetstream().delete_stream(&name).await {
            Ok(_) => Ok(()),
            Err(error) => Err(BusError::Refused { action: "delete", stream: name, reason: error.to_string() }),
        }
    }

    /// A fresh consumer without acknowledgements, and how many messages it has before it.
    pub(crate) async fn consumer(
        &self,
        kind: Kind,
        deliver_policy: DeliverPolicy,
    ) -> Result<(PullConsumer, u64), BusError> {
        let name = self.stream_name(kind);
        let config = pull::Config {
            // A name of our own lets an operator permit `$JS.API.CONSUMER.CREATE.<stream>.>` and no more.
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

    /// Lets the server forget a consumer now rather than later; it does so by itself if this fails.
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

/// A name that no other reader has. JetStream takes a consumer of an existing name for the same one.
fn random_name() -> String {
    format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..))
}
