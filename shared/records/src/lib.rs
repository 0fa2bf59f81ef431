//! The wire contract of Watchbook: the kinds of records, how a NATS message becomes a Postgres row, and why one is
//! rejected.
//!
//! A record is one JSON object, published on the subject `<prefix>.<kind>.<organization>.<detail>`. There are seven
//! kinds ([`Kind`]): [`Event`], [`ErrorRecord`], [`MetricSample`], [`LogLine`], [`AuditRecord`], [`Execution`] and
//! [`Entity`].
//!
//! Everything here is pure: bytes in, a row or a named rejection out. There is no clock, network or database. Producers
//! need only this crate to build a valid record; the crate `publisher` also publishes it. The writers need only this
//! crate to decode a message.
//!
//! # Example
//!
//! ```
//! use records::{Event, Headers, Kind, Message, Reason, Record, encode, subject};
//!
//! // A producer builds a record and its subject.
//! let event =
//!     Event { event_type: "build.finished".into(), run_id: Some("run-7".into()), ..Event::default() };
//! let body = serde_json::to_vec(&event)?;
//! let subject = subject::for_record("watchbook", Event::KIND, Some("acme"), event.detail());
//! assert_eq!(subject, "watchbook.events.acme.build.finished");
//!
//! // A writer decodes the message and appends its row in the binary format of COPY.
//! let message = Message {
//!     kind: Kind::Events,
//!     prefix: "watchbook",
//!     subject: &subject,
//!     stream: "WATCHBOOK_EVENTS",
//!     sequence: 4711,
//!     published_at: "2026-06-15T12:00:00Z".parse()?,
//!     headers: &Headers::default(),
//!     body: &body,
//! };
//! let mut rows = Vec::new();
//! let facts = encode(&message, None, &mut rows)?;
//! assert_eq!(facts.organization, Some("acme"));
//! assert_eq!(facts.created_at, message.published_at); // the body has no `created_at`
//!
//! // A message that cannot become a row has a named reason, and leaves the buffer as it was.
//! let length = rows.len();
//! let reject = encode(&Message { body: b"{}", ..message }, None, &mut rows).unwrap_err();
//! assert_eq!(reject.reason, Reason::MissingField);
//! assert_eq!(reject.field.as_deref(), Some("event_type"));
//! assert_eq!(rows.len(), length);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # From message to row
//!
//! [`encode`] takes these steps and returns either [`RowFacts`] or a [`Reject`]:
//!
//! 1. [`subject`] reads the organization from the subject,
//! 2. `body` decompresses the body,
//! 3. `text` replaces characters that Postgres cannot store,
//! 4. [`cloudevent`] unwraps a CloudEvents message,
//! 5. [`fields`] returns its JSON members one by one, each checked against its limit (`json`, `time`, [`limits`]),
//! 6. the kind's own module (`events`, `errors`, …) takes the fields that it knows,
//! 7. `envelope` adds the common fields, with everything else in `attributes`,
//! 8. [`row`] writes the row in the binary format of COPY.
//!
//! [`rollup`] counts rows by minute and label.

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
