//! Keeps days of records after their partitions are dropped, in a directory or an S3-compatible bucket.
//!
//! [`Archive::write`] writes one compressed NDJSON file for a day of a kind, reads it back, and writes a [`Manifest`]
//! beside it only if the file is intact. A file without a manifest does not count, so an interrupted write leaves
//! nothing behind that could be mistaken for a part. [`Archive::read`] reads a day back and ends with an error if it
//! differs from its manifest.
//!
//! ```text
//! events/2026/08/2026-08-01.ndjson.zst      part 1: the rows when the day was first dropped
//! events/2026/08/2026-08-01.manifest.json
//! events/2026/08/2026-08-01.2.ndjson.zst    part 2: rows of that day that arrived later
//! events/2026/08/2026-08-01.2.manifest.json
//! ```

mod archive;
mod bucket;
mod content;
mod error;
mod http;
mod location;
mod manifest;
mod name;
mod readback;
mod secrets;
mod target;
mod upload;

pub use archive::{Archive, Day};
pub use content::{Content, content_of};
pub use error::{ArchiveError, BoxError};
pub use manifest::Manifest;

/// The result of all operations.
pub type Result<T> = std::result::Result<T, ArchiveError>;
