//! The file that a server's output goes to, and what it said since its last start.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// At this size the file is set aside at the next start, one generation of it. A server's log of many months.
const SET_ASIDE_BYTES: u64 = 32 << 20;
/// How much of a start's output is looked at: enough for any cause of failure, little enough to read at once.
const TAIL_BYTES: u64 = 64 << 10;
/// How many lines an error shows.
const SHOWN_LINES: usize = 12;

/// A log as of one start of its server.
pub(crate) struct Log {
    path: PathBuf,
    started_at: u64,
}

impl Log {
    /// Opens a log for one more start.
    pub(crate) fn open(path: &Path) -> Result<(Log, File)> {
        let what = || format!("cannot write the log {}", path.display());
        if path.metadata().is_ok_and(|metadata| metadata.len() > SET_ASIDE_BYTES) {
            fs::rename(path, path.with_extension("log.1")).with_context(what)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).with_context(what)?;
        let started_at = file.metadata().with_context(what)?.len();
        Ok((Log { path: path.to_owned(), started_at }, file))
    }

    /// The end of what was written since the start.
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

    /// The last lines since the start, for an error.
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
