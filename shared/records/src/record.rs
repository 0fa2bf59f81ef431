//! Types that all kinds share: the trait of a record, JSON text, actors, and the record as it is published.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::Kind;

/// A typed record that a producer can publish.
pub trait Record: Serialize {
    /// The kind of the record.
    const KIND: Kind;

    /// Returns the part of the subject after the organization. It only serves subscribers as a filter.
    fn detail(&self) -> &str;
}

/// A JSON object, kept as text. Default: `{}`. A record holds at most [`JSON_BYTES`](crate::limits::JSON_BYTES) of it.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Json<'a>(pub(crate) Cow<'a, RawValue>);

impl Json<'_> {
    /// Returns the JSON text.
    pub fn get(&self) -> &str {
        self.0.get()
    }

    /// Serializes a value. It must be an object, or the record is rejected.
    ///
    /// # Errors
    /// The value cannot be JSON, for example a map with keys that are not strings.
    pub fn of(value: &impl Serialize) -> Result<Json<'static>, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(|raw| Json(Cow::Owned(raw)))
    }
}

impl From<Map<String, Value>> for Json<'static> {
    fn from(map: Map<String, Value>) -> Self {
        // Serializing a map of JSON values cannot fail.
        Self::of(&map).unwrap_or_else(|_| Json(Cow::Borrowed(empty_object())))
    }
}

impl Default for Json<'_> {
    fn default() -> Self {
        Json(Cow::Borrowed(empty_object()))
    }
}

fn empty_object() -> &'static RawValue {
    // Parsing a constant cannot fail, and is the only way to make a RawValue from one.
    serde_json::from_str("{}").unwrap_or(RawValue::NULL)
}

impl JsonSchema for Json<'_> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Json".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "object" })
    }
}

/// Type of an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActorType {
    /// A person.
    User,
    /// The platform itself.
    #[default]
    System,
    /// A program with an API key.
    ApiKey,
}

impl ActorType {
    pub(crate) const CHOICES: &'static [(&'static str, Self)] =
        &[("user", Self::User), ("system", Self::System), ("api_key", Self::ApiKey)];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::System => "system",
            Self::ApiKey => "api_key",
        }
    }
}

/// A record with its id and time, as it is published. Because the producer sets both, it can publish the record again
/// when it did not get an acknowledgement: the record is stored once.
#[derive(Debug, Clone, Serialize)]
pub struct Outgoing<R> {
    /// The id of the record, preferably a UUIDv7.
    pub id: Uuid,
    /// The time of the record. Stored in whole microseconds; at most a day ahead of the stream's clock.
    pub created_at: DateTime<Utc>,
    /// Name of the publisher, at most 4 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Fields that the contract does not define, at most 256 KiB as JSON.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub attributes: Map<String, Value>,
    /// The fields of the kind.
    #[serde(flatten)]
    pub record: R,
}
