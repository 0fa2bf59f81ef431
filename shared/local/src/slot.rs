//! A cache entry that one process fills and that others see only when it is complete.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::lock::{lock_within, write_holder};
use crate::programs::ProgressCallback;

/// How long to wait for another process that fetches a program. It is longer than the limit of one client.
const OTHER_FETCH_BOUND: Duration = Duration::from_secs(900);
/// Prefix of incomplete directories.
const UNFINISHED: &str = ".unfinished-";

/// A directory to fill and then publish under its name. If dropped before that, it is removed.
pub(crate) struct Slot {
    directory: TempDir,
    target: PathBuf,
    _lock: File,
}

impl Slot {
    /// Waits for the lock and creates the directory.
    pub(crate) async fn take(cache_dir: &Path, name: &str, on_progress: &ProgressCallback) -> Result<Slot> {
        let what = || format!("cannot write the cache {}", cache_dir.display());
        fs::create_dir_all(cache_dir).with_context(what)?;
        let path = cache_dir.join("lock");
        let mut lock = match lock_within(&path, Duration::ZERO, "a fetch").await {
            Ok(lock) => lock,
            Err(_) => {
                on_progress("Another process is fetching programs; waiting for it");
                lock_within(&path, OTHER_FETCH_BOUND, "another process that fetches programs").await?
            }
        };
        write_holder(&mut lock, std::process::id()).with_context(what)?;
        // While the lock is held, incomplete directories can only stem from killed processes. A client of theirs
        // may still be writing, so what cannot be removed now is left for the next time.
        for entry in fs::read_dir(cache_dir).with_context(what)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let directory = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(cache_dir).with_context(what)?;
        // Another user may have to run the programs.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).with_context(what)?;
        Ok(Slot { directory, target: cache_dir.join(name), _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Publishes the directory under its name, atomically. Replaces an earlier one that no longer works.
    pub(crate) fn publish(self) -> Result<()> {
        let what = || format!("cannot publish {}", self.target.display());
        if self.target.exists() {
            fs::remove_dir_all(&self.target).with_context(what)?;
        }
        fs::rename(self.directory.path(), &self.target).with_context(what)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn what_is_not_published_vanishes_and_what_a_killed_process_left_too() {
        let cache = tempfile::tempdir().unwrap();
        let on_progress: ProgressCallback = Arc::new(|_| {});
        fs::create_dir(cache.path().join(".unfinished-killed")).unwrap();
        let slot = Slot::take(cache.path(), "thing-1", &on_progress).await.unwrap();
        fs::write(slot.path().join("half"), "x").unwrap();
        drop(slot);
        let left: Vec<_> = fs::read_dir(cache.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["lock"]);

        let slot = Slot::take(cache.path(), "thing-1", &on_progress).await.unwrap();
        fs::write(slot.path().join("whole"), "x").unwrap();
        slot.publish().unwrap();
        assert!(cache.path().join("thing-1/whole").exists());
    }

    #[tokio::test]
    async fn two_at_once_take_turns() {
        let cache = tempfile::tempdir().unwrap();
        let on_progress: ProgressCallback = Arc::new(|_| {});
        let first = Slot::take(cache.path(), "thing-1", &on_progress).await.unwrap();
        let mut second = Box::pin(Slot::take(cache.path(), "thing-1", &on_progress));
        assert!(futures_poll_once(&mut second).await.is_none());
        first.publish().unwrap();
        second.await.unwrap();
    }

    async fn futures_poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::time::timeout(Duration::from_millis(60), future).await.ok()
    }
}
