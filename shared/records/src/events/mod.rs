//! Events: what happened in a project or a run.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

use crate::fields::Fields;
use crate::kind::{Facts, Fixtures};
use crate::limits::ID_BYTES;
use crate::rollup::Column;
use crate::row::RowWriter;
use crate::{ActorType, Conflict, Detail, Json, Kind, Partitioning, Record, Reject, Spec, schema};

pub(crate) const SPEC: Spec = Spec {
    table: "watchbook.event_logs",
    columns: &["event_type", "payload", "project_id", "run_id", "user_id", "actor_type", "actor_id"],
    detail: Detail::text("event_type"),
    derived: &[],
    labels: &[Column::Text("event_type"), Column::Text("project_id")],
    levels: &[],
    volume: None,
    partitioning: Partitioning::Daily,
    conflict: Conflict::KeepFirst,
    keep_days: Some(30),
    encode: |fields, row| {
        Event::decode(fields)?.encode(row);
        Ok(Facts::default())
    },
    schema: schema::own::<Event<'static>>,
    fixtures: Fixtures {
        accepted: include_str!("fixtures/accepted.ndjson"),
        rejected: include_str!("fixtures/rejected.ndjson"),
    },
};

/// Something that happened in a project or a run.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Event<'a> {
    /// Type of the event, such as `build.finished`. Required, 1 to 256 bytes.
    #[schemars(length(min = 1, max = ID_BYTES))]
    pub event_type: Cow<'a, str>,
    /// Details of the event: a JSON object of at most 256 KiB. Default: `{}`.
    #[serde(default)]
    pub payload: Json<'a>,
    /// Id of the project, at most 256 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = ID_BYTES))]
    pub project_id: Option<Cow<'a, str>>,
    /// Id of the run, at most 256 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = ID_BYTES))]
    pub run_id: Option<Cow<'a, str>>,
    /// Id of the user whom the event concerns, at most 256 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = ID_BYTES))]
    pub user_id: Option<Cow<'a, str>>,
    /// Type of the actor that caused the event. Default: `system`.
    #[serde(default)]
    pub actor_type: ActorType,
    /// Id of that actor, at most 256 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = ID_BYTES))]
    pub actor_id: Option<Cow<'a, str>>,
}

impl Record for Event<'_> {
    const KIND: Kind = Kind::Events;

    fn detail(&self) -> &str {
        &self.event_type
    }
}

impl<'a> Event<'a> {
    fn decode(fields: &mut Fields<'a>) -> Result<Self, Reject> {
        Ok(Self {
            event_type: fields.required_id("event_type")?,
            payload: fields.object("payload")?.map(Json).unwrap_or_default(),
            project_id: fields.id("project_id")?,
            run_id: fields.id("run_id")?,
            user_id: fields.id("user_id")?,
            actor_type: fields.choice("actor_type", ActorType::CHOICES)?.unwrap_or_default(),
            actor_id: fields.id("actor_id")?,
        })
    }

    fn encode(&self, row: &mut RowWriter<'_>) {
        row.text(&self.event_type);
        row.jsonb(self.payload.get());
        row.optional_text(self.project_id.as_deref());
        row.optional_text(self.run_id.as_deref());
        row.optional_text(self.user_id.as_deref());
        row.text(self.actor_type.name());
        row.optional_text(self.actor_id.as_deref());
    }
}
