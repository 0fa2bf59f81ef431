//! One kind's stream: its state, its identity, and what is cut off its old end.

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::{ErrorCode, stream};
use chrono::{DateTime, SubsecRound, Utc};
use records::{Kind, subject};
use std::time::Duration;

use crate::Bus;

/// A reader that is gone for so long is not coming back; the server then forgets its consumer.
const FORGET_READER_AFTER: Duration = Duration::from_secs(60);

/// Why JetStream did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// There is no such stream.
    #[error("the stream {stream} does not exist: run `watchbook setup`")]
    Missing {
        /// Which.
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
    /// Its settings.
    pub config: stream::Config,
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
        let stream = self.jetstream.get_stream(&name).await.map_err(|error| match error.kind() {
            GetStreamErrorKind::JetStream(refusal) if refusal.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                BusError::Missing { stream: name.clone() }
            }
            GetStreamErrorKind::JetStream(refusal) => {
                BusError::Refused { action: "describe", stream: name.clone(), reason: refusal.to_string() }
            }
            _ => self.silent("describe", &name),
        })?;
        let info = stream.cached_info();
        Ok(StreamState {
            name,
            created_at: info.created.trunc_subsecs(6),
            // A stream that never held a message says 0.
            first_sequence: info.state.first_sequence.max(1),
            last_sequence: info.state.last_sequence,
            bytes: info.state.bytes,
            max_bytes: u64::try_from(info.config.max_bytes).ok(),
            config: info.config.clone(),
        })
    }

    /// The stream's timestamp of a message, in nanoseconds since 1970; `None` where the stream does not hold it.
    ///
    /// # Errors
    /// Where JetStream does not answer.
    pub async fn published_ns(&self, kind: Kind, sequence: u64) -> Result<Option<i64>, BusError> {
        let name = self.stream_name(kind);
        let stream = self.stream_without_info(&name).await?;
        match stream.get_raw_message(sequence).await {
            Ok(message) => Ok(message.time.timestamp_nanos_opt()),
            Err(error) if matches!(error.kind(), stream::RawMessageErrorKind::NoMessageFound) => Ok(None),
            Err(error) => match error.kind() {
                stream::RawMessageErrorKind::JetStream(refusal) => {
                    Err(BusError::Refused { action: "read a message of", stream: name, reason: refusal.to_string() })
                }
                _ => Err(self.silent("read a message of", &name)),
            },
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
        match self.jetstream.delete_stream(&name).await {
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
        if let Err(error) = self.jetstream.delete_consumer_from_stream(&consumer.cached_info().name, &name).await {
            tracing::debug!(stream = name, %error, "the consumer is left to time out");
        }
    }

    async fn stream_without_info(&self, name: &str) -> Result<stream::Stream<()>, BusError> {
        self.jetstream.get_stream_no_info(name).await.map_err(|_| self.silent("find", name))
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
