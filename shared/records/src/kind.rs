//! The record kinds: one line each here, everything else in the kind's own folder.

use std::borrow::Cow;

use crate::fields::Fields;
use crate::rollup::Column;
use crate::row::RowWriter;
use crate::{Reject, schema};

/// What a kind's folder says about it. The writers, the store and the schemas read this and nothing else.
#[derive(Debug)]
pub struct Spec {
    /// The table, with its schema.
    pub table: &'static str,
    /// The columns of the kind's own fields, in the order in which [`Spec::encode`] writes them.
    pub columns: &'static [&'static str],
    /// What stands behind the organization in a record's subject.
    pub detail: Detail,
    /// Behind these, the columns that are worked out of the fields. A member of such a name means nothing.
    pub derived: &'static [&'static str],
    /// What the roll-ups group by, beside the organization.
    pub labels: &'static [Column],
    /// What the roll-ups measure.
    pub levels: &'static [Column],
    /// Of what no more than so many bytes are kept; `None` where only time bounds what is kept.
    pub volume: Option<Volume>,
    /// How the table is cut by `created_at`.
    pub partitioning: Partitioning,
    /// What happens to a row whose key is there already.
    pub conflict: Conflict,
    /// Days of `created_at` that are accepted and kept unless configured; `None` keeps for ever.
    pub keep_days: Option<u32>,
    /// Takes the kind's fields and writes its columns.
    pub(crate) encode: fn(&mut Fields<'_>, &mut RowWriter<'_>) -> Result<Facts, Reject>,
    /// The JSON Schema of the kind's own fields.
    pub(crate) schema: fn() -> schemars::Schema,
    /// Bodies that must be stored and bodies that must be refused, for the tests and the documentation.
    pub fixtures: Fixtures,
}

/// The field that stands behind the organization in a record's subject, so that readers and permissions can filter.
#[derive(Debug, Clone, Copy)]
pub struct Detail {
    /// The field.
    pub field: &'static str,
    /// What stands there where the record does not have the field.
    pub default: &'static str,
    /// The stored form of a word from a closed list; `None` where the field has no such list or the word is not on it.
    pub(crate) word: fn(&str) -> Option<&'static str>,
}

impl Detail {
    /// A field that may hold any text.
    pub(crate) const fn text(field: &'static str) -> Self {
        Self { field, default: "", word: |_| None }
    }

    /// Returns the detail of a record, in the form in which the field is stored.
    pub fn of<'t>(&self, fields: &mut Fields<'t>) -> Cow<'t, str> {
        // A value that is no text is refused by the decoder, which names it.
        let text = fields.unbounded_text(self.field).ok().flatten().unwrap_or(Cow::Borrowed(self.default));
        (self.word)(&text).map_or(text, Cow::Borrowed)
    }
}

/// What is bounded by volume, for each organization apart. The limit itself is a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Volume {
    /// The column that says whose volume it is. Never NULL, a label of the roll-ups, and first in an index in which
    /// `created_at` is second, by which the oldest are found.
    pub owner: &'static str,
    /// The column of which the bytes count: `text`, never NULL.
    pub text: &'static str,
}

/// What the kind knows about a record beyond its columns.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Facts {
    /// Counts as a failure in the roll-ups.
    pub(crate) failed: bool,
    /// Bytes that were cut off a text that may be cut.
    pub(crate) truncated_bytes: usize,
}

/// Example bodies, one JSON object a line, as the organization [`Fixtures::ORGANIZATION`] published
/// them and the stream took them at [`Fixtures::PUBLISHED_AT`].
#[derive(Debug, Clone, Copy)]
pub struct Fixtures {
    /// Each is stored.
    pub accepted: &'static str,
    /// Each is refused; its member `"_expect"` says with which `reason:field`.
    pub rejected: &'static str,
}

impl Fixtures {
    /// The organization in the subject of every example.
    pub const ORGANIZATION: &str = "acme";
    /// The stream's time of every example, from which an accepted `created_at` is never far.
    pub const PUBLISHED_AT: &str = "2026-06-15T12:00:00Z";
}

/// How a table is cut by `created_at`, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partitioning {
    /// One partition a day.
    Daily,
    /// One partition a month, for what stays for years.
    Monthly,
    /// A plain table.
    None,
}

/// What happens to a row whose key is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// The first one stays: `(created_at, id)` is the record.
    KeepFirst,
    /// The newest `(created_at, id)` of the named key columns stays: snapshots of an entity.
    KeepNewest {
        /// The columns that name the entity.
        key: &'static [&'static str],
    },
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident => $module:ident),+ $(,)?) => {
        /// A record kind: one stream, one table, one writer.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[$doc])* $variant),+
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in subjects, commands, URLs and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($module)),+ }
            }

            /// What the kind's folder says about it.
            pub const fn spec(self) -> &'static Spec {
                match self { $(Self::$variant => &crate::$module::SPEC),+ }
            }
        }
    };
}

kinds! {
    /// What happened in a project or a run.
    Events => events,
    /// Errors with their trace and stack.
    Errors => errors,
    /// A container's resource usage.
    Metrics => metrics,
    /// A container's output, line by line.
    Logs => logs,
    /// Who did what to what.
    Audit => audit,
    /// Sandbox executions of strategies.
    Executions => executions,
    /// What ids mean: names and addresses of users, strategies and the rest.
    Directory => directory,
}

impl Kind {
    /// The table without its schema.
    pub fn table_name(self) -> &'static str {
        let table = self.spec().table;
        table.split_once('.').map_or(table, |(_, name)| name)
    }

    /// Every column that a writer fills, in the order of COPY: the kind's own, then the common ones.
    pub fn columns(self) -> impl Iterator<Item = &'static str> {
        let Spec { columns, derived, .. } = self.spec();
        columns.iter().chain(*derived).chain(crate::envelope::COLUMNS).copied()
    }

    /// The columns that are fields of a record, or made of one of its own: all but the derived ones.
    pub fn fields(self) -> impl Iterator<Item = &'static str> {
        self.spec().columns.iter().chain(crate::envelope::COLUMNS).copied()
    }

    /// The JSON Schema of a record of this kind, as it is published.
    pub fn schema(self) -> serde_json::Value {
        schema::of(self)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The name is not a record kind.
#[derive(Debug, thiserror::Error)]
#[error("unknown kind `{0}`: expected one of {names}", names = Kind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", "))]
pub struct UnknownKind(String);

impl std::str::FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name).ok_or_else(|| UnknownKind(name.to_owned()))
    }
}
