//! The errors of an archive.

use std::error::Error;

/// Any error of the source of the rows.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The reason why rows could not be archived or read back. No message contains a secret.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The location of the archive is malformed.
    #[error("`{location}` is not a valid archive location: {problem}; give a directory or s3://bucket/prefix")]
    Location {
        /// The location as given, with credentials hidden.
        location: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The directory cannot be created or is not a directory.
    #[error("cannot use {folder} as an archive: {problem}; it must be a directory that this user can write")]
    Folder {
        /// The directory.
        folder: String,
        /// The error of the operating system.
        problem: String,
    },
    /// The `AWS_*` variables contradict each other, or one is invalid.
    #[error("cannot use {location} as an archive: {problem}; check the AWS_* variables")]
    Variables {
        /// The archive.
        location: String,
        /// The variable and what is wrong with it.
        problem: String,
    },
    /// The directory or bucket failed. A retry may succeed.
    #[error("cannot {doing} {object} in {location}: {problem}; {advice}")]
    Store {
        /// The failed step, as a verb.
        doing: &'static str,
        /// The object concerned.
        object: String,
        /// The archive.
        location: String,
        /// The error of the store.
        problem: String,
        /// What to check first.
        advice: &'static str,
    },
    /// The source of the rows failed. The archive is unchanged.
    #[error("cannot read the rows to archive")]
    Rows(#[source] BoxError),
    /// The rows do not end with a newline, so the last one may be incomplete.
    #[error("the rows to archive end in the middle of a line")]
    Unfinished,
    /// A part with this number exists. Parts are never overwritten.
    #[error("{object} in {location} exists already and is not overwritten")]
    Exists {
        /// The manifest of the part.
        object: String,
        /// The archive.
        location: String,
    },
    /// The kind or the part number cannot be used in a name.
    #[error("invalid name for a part of an archive: {0}")]
    Name(String),
    /// An archived file differs from its manifest.
    #[error("{object} in {location} is damaged: {problem}; do not rely on its rows")]
    Damaged {
        /// The file of rows.
        object: String,
        /// The archive.
        location: String,
        /// The difference.
        problem: String,
    },
    /// A manifest cannot be read, or describes another part than its name.
    #[error("cannot read the manifest {object} in {location}: {problem}")]
    Manifest {
        /// The manifest.
        object: String,
        /// The archive.
        location: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The manifest was written by a later release.
    #[error(
        "the manifest {object} in {location} has version {version}, and this release reads up to {newest}; \
         read it with a newer one"
    )]
    Newer {
        /// The manifest.
        object: String,
        /// The archive.
        location: String,
        /// The version of the manifest.
        version: u64,
        /// The newest version that this release can read.
        newest: u64,
    },
    /// The compressor failed, which only a lack of memory causes.
    #[error("cannot compress: {0}")]
    Compression(#[source] std::io::Error),
}
