//! The audit log in one piece, for the gateway and for the command: as CSV or as lines of JSON, newest first.
//!
//! - [`Export`] reads it part by part, each in a reading of its own, so that nothing is held for whoever is slow but the
//!   part under way. A part is bounded in bytes.
//! - [`Format`] says how a row is written.
//! - [`AuditAccess`] is what the log says of whoever looks at it, to be written before the first row is handed out.

mod access;
mod format;
mod parts;

pub use access::AuditAccess;
pub use format::Format;
pub use parts::{Export, PART_BYTES, Part};
