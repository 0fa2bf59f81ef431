//! The kinds of records: one line each here, everything else in the folder of the kind.

use std::borrow::Cow;

use crate::fields::Fields;
use crate::rollup::Column;
use crate::row::RowWriter;
use crate::{Reject, schema};

/// The specification of a kind, defined in its folder and read by the writers, the store and the schemas.
#[derive(Debug)]
pub struct Spec {
    /// The table with its Postgres schema, such as `watchbook.event_logs`.
    pub table: &'static str,
    /// The columns of the kind's own fields, in the order in which `encode` writes them.
    pub columns: &'static [&'static str],
    /// The part of the subject after the organization.
    pub detail: Detail,
    /// The columns after these that are derived from the fields. A member of the record with such a name has no
    /// meaning: like any unknown member, it goes to `attributes`.
    pub derived: &'static [&'static str],
    /// The columns by which the roll-ups group, beside the organization.
    pub labels: &'static [Column],
    /// The columns of which the roll-ups keep the sum and the peak.
    pub levels: &'static [Column],
    /// What a limit in bytes applies to; `None` if only age bounds what is kept.
    pub volume: Option<Volume>,
    /// How the table is partitioned by `created_at`.
    pub partitioning: Partitioning,
    /// What happens to a row whose key exists already.
    pub conflict: Conflict,
    /// How many days records are kept by default. An older `created_at` is rejected. `None` keeps records forever.
    pub keep_days: Option<u32>,
    /// Decodes the kind's own fields and writes [`Spec::columns`] and [`Spec::derived`].
    pub(crate) encode: fn(&mut Fields<'_>, &mut RowWriter<'_>) -> Result<Facts, Reject>,
    /// Returns the JSON Schema of the kind's own fields.
    pub(crate) schema: fn() -> schemars::Schema,
    /// Bodies that must be stored and bodies that must be rejected, for tests and documentation.
    pub fixtures: Fixtures,
}

/// The field whose value follows the organization in the subject, so that subscribers and permissions can filter.
#[derive(Debug, Clone, Copy)]
pub struct Detail {
    /// The name of the field.
    pub field: &'static str,
    /// The value if the record does not have the field.
    pub default: &'static str,
    /// Returns the stored form of a word; `None` if the field has no closed list of words, or the word is not on it.
    pub(crate) word: fn(&str) -> Option<&'static str>,
}

impl Detail {
    /// Returns the detail for a field that may hold any text.
    pub(crate) const fn text(field: &'static str) -> Self {
        Self { field, default: "", word: |_| None }
    }

    /// Takes the field and returns its value in the stored form. [`subject::for_record`](crate::subject::for_record)
    /// makes it a valid part of a subject.
    pub fn of<'t>(&self, fields: &mut Fields<'t>) -> Cow<'t, str> {
        // If the value is not text, the decoder rejects the record.
        let text = fields.unbounded_text(self.field).ok().flatten().unwrap_or(Cow::Borrowed(self.default));
        (self.word)(&text).map_or(text, Cow::Borrowed)
    }
}

/// What is kept up to a limit in bytes, for each organization and owner. The limit is a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Volume {
    /// The column with the owner, such as `container_id`. It is never NULL, is a label of the roll-ups, and is followed
    /// by `created_at` in an index, which finds the oldest rows.
    pub owner: &'static str,
    /// The column whose bytes count: of type `text`, never NULL.
    pub text: &'static str,
}

/// What a kind knows about a record beyond its columns.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Facts {
    /// Whether the roll-ups count the record as a failure.
    pub(crate) failed: bool,
    /// How many bytes of a text were cut.
    pub(crate) truncated_bytes: usize,
}

/// Example bodies: one JSON object per line, published by [`Fixtures::ORGANIZATION`] and stored by the stream at
/// [`Fixtures::PUBLISHED_AT`].
#[derive(Debug, Clone, Copy)]
pub struct Fixtures {
    /// Bodies that are stored.
    pub accepted: &'static str,
    /// Bodies that are rejected. The member `"_expect"` of each names the rejection as `reason:field`.
    pub rejected: &'static str,
}

impl Fixtures {
    /// The organization in the subject of every example.
    pub const ORGANIZATION: &str = "acme";
    /// The stream's time of every example. The `created_at` of accepted examples is close to it.
    pub const PUBLISHED_AT: &str = "2026-06-15T12:00:00Z";
}

/// How a table is partitioned by `created_at`, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partitioning {
    /// One partition per day.
    Daily,
    /// One partition per month, for records that are kept for years.
    Monthly,
    /// Not partitioned.
    None,
}

/// What happens to a row whose key exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// The first row stays. The key is `(created_at, id)`.
    KeepFirst,
    /// The row with the greatest `(created_at, id)` stays: snapshots of an entity.
    KeepNewest {
        /// The columns of the key.
        key: &'static [&'static str],
    },
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident => $module:ident),+ $(,)?) => {
        /// A kind of records. Each kind has its own stream, table and writer.
        ///
        /// [`FromStr`](std::str::FromStr) parses [`Kind::name`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[$doc])* $variant),+
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the name in subjects, commands, URLs and metrics, such as `events`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($module)),+ }
            }

            /// Returns the specification of the kind.
            pub const fn spec(self) -> &'static Spec {
                match self { $(Self::$variant => &crate::$module::SPEC),+ }
            }
        }
    };
}

kinds! {
    /// What happened in a project or a run.
    Events => events,
    /// Errors, with their trace and stack.
    Errors => errors,
    /// Resource usage of containers.
    Metrics => metrics,
    /// Output of containers, line by line.
    Logs => logs,
    /// Audit events: who did what to what.
    Audit => audit,
    /// Executions of strategies in a sandbox.
    Executions => executions,
    /// Names for ids: of users, organizations, projects, runs, strategies and containers.
    Directory => directory,
}

impl Kind {
    /// Returns the table without its Postgres schema.
    pub fn table_name(self) -> &'static str {
        let table = self.spec().table;
        table.split_once('.').map_or(table, |(_, name)| name)
    }

    /// Returns every column that a writer fills, in the order of COPY: the kind's own, the derived, the common ones.
    pub fn columns(self) -> impl Iterator<Item = &'static str> {
        let Spec { columns, derived, .. } = self.spec();
        columns.iter().chain(*derived).chain(crate::envelope::COLUMNS).copied()
    }

    /// Returns the columns without the derived ones: each is a field of a record, or made from one field.
    pub fn fields(self) -> impl Iterator<Item = &'static str> {
        self.spec().columns.iter().chain(crate::envelope::COLUMNS).copied()
    }

    /// Returns the JSON Schema (draft 2020-12) of a published record of this kind, in snake_case.
    pub fn schema(self) -> serde_json::Value {
        schema::of(self)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The error for a name that is not the name of a kind.
#[derive(Debug, thiserror::Error)]
#[error("unknown kind `{0}`: expected one of {names}", names = Kind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", "))]
pub struct UnknownKind(String);

impl std::str::FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name).ok_or_else(|| UnknownKind(name.to_owned()))
    }
}
