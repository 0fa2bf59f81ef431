//! Partitions that are not one whole day: retention neither drops nor archives them.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use sqlx::PgConnection;

use super::Day;
use crate::Dataset;
use crate::catalogue::{self, Child, Shape, Sizes, TableName};
use crate::partitions::State;
use crate::reading::ROLE;

/// Why retention cannot remove a partition as a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It takes whatever no other one takes.
    Default,
    /// It is of another length, or begins at another time.
    Bounds,
    /// It is partitioned itself.
    Partitioned,
    /// Its rows are on another server.
    Foreign,
    /// It belongs to a role whose tables this user may not drop.
    NotOwned,
    /// The role of readers may read it by its own name, past the policies of its parent.
    Readable,
    /// It was taken out, and the day has been made anew since.
    Superseded,
}

/// A partition that is not as retention needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strange {
    /// Of what.
    pub dataset: Dataset,
    /// The table that it is.
    pub name: TableName,
    /// When it begins; `None` for a DEFAULT partition.
    pub starts_at: Option<DateTime<Utc>>,
    /// When the next one begins; `None` for a DEFAULT partition.
    pub ends_at: Option<DateTime<Utc>>,
    /// Why it is none.
    pub why: Why,
}

impl Strange {
    /// Whether its rows are never removed by age.
    pub const fn stays(&self) -> bool {
        matches!(self.why, Why::Default | Why::Bounds | Why::Partitioned | Why::Foreign)
    }

    /// What an operator does about it.
    pub fn mend(&self) -> String {
        let (name, table) = (&self.name, self.dataset.table());
        let unit = unit(self.dataset);
        let move_rows = format!(
            "`ALTER TABLE {table} DETACH PARTITION {name}`, attach a table for each {unit} that its rows are of, move the rows into {table}, and drop it"
        );
        match self.why {
            Why::Default => format!("{move_rows}; Watchbook makes every partition that a record needs"),
            Why::Bounds | Why::Partitioned | Why::Foreign => {
                format!("{move_rows}; or drop it by hand once all of it is too old")
            }
            Why::NotOwned => format!("let its owner run `ALTER TABLE {name} OWNER TO` with the user of DATABASE_URL"),
            Why::Readable => format!("`REVOKE SELECT ON {name} FROM {ROLE}, PUBLIC`: readers come through {table}"),
            Why::Superseded => {
                format!("`INSERT INTO {table} SELECT * FROM {name} ON CONFLICT DO NOTHING`, and drop it")
            }
        }
    }
}

const fn unit(dataset: Dataset) -> &'static str {
    if dataset.is_monthly() { "month" } else { "day" }
}

impl fmt::Display for Strange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, unit) = (&self.name, unit(self.dataset));
        let text = |time: Option<DateTime<Utc>>| {
            time.map(|time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true)).unwrap_or_default()
        };
        match self.why {
            Why::Default => {
                write!(
                    f,
                    "{name} is a DEFAULT partition: its rows are never removed by age, and keep others from being made"
                )
            }
            Why::Bounds => write!(
                f,
                "{name} goes from {} to {}, which is not one {unit} in UTC: it is never removed by age",
                text(self.starts_at),
                text(self.ends_at)
            ),
            Why::Partitioned => write!(f, "{name} is partitioned itself: it is never removed by age"),
            Why::Foreign => {
                write!(f, "{name} is a foreign table: it is never removed by age, and no erasure reaches it")
            }
            Why::NotOwned => write!(f, "{name} belongs to another role: it cannot be removed"),
            Why::Readable => write!(f, "{name} can be read by {ROLE} without the policies of its table"),
            Why::Superseded => {
                write!(f, "{name} was taken out by a run that did not end, and its {unit} has been made anew since")
            }
        }
    }
}

/// The partitions of a dataset that are not as retention needs them, the oldest first.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn strange(connection: &mut PgConnection, dataset: Dataset) -> crate::Result<Vec<Strange>> {
    let mut found = Vec::new();
    let children = catalogue::children(connection, dataset, Sizes::Known).await?;
    for child in &children {
        let of = |why| Strange {
            dataset,
            name: child.name.clone(),
            starts_at: (!child.is_default).then_some(child.time.0),
            ends_at: (!child.is_default).then_some(child.time.1),
            why,
        };
        found.extend(why(dataset, child).map(of));
        if !child.is_owned {
            found.push(of(Why::NotOwned));
        }
        if child.is_readable {
            found.push(of(Why::Readable));
        }
    }
    for leftover in catalogue::leftovers(connection, dataset).await? {
        let taken = children.iter().filter(|child| !child.is_default).map(|child| child.time);
        if catalogue::gaps(leftover.time, taken) != [leftover.time] {
            let (starts_at, ends_at) = (Some(leftover.time.0), Some(leftover.time.1));
            found.push(Strange { dataset, name: leftover.name, starts_at, ends_at, why: Why::Superseded });
        }
    }
    Ok(found)
}

fn why(dataset: Dataset, child: &Child) -> Option<Why> {
    let (starts_at, ends_at) = child.time;
    let day = Day { dataset, name: child.name.clone(), starts_at, ends_at, state: State::Attached, bytes: 0 };
    match child.shape {
        _ if child.is_default => Some(Why::Default),
        Shape::Partitioned => Some(Why::Partitioned),
        Shape::Foreign => Some(Why::Foreign),
        Shape::Table => (!day.is_whole()).then_some(Why::Bounds),
    }
}
