//! The directory: names for ids. Snapshots of entities, of which the newest one is kept.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

use crate::fields::{Fields, find_word};
use crate::kind::{Facts, Fixtures};
use crate::limits::{ID_BYTES, TEXT_BYTES};
use crate::row::RowWriter;
use crate::{Conflict, Detail, Kind, Partitioning, Record, Reject, Spec, schema};

pub(crate) const SPEC: Spec = Spec {
    table: "watchbook.entities",
    columns: &["entity", "entity_id", "name", "email", "parent_id", "deleted"],
    detail: Detail {
        field: "entity",
        default: "",
        word: |text| find_word(EntityKind::CHOICES, text).map(EntityKind::name),
    },
    derived: &[],
    labels: &[],
    levels: &[],
    volume: None,
    partitioning: Partitioning::None,
    conflict: Conflict::KeepNewest { key: &["organization_id", "entity", "entity_id"] },
    keep_days: None,
    encode: |fields, row| {
        Entity::decode(fields)?.encode(row);
        Ok(Facts::default())
    },
    schema: schema::own::<Entity<'static>>,
    fixtures: Fixtures {
        accepted: include_str!("fixtures/accepted.ndjson"),
        rejected: include_str!("fixtures/rejected.ndjson"),
    },
};

/// Type of an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EntityKind {
    /// A person.
    #[default]
    User,
    /// An organization.
    Organization,
    /// A project.
    Project,
    /// A run of a project.
    Run,
    /// A strategy.
    Strategy,
    /// A container.
    Container,
}

impl EntityKind {
    const CHOICES: &'static [(&'static str, Self)] = &[
        ("user", Self::User),
        ("organization", Self::Organization),
        ("project", Self::Project),
        ("run", Self::Run),
        ("strategy", Self::Strategy),
        ("container", Self::Container),
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Organization => "organization",
            Self::Project => "project",
            Self::Run => "run",
            Self::Strategy => "strategy",
            Self::Container => "container",
        }
    }
}

/// Snapshot of an entity as of `created_at`: the name behind an id.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Entity<'a> {
    /// Type of the entity. Required.
    pub entity: EntityKind,
    /// Id of the entity. Required, 1 to 256 bytes.
    #[schemars(length(min = 1, max = ID_BYTES))]
    pub entity_id: Cow<'a, str>,
    /// Display name, at most 4 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_BYTES))]
    pub name: Option<Cow<'a, str>>,
    /// E-mail address, at most 4 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_BYTES))]
    pub email: Option<Cow<'a, str>>,
    /// Id of the entity that this one belongs to, at most 256 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = ID_BYTES))]
    pub parent_id: Option<Cow<'a, str>>,
    /// Whether the entity was deleted. Default: `false`.
    #[serde(default)]
    pub deleted: bool,
}

impl Record for Entity<'_> {
    const KIND: Kind = Kind::Directory;

    fn detail(&self) -> &str {
        self.entity.name()
    }
}

impl<'a> Entity<'a> {
    fn decode(fields: &mut Fields<'a>) -> Result<Self, Reject> {
        Ok(Self {
            entity: fields.choice("entity", EntityKind::CHOICES)?.ok_or_else(|| Reject::missing("entity"))?,
            entity_id: fields.required_id("entity_id")?,
            name: fields.text("name", TEXT_BYTES)?,
            email: fields.text("email", TEXT_BYTES)?,
            parent_id: fields.id("parent_id")?,
            deleted: fields.boolean("deleted")?.unwrap_or_default(),
        })
    }

    fn encode(&self, row: &mut RowWriter<'_>) {
        row.text(self.entity.name());
        row.text(&self.entity_id);
        row.optional_text(self.name.as_deref());
        row.optional_text(self.email.as_deref());
        row.optional_text(self.parent_id.as_deref());
        row.boolean(self.deleted);
    }
}
