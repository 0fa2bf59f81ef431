//! Holds: what must not be removed, for as long as somebody says so.

use chrono::{DateTime, Utc};

/// Records that a hold protects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldRange {
    /// Of this organization, `_` for records without one; `None` for all of them.
    pub organization_id: Option<String>,
    /// From this `created_at` on; `None` from the beginning.
    pub from: Option<DateTime<Utc>>,
    /// Up to and without this `created_at`; `None` without an end.
    pub until: Option<DateTime<Utc>>,
}

/// Held ranges as a statement takes them: an array for each column.
#[derive(Debug)]
pub(crate) struct HeldColumns<'h> {
    pub(crate) organizations: Vec<Option<&'h str>>,
    pub(crate) from: Vec<Option<DateTime<Utc>>>,
    pub(crate) until: Vec<Option<DateTime<Utc>>>,
}

/// The columns of held ranges, for [`not_held`] to be bound to.
pub(crate) fn columns(holds: &[HeldRange]) -> HeldColumns<'_> {
    HeldColumns {
        organizations: holds.iter().map(|held| held.organization_id.as_deref()).collect(),
        from: holds.iter().map(|held| held.from).collect(),
        until: holds.iter().map(|held| held.until).collect(),
    }
}

/// The condition that no held range covers a row of the table `alias`, with the [`columns`] as three parameters, of
/// which `first` is the number of the first one.
pub(crate) fn not_held(alias: &str, first: usize) -> String {
    format!(
        "NOT EXISTS (SELECT FROM unnest(${first}::text[], ${}::timestamptz[], ${}::timestamptz[]) AS held (organization_id, since, until)
                      WHERE (held.organization_id IS NULL OR held.organization_id = coalesce({alias}.organization_id, '_'))
                        AND (held.since IS NULL OR {alias}.created_at >= held.since)
                        AND (held.until IS NULL OR {alias}.created_at < held.until))",
        first + 1,
        first + 2
    )
}
