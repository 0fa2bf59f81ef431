//! Exports the audit log as CSV or as newline-delimited JSON, newest first. Used by the gateway and the command.
//!
//! - [`Export`] reads it part by part, each in a transaction of its own, so that a slow reader costs no more than the
//!   part being sent. Parts are bounded in bytes.
//! - [`Format`] writes rows.
//! - [`AuditAccess`] is the audit event for reading the log, to be written before the first row is sent.

mod access;
mod format;
mod parts;

pub use access::AuditAccess;
pub use format::Format;
pub use parts::{Export, PART_BYTES, Part};
