//! Queries of the gateway, one file for each kind or subject, and those of commands that read in the same way. Each
//! function names the route or command that it serves.
//!
//! A query is an index scan that reads only the partitions of its range. Lists are read page by page, newest first. If
//! no index leads to the records, the range is bounded: see `longest` of the filters.

pub mod alerts;
pub mod audit;
mod batch_size;
pub mod dead_letters;
pub mod errors;
pub mod events;
pub mod executions;
pub mod logs;
pub mod metrics;
pub mod replay;
pub mod retention;
mod select;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::value::RawValue;
use sqlx::types::Json;
use uuid::Uuid;

pub use batch_size::BatchSize;

/// The longest range to query if no index leads to the records. A day of 10 million rows is read in a few seconds, and
/// most queries over a week fill their page before its end.
pub const MAX_UNINDEXED_RANGE: TimeDelta = TimeDelta::days(7);

/// The key of a list item: unique, and the sort order of the list.
pub type Key = (DateTime<Utc>, Uuid);

/// JSON as it is stored: passed on and never parsed, because `jsonb` holds numbers that no Rust type does.
pub type StoredJson = Json<Box<RawValue>>;

/// Returns a `jsonb` column as lists select it: a value that prints too long is replaced by an object with the reason.
/// See `migrations/0017_long_numbers.sql`.
pub(crate) fn printable(column: &str) -> String {
    format!("watchbook.printable({column}) AS {column}")
}

/// A page of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The inclusive start of the range.
    pub from: DateTime<Utc>,
    /// The inclusive end of the range.
    pub to: DateTime<Utc>,
    /// The last item of the previous page; `None` for the first page.
    pub after: Option<Key>,
    /// The maximum number of items.
    pub limit: u32,
}

impl Page {
    /// Returns the range, which is the same for all pages of a list.
    pub const fn span(&self) -> Span {
        Span { from: self.from, to: self.to }
    }
}

/// A time range with both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The inclusive start.
    pub from: DateTime<Utc>,
    /// The inclusive end.
    pub to: DateTime<Utc>,
}

/// An item of a list.
pub trait Listed {
    /// Returns its key, after which the next page starts.
    fn key(&self) -> Key;
}

/// Implements `Listed` for rows that are listed by a time column and their id.
macro_rules! listed_by {
    ($time:ident: $($row:ty),+) => {
        $(impl crate::queries::Listed for $row {
            fn key(&self) -> crate::queries::Key {
                (self.$time, self.id)
            }
        })+
    };
}
pub(crate) use listed_by;
