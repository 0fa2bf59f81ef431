//! Audit events: who did what to what.

mod address;

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

use crate::fields::Fields;
use crate::kind::{Facts, Fixtures};
use crate::limits::{ID_BYTES, TEXT_BYTES};
use crate::rollup::Column;
use crate::row::RowWriter;
use crate::{ActorType, Conflict, Detail, Json, Kind, Partitioning, Record, Reject, Spec, schema};

pub use address::Address;
pub(crate) use address::ClientAddress;

/// The only id that a `system` actor may have. A CHECK of the table requires it too.
const SYSTEM: &str = "system";

pub(crate) const SPEC: Spec = Spec {
    table: "control_plane.audit_logs",
    columns: &[
        "actor_id",
        "actor_type",
        "action",
        "target_type",
        "target_id",
        "status",
        "reason",
        "error_details",
        "metadata",
        "ip_address",
        "user_agent",
    ],
    detail: Detail::text("action"),
    derived: &[],
    labels: &[Column::Text("action"), Column::Text("target_type"), Column::Text("actor_id")],
    levels: &[],
    volume: None,
    partitioning: Partitioning::Monthly,
    conflict: Conflict::KeepFirst,
    keep_days: None,
    encode: |fields, row| {
        let audit = AuditRecord::decode(fields)?;
        audit.encode(row);
        Ok(Facts { failed: audit.status == Status::Failure, ..Facts::default() })
    },
    schema: schema::own::<AuditRecord<'static>>,
    fixtures: Fixtures {
        accepted: include_str!("fixtures/accepted.ndjson"),
        rejected: include_str!("fixtures/rejected.ndjson"),
    },
};

/// Result of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// The action was done.
    #[default]
    Success,
    /// The action was refused or failed.
    Failure,
}

impl Status {
    const CHOICES: &'static [(&'static str, Self)] = &[("SUCCESS", Self::Success), ("FAILURE", Self::Failure)];

    const fn name(self) -> &'static str {
        match self {
            Self::Success => "SUCCESS",
            Self::Failure => "FAILURE",
        }
    }
}

/// An audit event: an action with its actor, its target and its result.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
#[schemars(extend("allOf" = [{
    "if": { "properties": { "actor_type": { "const": "system" } }, "required": ["actor_type"] },
    "then": { "properties": { "actor_id": { "const": SYSTEM } } }
}]))]
pub struct AuditRecord<'a> {
    /// Id of the actor; `system` for the platform itself. Required, 1 to 256 bytes.
    #[schemars(length(min = 1, max = ID_BYTES))]
    pub actor_id: Cow<'a, str>,
    /// Type of the actor. Default: `system` if the id is `system`, else `user`.
    #[schemars(with = "Option<ActorType>")]
    pub actor_type: ActorType,
    /// Action, such as `project.delete`. Required, 1 to 256 bytes.
    #[schemars(length(min = 1, max = ID_BYTES))]
    pub action: Cow<'a, str>,
    /// Type of the target, such as `project`. Required, 1 to 256 bytes.
    #[schemars(length(min = 1, max = ID_BYTES))]
    pub target_type: Cow<'a, str>,
    /// Id of the target. Required, 1 to 256 bytes.
    #[schemars(length(min = 1, max = ID_BYTES))]
    pub target_id: Cow<'a, str>,
    /// Result of the action. Default: `SUCCESS`.
    #[serde(default)]
    pub status: Status,
    /// Why the action was done, at most 4 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_BYTES))]
    pub reason: Option<Cow<'a, str>>,
    /// Why the action failed, at most 4 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_BYTES))]
    pub error_details: Option<Cow<'a, str>>,
    /// Further details: a JSON object of at most 256 KiB. Default: `{}`.
    #[serde(default)]
    pub metadata: Json<'a>,
    /// Address of the client: IPv4 or IPv6, with or without a prefix length. An address with a port or a zone, the
    /// first address of a list, and the address in an element of `Forwarded` are recognized, and the text is then kept
    /// in `attributes`. An empty text and `unknown` are null.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = r"^(?:\s*|[-@]|_.*|[Uu][Nn][Kk][Nn][Oo][Ww][Nn]|.*[.:].*)$"))]
    pub ip_address: Option<Address>,
    /// User agent of the client, at most 4 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_BYTES))]
    pub user_agent: Option<Cow<'a, str>>,
}

impl Record for AuditRecord<'_> {
    const KIND: Kind = Kind::Audit;

    fn detail(&self) -> &str {
        &self.action
    }
}

impl<'a> AuditRecord<'a> {
    fn decode(fields: &mut Fields<'a>) -> Result<Self, Reject> {
        let actor_id = fields.required_id("actor_id")?;
        let actor_type = match fields.choice("actor_type", ActorType::CHOICES)? {
            Some(actor_type) => actor_type,
            None if actor_id == SYSTEM => ActorType::System,
            None => ActorType::User,
        };
        if actor_type == ActorType::System && actor_id != SYSTEM {
            return Err(Reject::invalid("actor_id", "a `system` actor has the actor_id `system`"));
        }
        Ok(Self {
            actor_id,
            actor_type,
            action: fields.required_id("action")?,
            target_type: fields.required_id("target_type")?,
            target_id: fields.required_id("target_id")?,
            status: fields.choice("status", Status::CHOICES)?.unwrap_or_default(),
            reason: fields.text("reason", TEXT_BYTES)?,
            error_details: fields.text("error_details", TEXT_BYTES)?,
            metadata: fields.object("metadata")?.map(Json).unwrap_or_default(),
            ip_address: fields.client_address("ip_address")?,
            user_agent: fields.text("user_agent", TEXT_BYTES)?,
        })
    }

    fn encode(&self, row: &mut RowWriter<'_>) {
        row.text(&self.actor_id);
        row.text(self.actor_type.name());
        row.text(&self.action);
        row.text(&self.target_type);
        row.text(&self.target_id);
        row.text(self.status.name());
        row.optional_text(self.reason.as_deref());
        row.optional_text(self.error_details.as_deref());
        row.jsonb(self.metadata.get());
        row.optional_inet(self.ip_address.map(|address| (address.ip, address.prefix_bits)));
        row.optional_text(self.user_agent.as_deref());
    }
}
