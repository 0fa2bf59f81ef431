//! The wire contract: every record kind with its type, decoding, limits, SQL and fixtures.
//!
//! Everything here is pure: bytes in, a row or a named rejection out. No clock, no network, no
//! database. A producer needs nothing else of Watchbook to build a valid record, and the writers
//! need nothing else to know what a message means.
//!
//! One message takes this path:
//!
//! 1. [`subject`] says which organization may have published it,
//! 2. `body` unpacks it where it is compressed,
//! 3. `text` makes the body something that Postgres can hold,
//! 4. `cloudevent` unwraps it where it is a CloudEvents message,
//! 5. [`fields`] hands out its JSON members one by one, each against its limit (`json`, `time`),
//! 6. the kind's own module (`events`, `errors`, …) picks what it knows,
//! 7. `envelope` adds what is common to all, with everything else in `attributes`,
//! 8. [`row`] writes it in the binary format of COPY.
//!
//! [`encode`] is that path; [`Reject`] is its only other end. [`rollup`] counts the rows by label.

pub mod audit;
mod body;
pub mod cloudevent;
pub mod directory;
mod envelope;
pub mod errors;
pub mod events;
pub mod executions;
pub mod fields;
mod headers;
mod json;
mod kind;
pub mod limits;
pub mod logs;
mod message;
pub mod metrics;
mod object;
mod record;
mod reject;
pub mod rollup;
pub mod row;
pub mod schema;
pub mod subject;
mod text;
mod time;

pub use audit::AuditRecord;
pub use directory::Entity;
pub use errors::ErrorRecord;
pub use events::Event;
pub use executions::Execution;
pub use headers::Headers;
pub use kind::{Conflict, Detail, Fixtures, Kind, Partitioning, Spec, Volume};
pub use logs::LogLine;
pub use message::{Message, REPLAY_ID_HEADER, REPLAY_TIME_HEADER, RowFacts, body_text, encode};
pub use metrics::MetricSample;
pub use record::{ActorType, Json, Outgoing, Record};
pub use reject::{Reason, Reject};
