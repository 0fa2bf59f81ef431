//! Where a day of records is kept after its partition is dropped: a folder, or an S3-compatible bucket.
//!
//! [`Archive::write`] makes one compressed NDJSON file of a kind's day, reads it back, and writes a [`Manifest`] beside
//! it only where all is as it was sent. So what has no manifest is not there, whatever happened while it was written.
//! [`Archive::read`] brings a day back, and ends with an error where it is not what the manifest says.
//!
//! ```text
//! events/2026/08/2026-08-01.ndjson.zst      the first time that the day was dropped
//! events/2026/08/2026-08-01.manifest.json
//! events/2026/08/2026-08-01.2.ndjson.zst    what came for it afterwards
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
mod place;
mod readback;
mod secrets;
mod upload;

pub use archive::{Archive, Day};
pub use content::{Content, content_of};
pub use error::{ArchiveError, BoxError};
pub use manifest::Manifest;

/// Everything here fails with an [`ArchiveError`].
pub type Result<T> = std::result::Result<T, ArchiveError>;
