//! The queries that the gateway asks, a file a kind, and those of commands that read like it. Each function says whom
//! it serves.
//!
//! A query is an index scan that reads only the days of its time, and lists are read page by page from the newest
//! on. Where no index leads to what is asked for, the time is bounded: see `longest` of the filters.

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

/// How long a time may be asked for where no index leads to the records: a day of 10 million is read in some seconds,
/// and most of a week's readers find a page of theirs before.
pub const MAX_UNINDEXED_RANGE: TimeDelta = TimeDelta::days(7);

/// What tells an item of a list from all others, and where it stands among them.
pub type Key = (DateTime<Utc>, Uuid);

/// JSON as it is stored: passed on and never read. A `jsonb` holds numbers that no program's own types do.
pub type StoredJson = Json<Box<RawValue>>;

/// A `jsonb` column as a list selects it: what prints to more than a list can carry is replaced by an object that says
/// why. See `migrations/0017_long_numbers.sql`.
pub(crate) fn printable(column: &str) -> String {
    format!("watchbook.printable({column}) AS {column}")
}

/// A page of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The first moment that is asked for.
    pub from: DateTime<Utc>,
    /// The last one.
    pub to: DateTime<Utc>,
    /// The last item of the page before; `None` for the first page.
    pub after: Option<Key>,
    /// Items at the most.
    pub limit: u32,
}

impl Page {
    /// The time that is asked for, whichever page of it this is.
    pub const fn span(&self) -> Span {
        Span { from: self.from, to: self.to }
    }
}

/// A stretch of time, both ends in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first moment.
    pub from: DateTime<Utc>,
    /// The last one.
    pub to: DateTime<Utc>,
}

/// An item of a list.
pub trait Listed {
    /// Its key, from which the next page goes on.
    fn key(&self) -> Key;
}

/// Rows that are listed by a time and their id.
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
