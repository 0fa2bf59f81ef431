//! What the typed records share: the trait of a record, JSON text, and the record on its way out.

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
    /// Its kind.
    const KIND: Kind;

    /// What stands behind the organization in the subject; only for filtering.
    fn detail(&self) -> &str;
}

/// A JSON object kept as text.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Json<'a>(pub(crate) Cow<'a, RawValue>);

impl Json<'_> {
    /// The text.
    pub fn get(&self) -> &str {
        self.0.get()
    }

    /// A value as JSON text.
    ///
    /// # Errors
    /// Where the value cannot be JSON, such as a map with keys that are no strings.
    pub fn of(value: &impl Serialize) -> Result<Json<'static>, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(|raw| Json(Cow::Owned(raw)))
    }
}

impl From<Map<String, Value>> for Json<'static> {
    fn from(map: Map<String, Value>) -> Self {
        // A map of JSON values always is JSON; `{}` stands for what cannot happen.
        Self::of(&map).unwrap_or_else(|_| Json(Cow::Borrowed(empty_object())))
    }
}

impl Default for Json<'_> {
    fn default() -> Self {
        Json(Cow::Borrowed(empty_object()))
    }
}

fn empty_object() -> &'static RawValue {
    // Parsing a constant: cannot fail, and RawValue has no other way to be made from one.
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

/// Who acted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActorType {
    /// A person.
    User,
    /// The platform itself.
    #[default]
    System,
    /// A program with a key.
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

/// A record with its identity, as it is published. With the id and the time set by the producer,
/// publishing again after an unclear answer is harmless.
#[derive(Debug, Clone, Serialize)]
pub struct Outgoing<R> {
    /// The record's id; UUIDv7 recommended.
    pub id: Uuid,
    /// When it happened.
    pub created_at: DateTime<Utc>,
    /// Who publishes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What the contract has no field for.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub attributes: Map<String, Value>,
    /// The kind's own fields.
    #[serde(flatten)]
    pub record: R,
}
