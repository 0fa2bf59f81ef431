//! The streams as they must be: made where they are missing, compared where they are not.

use std::fmt;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::CreateStreamErrorKind;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use records::{Kind, limits, subject};
use runtime::config::Streams;
use std::time::Duration;

use crate::stream::BusError;
use crate::{Bus, StreamState};

/// A stream whose settings are not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The setting, as `nats stream edit` calls it.
    pub setting: &'static str,
    /// What it is.
    pub is: String,
    /// What it must be.
    pub wanted: String,
    /// Whether records could be lost with it; the others are a matter of size.
    pub dangerous: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, expected {}", self.setting, self.is, self.wanted)?;
        if self.dangerous { f.write_str(" (records can be lost)") } else { Ok(()) }
    }
}

/// What became of a stream that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ensured {
    /// It was made.
    Created,
    /// It is as it must be.
    Unchanged,
    /// Its settings were changed to ours.
    Updated(Vec<Difference>),
    /// It is there with other settings, and was left alone.
    Differs(Vec<Difference>),
}

impl Bus {
    /// Makes the stream of a kind where it is missing. One that is there with other settings is changed
    /// only where `update` says so.
    ///
    /// # Errors
    /// Where JetStream refuses or does not answer.
    pub async fn ensure_stream(&self, kind: Kind, streams: &Streams, update: bool) -> Result<Ensured, BusError> {
        let wanted = self.wanted(kind, streams);
        match self.stream_state(kind).await {
            Ok(state) => {
                let differences = differences(&state.config, &wanted);
                if differences.is_empty() {
                    return Ok(Ensured::Unchanged);
                }
                if !update {
                    return Ok(Ensured::Differs(differences));
                }
                let config =
                    Config { metadata: state.config.metadata, description: state.config.description, ..wanted };
                match self.jetstream().update_stream(&config).await {
                    Ok(_) => Ok(Ensured::Updated(differences)),
                    Err(error) => {
                        Err(BusError::Refused { action: "change", stream: config.name, reason: error.to_string() })
                    }
                }
            }
            Err(BusError::Missing { .. }) => self.create_stream(wanted).await,
            Err(error) => Err(error),
        }
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
        differences(&state.config, &self.wanted(kind, streams))
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
            max_bytes: i64::try_from(streams.max_bytes.as_u64()).unwrap_or(i64::MAX),
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

fn differences(is: &Config, wanted: &Config) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut compare = |setting, is: String, wanted: String, dangerous| {
        if is != wanted {
            differences.push(Difference { setting, is, wanted, dangerous });
        }
    };
    let unlimited = |limit: i64| if limit <= 0 { "unlimited".to_owned() } else { limit.to_string() };
    let age = |age: Duration| if age.is_zero() { "unlimited".to_owned() } else { format!("{age:?}") };
    compare("retention", format!("{:?}", is.retention), format!("{:?}", wanted.retention), true);
    compare("storage", format!("{:?}", is.storage), format!("{:?}", wanted.storage), true);
    compare("discard", format!("{:?}", is.discard), format!("{:?}", wanted.discard), true);
    compare("max_age", age(is.max_age), age(wanted.max_age), true);
    compare(
        "max_msgs_per_subject",
        unlimited(is.max_messages_per_subject),
        unlimited(wanted.max_messages_per_subject),
        true,
    );
    compare("max_msgs", unlimited(is.max_messages), unlimited(wanted.max_messages), false);
    compare("max_bytes", unlimited(is.max_bytes), unlimited(wanted.max_bytes), false);
    compare("max_msg_size", unlimited(is.max_message_size.into()), unlimited(wanted.max_message_size.into()), false);
    compare("replicas", is.num_replicas.max(1).to_string(), wanted.num_replicas.max(1).to_string(), false);
    compare("allow_atomic", is.allow_atomic_publish.to_string(), wanted.allow_atomic_publish.to_string(), false);
    // More subjects than ours are somebody's choice: what is not of this kind is dead-lettered.
    let missing = wanted.subjects.iter().any(|subject| !is.subjects.contains(subject));
    if missing {
        compare("subjects", is.subjects.join(" "), wanted.subjects.join(" "), true);
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_lose_records_is_told_from_a_matter_of_size() {
        let wanted = Config { max_bytes: 100, discard: DiscardPolicy::New, max_messages: -1, ..Config::default() };
        let of = |is: Config| differences(&is, &wanted).iter().map(|d| (d.setting, d.dangerous)).collect::<Vec<_>>();
        assert_eq!(of(wanted.clone()), []);
        assert_eq!(of(Config { max_messages: 0, ..wanted.clone() }), [], "0 and -1 both mean unlimited");
        assert_eq!(of(Config { discard: DiscardPolicy::Old, ..wanted.clone() }), [("discard", true)]);
        assert_eq!(of(Config { max_age: Duration::from_secs(60), ..wanted.clone() }), [("max_age", true)]);
        assert_eq!(of(Config { max_bytes: 50, ..wanted.clone() }), [("max_bytes", false)]);
    }
}
