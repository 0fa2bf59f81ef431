//! The log file of a server, and the part written since its last start.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// At this size the file is renamed at the next start, keeping one older file. It holds many months of a server's
/// log.
const SET_ASIDE_BYTES: u64 = 32 << 20;
/// Maximum number of bytes read of the output since a start. It is enough to find the cause of a failure.
const TAIL_BYTES: u64 = 64 << 10;
/// Maximum number of lines in an error.
const SHOWN_LINES: usize = 12;

/// A log file at one start of its server.
pub(crate) struct Log {
    path: PathBuf,
    started_at: u64,
}

impl Log {
    /// Opens a log file for a start.
    pub(crate) fn open(path: &Path) -> Result<(Log, File)> {
        let what = || format!("cannot write the log {}", path.display());
        if path.metadata().is_ok_and(|metadata| metadata.len() > SET_ASIDE_BYTES) {
            fs::rename(path, path.with_extension("log.1")).with_context(what)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).with_context(what)?;
        let started_at = file.metadata().with_context(what)?.len();
        Ok((Log { path: path.to_owned(), started_at }, file))
    }

    /// Returns the end of what was written since the start.
    pub(crate) fn since_start(&self) -> String {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&self.path)?;
            let end = file.metadata()?.len();
            file.seek(SeekFrom::Start(self.started_at.max(end.saturating_sub(TAIL_BYTES))))?;
            let mut text = Vec::new();
            file.take(TAIL_BYTES).read_to_end(&mut text)?;
            Ok(text)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
    }

    /// Returns the last lines since the start, for an error.
    pub(crate) fn last_lines(&self) -> String {
        let text = self.since_start();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        if lines.is_empty() {
            return format!("it wrote nothing to {}", self.path.display());
        }
        let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n  ");
        format!("the end of {}:\n  {shown}", self.path.display())
    }
}
