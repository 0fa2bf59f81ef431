//! The manifest of a part. A file is a part only if it has one.

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};

use crate::content::Content;

/// The newest version of the manifest format. It is raised when older releases would misread a manifest; new fields
/// alone do not need it.
const VERSION: u64 = 1;
/// The format of the rows and their compression.
pub(crate) const FORMAT: &str = "ndjson";
pub(crate) const COMPRESSION: &str = "zstd";
/// Maximum size of a manifest in bytes. Manifests have a few hundred bytes; a larger object is not read.
pub(crate) const MANIFEST_BYTES: u64 = 64 * 1024;

/// Describes the file of a part, so that it can be verified, also with `sha256sum` and `zstd`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the manifest format.
    pub version: u64,
    /// The record kind.
    pub kind: String,
    /// The day of the partition (UTC).
    pub day: NaiveDate,
    /// Part number: 1 for the rows when the day was first dropped, 2 and more for rows that arrived later.
    pub part: u32,
    /// The table that held the rows.
    pub table: String,
    /// Path of the file of rows, relative to the location of the archive.
    pub object: String,
    /// Format of the rows: `ndjson`.
    pub format: String,
    /// Compression: `zstd`.
    pub compression: String,
    /// Number of rows.
    pub rows: u64,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Size of the rows in bytes before compression.
    pub plain_bytes: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// SHA-256 of the rows before compression, in hexadecimal.
    pub plain_sha256: String,
    /// When the file was completed.
    pub written_at: DateTime<Utc>,
}

/// The reason why a manifest cannot be read.
#[derive(Debug)]
pub(crate) enum Unreadable {
    Newer { version: u64, newest: u64 },
    Wrong(String),
}

impl Manifest {
    /// Returns the content of the part, to compare it with [`content_of`](crate::content_of) other rows.
    pub fn content(&self) -> Content {
        Content { rows: self.rows, plain_bytes: self.plain_bytes, plain_sha256: self.plain_sha256.clone() }
    }

    pub(crate) fn current() -> u64 {
        VERSION
    }

    pub(crate) fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }

    pub(crate) fn of_json(json: &[u8]) -> Result<Self, Unreadable> {
        /// The fields that every version has. They are read first, to recognise a newer version.
        #[derive(Deserialize)]
        struct Versioned {
            version: u64,
        }
        let wrong = |error: serde_json::Error| Unreadable::Wrong(error.to_string());
        let Versioned { version } = serde_json::from_slice(json).map_err(wrong)?;
        if version > VERSION {
            return Err(Unreadable::Newer { version, newest: VERSION });
        }
        let manifest: Self = serde_json::from_slice(json).map_err(wrong)?;
        if manifest.format != FORMAT || manifest.compression != COMPRESSION {
            let (format, compression) = (manifest.format, manifest.compression);
            return Err(Unreadable::Wrong(format!("{format} with {compression} is not {FORMAT} with {COMPRESSION}")));
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value() -> serde_json::Value {
        json!({
            "version": 1, "kind": "events", "day": "2026-08-01", "part": 2, "table": "watchbook.event_logs",
            "object": "events/2026/08/2026-08-01.2.ndjson.zst", "format": "ndjson", "compression": "zstd",
            "rows": 3, "bytes": 40, "plain_bytes": 90, "sha256": "aa", "plain_sha256": "bb",
            "written_at": "2026-09-01T02:03:04Z"
        })
    }

    #[test]
    fn a_manifest_reads_as_it_was_written() {
        let manifest = Manifest::of_json(value().to_string().as_bytes()).unwrap();
        assert_eq!(serde_json::to_value(&manifest).unwrap(), value());
        assert_eq!(Manifest::of_json(&manifest.to_json().unwrap()).unwrap(), manifest);
    }

    #[test]
    fn a_field_more_is_passed_by_and_a_newer_version_is_not() {
        let mut more = value();
        more["signature"] = json!("later");
        assert!(Manifest::of_json(more.to_string().as_bytes()).is_ok());
        let newer = json!({ "version": 2, "all": "else" }).to_string();
        assert!(matches!(Manifest::of_json(newer.as_bytes()), Err(Unreadable::Newer { version: 2, newest: 1 })));
    }

    #[test]
    fn other_compressions_are_refused_in_words() {
        let mut other = value();
        other["compression"] = json!("xz");
        let Err(Unreadable::Wrong(problem)) = Manifest::of_json(other.to_string().as_bytes()) else { panic!() };
        assert_eq!(problem, "ndjson with xz is not ndjson with zstd");
    }
}
