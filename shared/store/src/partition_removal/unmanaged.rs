//! Partitions that retention cannot remove as a day: it neither drops nor archives them.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use sqlx::PgConnection;

use super::DayPartition;
use crate::Dataset;
use crate::catalogue::{self, Child, Shape, Sizes, TableName};
use crate::partitions::State;
use crate::scoped_read::ROLE;

/// The reason why retention cannot remove a partition as a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnmanagedReason {
    /// It is the DEFAULT partition, which takes all rows without another partition.
    Default,
    /// It has another length, or does not start at midnight UTC.
    Bounds,
    /// It is itself partitioned.
    Partitioned,
    /// Its rows are on another server.
    Foreign,
    /// Another role owns it, so this user may not drop it.
    NotOwned,
    /// The reader role may read it by its own name, bypassing the policies of its parent.
    Readable,
    /// Retention detached it, and another partition of the same day was created since.
    Superseded,
}

/// A partition that retention cannot handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnmanagedPartition {
    /// The dataset to which it belongs.
    pub dataset: Dataset,
    /// The name of its table.
    pub name: TableName,
    /// Its start; `None` for a DEFAULT partition.
    pub starts_at: Option<DateTime<Utc>>,
    /// Its exclusive end; `None` for a DEFAULT partition.
    pub ends_at: Option<DateTime<Utc>>,
    /// The reason.
    pub reason: UnmanagedReason,
}

impl UnmanagedPartition {
    /// Returns whether its rows are never removed by age.
    pub const fn stays(&self) -> bool {
        matches!(
            self.reason,
            UnmanagedReason::Default
                | UnmanagedReason::Bounds
                | UnmanagedReason::Partitioned
                | UnmanagedReason::Foreign
        )
    }

    /// Returns the fix, as an instruction for the operator.
    pub fn mend(&self) -> String {
        let (name, table) = (&self.name, self.dataset.table());
        let unit = unit(self.dataset);
        let move_rows = format!(
            "`ALTER TABLE {table} DETACH PARTITION {name}`, attach a table for each {unit} of its rows, move the rows into {table}, and drop it"
        );
        match self.reason {
            UnmanagedReason::Default => format!("{move_rows}; Watchbook creates every partition that a record needs"),
            UnmanagedReason::Bounds | UnmanagedReason::Partitioned | UnmanagedReason::Foreign => {
                format!("{move_rows}; or drop it by hand once all of it is too old")
            }
            UnmanagedReason::NotOwned => {
                format!("let its owner run `ALTER TABLE {name} OWNER TO` with the user of DATABASE_URL")
            }
            UnmanagedReason::Readable => {
                format!("`REVOKE SELECT ON {name} FROM {ROLE}, PUBLIC`: readers come through {table}")
            }
            UnmanagedReason::Superseded => {
                format!("`INSERT INTO {table} SELECT * FROM {name} ON CONFLICT DO NOTHING`, and drop it")
            }
        }
    }
}

const fn unit(dataset: Dataset) -> &'static str {
    if dataset.is_monthly() { "month" } else { "day" }
}

impl fmt::Display for UnmanagedPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, unit) = (&self.name, unit(self.dataset));
        let text = |time: Option<DateTime<Utc>>| {
            time.map(|time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true)).unwrap_or_default()
        };
        match self.reason {
            UnmanagedReason::Default => {
                write!(
                    f,
                    "{name} is a DEFAULT partition: its rows are never removed by age, and prevent new partitions for their times"
                )
            }
            UnmanagedReason::Bounds => write!(
                f,
                "{name} covers {} to {}, which is not one {unit} in UTC: it is never removed by age",
                text(self.starts_at),
                text(self.ends_at)
            ),
            UnmanagedReason::Partitioned => write!(f, "{name} is partitioned itself: it is never removed by age"),
            UnmanagedReason::Foreign => {
                write!(f, "{name} is a foreign table: it is never removed by age, and no erasure reaches it")
            }
            UnmanagedReason::NotOwned => write!(f, "{name} belongs to another role: it cannot be removed"),
            UnmanagedReason::Readable => write!(f, "{name} can be read by {ROLE} without the policies of its table"),
            UnmanagedReason::Superseded => {
                write!(f, "{name} was detached by an interrupted run, and its {unit} has been created again since")
            }
        }
    }
}

/// Returns the partitions of a dataset that retention cannot handle, oldest first.
///
/// # Errors
/// If a query fails.
pub async fn unmanaged(connection: &mut PgConnection, dataset: Dataset) -> crate::Result<Vec<UnmanagedPartition>> {
    let mut found = Vec::new();
    let children = catalogue::children(connection, dataset, Sizes::Known).await?;
    for child in &children {
        let of = |reason| UnmanagedPartition {
            dataset,
            name: child.name.clone(),
            starts_at: (!child.is_default).then_some(child.time.0),
            ends_at: (!child.is_default).then_some(child.time.1),
            reason,
        };
        found.extend(reason(dataset, child).map(of));
        if !child.is_owned {
            found.push(of(UnmanagedReason::NotOwned));
        }
        if child.is_readable {
            found.push(of(UnmanagedReason::Readable));
        }
    }
    for leftover in catalogue::leftovers(connection, dataset).await? {
        let taken = children.iter().filter(|child| !child.is_default).map(|child| child.time);
        if catalogue::gaps(leftover.time, taken) != [leftover.time] {
            let (starts_at, ends_at) = (Some(leftover.time.0), Some(leftover.time.1));
            found.push(UnmanagedPartition {
                dataset,
                name: leftover.name,
                starts_at,
                ends_at,
                reason: UnmanagedReason::Superseded,
            });
        }
    }
    Ok(found)
}

fn reason(dataset: Dataset, child: &Child) -> Option<UnmanagedReason> {
    let (starts_at, ends_at) = child.time;
    let day = DayPartition { dataset, name: child.name.clone(), starts_at, ends_at, state: State::Attached, bytes: 0 };
    match child.shape {
        _ if child.is_default => Some(UnmanagedReason::Default),
        Shape::Partitioned => Some(UnmanagedReason::Partitioned),
        Shape::Foreign => Some(UnmanagedReason::Foreign),
        Shape::Table => (!day.is_whole()).then_some(UnmanagedReason::Bounds),
    }
}
