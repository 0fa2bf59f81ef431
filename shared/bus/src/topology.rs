//! The streams and their expected settings: creates missing streams, and compares and updates existing ones.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::CreateStreamErrorKind;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use records::{Kind, limits, subject};
use runtime::config::Streams;
use serde::de::IgnoredAny;
use serde_json::Value;
use std::time::Duration;

use crate::settings::{self, Difference, Mend, Settings};
use crate::stream::BusError;
use crate::{Bus, StreamState};

/// The result of [`Bus::ensure_stream`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ensured {
    /// The stream was created.
    Created,
    /// The stream has the expected settings.
    Unchanged,
    /// Settings of the stream were changed, as far as the server can change them.
    Updated {
        /// The differences that were fixed.
        changed: Vec<Difference>,
        /// The differences that remain.
        left: Vec<Difference>,
    },
    /// The stream has other settings, and was not changed.
    Differs(Vec<Difference>),
}

impl Bus {
    /// Creates the stream of a kind if it is missing. With `update`, changes the settings of an existing stream that
    /// differ, and no others. A stream that must be recreated is not changed.
    ///
    /// # Errors
    /// JetStream refuses or does not answer.
    pub async fn ensure_stream(&self, kind: Kind, streams: &Streams, update: bool) -> Result<Ensured, BusError> {
        let state = match self.stream_state(kind).await {
            Ok(state) => state,
            Err(BusError::Missing { .. }) => return self.create_stream(self.wanted(kind, streams)).await,
            Err(error) => return Err(error),
        };
        let differences = self.stream_differences(kind, &state, streams);
        if differences.is_empty() {
            return Ok(Ensured::Unchanged);
        }
        // A stream that must be recreated anyway is not changed: the server might refuse the change as well.
        let to_replace = |difference: &Difference| difference.dangerous && difference.mend == Mend::Recreate;
        let (changed, left): (Vec<_>, Vec<_>) =
            differences.iter().cloned().partition(|difference| difference.mend == Mend::Update);
        if !update || changed.is_empty() || differences.iter().any(to_replace) {
            return Ok(Ensured::Differs(differences));
        }
        let settings = settings::mended(&state.settings, &self.wanted_settings(kind, streams), &changed);
        let _: IgnoredAny = self.stream_request("change", "UPDATE", &state.name, &settings).await?;
        Ok(Ensured::Updated { changed, left })
    }

    async fn create_stream(&self, wanted: Config) -> Result<Ensured, BusError> {
        let name = wanted.name.clone();
        match self.jetstream().create_stream(wanted).await {
            Ok(_) => Ok(Ensured::Created),
            Err(error) => Err(match error.kind() {
                CreateStreamErrorKind::JetStream(refusal)
                    if refusal.error_code() == ErrorCode::STORAGE_RESOURCES_EXCEEDED =>
                {
                    BusError::Refused {
                        action: "create",
                        stream: name,
                        reason: format!(
                            "{refusal}. The streams reserve `max_bytes` of [streams] each: lower it, or raise `max_file_store` of the server"
                        ),
                    }
                }
                CreateStreamErrorKind::TimedOut => self.silent("create", &name),
                _ => BusError::Refused { action: "create", stream: name, reason: error.to_string() },
            }),
        }
    }

    /// Returns the differences between a stream and its expected settings.
    pub fn stream_differences(&self, kind: Kind, state: &StreamState, streams: &Streams) -> Vec<Difference> {
        settings::differences(&state.settings, &self.wanted_settings(kind, streams))
    }

    /// Returns the expected settings of a stream, as the server's JSON.
    pub(crate) fn wanted_settings(&self, kind: Kind, streams: &Streams) -> Settings {
        match serde_json::to_value(self.wanted(kind, streams)) {
            Ok(Value::Object(settings)) => settings,
            // A struct is always serialized as an object.
            _ => Settings::new(),
        }
    }

    fn wanted(&self, kind: Kind, streams: &Streams) -> Config {
        Config {
            name: self.stream_name(kind),
            subjects: vec![subject::filter(&self.prefix, kind, None)],
            retention: RetentionPolicy::Limits,
            storage: StorageType::File,
            // A full stream refuses publishes. It must not remove messages that are not yet written.
            discard: DiscardPolicy::New,
            max_age: Duration::ZERO,
            max_bytes: i64::try_from(streams.max_bytes(kind.name()).as_u64()).unwrap_or(i64::MAX),
            max_messages: -1,
            max_messages_per_subject: -1,
            max_consumers: -1,
            max_message_size: i32::try_from(2 * limits::MESSAGE_BYTES).unwrap_or(i32::MAX),
            num_replicas: usize::from(streams.replicas),
            allow_atomic_publish: true,
            ..Config::default()
        }
    }
}
