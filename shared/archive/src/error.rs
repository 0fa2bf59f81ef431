//! What can go wrong, in words for whoever has to mend it.

use std::error::Error;

/// The error of whoever gives us rows, whatever it is.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why something could not be archived, or not be brought back. None of the texts holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// What was given as the archive's location is none.
    #[error("`{location}` is no place for an archive: {problem}; give a folder or s3://bucket/prefix")]
    Location {
        /// What was given.
        location: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The folder is not there and cannot be made, or is none.
    #[error("cannot use {folder} as an archive: {problem}; is it a folder that this user may write?")]
    Folder {
        /// The folder.
        folder: String,
        /// What the system said.
        problem: String,
    },
    /// The variables that say how to reach a bucket contradict each other, or one cannot be read.
    #[error("cannot use {location} as an archive: {problem}; look at the AWS_* variables")]
    Variables {
        /// The archive.
        location: String,
        /// Which, and what is wrong with it.
        problem: String,
    },
    /// The folder or bucket did not do what it was asked. It may do so later.
    #[error("cannot {doing} {object} in {location}: {problem}; {advice}")]
    Store {
        /// The step, as a verb.
        doing: &'static str,
        /// The object that it was about.
        object: String,
        /// The archive.
        location: String,
        /// What the store said.
        problem: String,
        /// Where to look first.
        advice: &'static str,
    },
    /// Whoever gave the rows failed; the archive is as it was before.
    #[error("the rows to archive cannot be read")]
    Rows(#[source] BoxError),
    /// The rows do not end with a newline, so that their last one may be half of one.
    #[error("the rows to archive end in the middle of a line")]
    Unfinished,
    /// A part of that number is archived already, and is never written over.
    #[error("{object} in {location} is archived already, and stays as it is")]
    Exists {
        /// The part's manifest.
        object: String,
        /// The archive.
        location: String,
    },
    /// The name that was asked for is none that an archive has.
    #[error("no part of an archive can be called that: {0}")]
    Name(String),
    /// What is archived is not what its manifest says.
    #[error("{object} in {location} is damaged: {problem}; its rows are not to be relied on")]
    Damaged {
        /// The file of rows.
        object: String,
        /// The archive.
        location: String,
        /// How it differs.
        problem: String,
    },
    /// A manifest cannot be read, or speaks of another part than its name does.
    #[error("the manifest {object} in {location} cannot be read: {problem}")]
    Manifest {
        /// The manifest.
        object: String,
        /// The archive.
        location: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A manifest was written by a later release.
    #[error(
        "the manifest {object} in {location} has version {version}, and this release reads up to {newest}; \
         read it with a newer one"
    )]
    Newer {
        /// The manifest.
        object: String,
        /// The archive.
        location: String,
        /// Its version.
        version: u64,
        /// The newest that is known here.
        newest: u64,
    },
    /// The compressor refused, which only a lack of memory makes it do.
    #[error("cannot compress: {0}")]
    Compression(#[source] std::io::Error),
}
