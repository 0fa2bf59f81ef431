//! The streams as they must be: made where they are missing, compared where they are not.

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

/// What became of a stream that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ensured {
    /// It was made.
    Created,
    /// It is as it must be.
    Unchanged,
    /// Its settings were changed to ours, as far as the server changes them.
    Updated {
        /// What was changed.
        changed: Vec<Difference>,
        /// What is still different.
        left: Vec<Difference>,
    },
    /// It is there with other settings, and was left alone.
    Differs(Vec<Difference>),
}

impl Bus {
    /// Makes the stream of a kind where it is missing. One that is there with other settings is changed
    /// only where `update` says so, and only in what differs.
    ///
    /// # Errors
    /// Where JetStream refuses or does not answer.
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
        // A stream that has to be replaced anyway is not worth a change that the server may refuse as well.
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

    /// What differs between a stream and what it must be.
    pub fn stream_differences(&self, kind: Kind, state: &StreamState, streams: &Streams) -> Vec<Difference> {
        settings::differences(&state.settings, &self.wanted_settings(kind, streams))
    }

    /// What a stream must be, as the server writes it.
    pub(crate) fn wanted_settings(&self, kind: Kind, streams: &Streams) -> Settings {
        match serde_json::to_value(self.wanted(kind, streams)) {
            Ok(Value::Object(settings)) => settings,
            // A struct of numbers and text is always written as an object.
            _ => Settings::new(),
        }
    }

    fn wanted(&self, kind: Kind, streams: &Streams) -> Config {
        Config {
            name: self.stream_name(kind),
            subjects: vec![subject::filter(&self.prefix, kind, None)],
            retention: RetentionPolicy::Limits,
            storage: StorageType::File,
            // A full stream refuses the publish; nothing that is not written yet is dropped to make room.
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
