//! Directory locks. An open file holds the lock, so the kernel releases it when the holder dies.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Poll interval for a lock that is held by another process.
const TRY_EVERY: Duration = Duration::from_millis(20);

/// An exclusive lock on a directory. It lasts as long as this value and its process.
#[derive(Debug)]
pub struct DirLock {
    // Closing the file releases the lock. Children do not inherit it.
    _file: File,
}

/// The reason why a directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds the lock.
    #[error("{} is in use: it is already running{}", directory.display(), as_process(*pid))]
    Running {
        /// The directory to lock.
        directory: PathBuf,
        /// The process id of the holder. `None` if it has not written its id yet.
        pid: Option<u32>,
    },
    /// The directory cannot be created or written.
    #[error("cannot lock {}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

fn as_process(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" as process {pid}")).unwrap_or_default()
}

impl DirLock {
    /// Locks `DIR/lock` and creates the directory if needed. Never waits: returns [`LockError::Running`] with the
    /// process id of the holder.
    pub fn acquire(directory: &Path) -> Result<DirLock, LockError> {
        let path = directory.join("lock");
        let failed = |source| LockError::Io { path: path.clone(), source };
        fs::create_dir_all(directory).map_err(failed)?;
        let mut file = open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Running { directory: directory.to_owned(), pid: holder(&mut file) });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        write_holder(&mut file, std::process::id()).map_err(failed)?;
        Ok(DirLock { _file: file })
    }
}

/// Takes a lock that an earlier holder is about to release. Waits at most `bound`.
pub(crate) async fn lock_within(path: &Path, bound: Duration, held_by: &str) -> Result<File> {
    let mut file = open(path).with_context(|| format!("cannot open the lock {}", path.display()))?;
    let taken = tokio::time::timeout(bound, async {
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(TRY_EVERY).await,
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    });
    match taken.await {
        Ok(result) => result.with_context(|| format!("cannot take the lock {}", path.display()))?,
        Err(_) => {
            let process = as_process(holder(&mut file));
            bail!("{held_by} is still running{process} and holds {}; waited {bound:?}", path.display());
        }
    }
    Ok(file)
}

/// Writes the holder's process id into the lock file. It is only used in error messages.
pub(crate) fn write_holder(file: &mut File, pid: u32) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{pid}")?;
    file.flush()
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_the_first_is_and_a_dropped_lock_is_free() {
        let directory = tempfile::tempdir().unwrap();
        let first = DirLock::acquire(directory.path()).unwrap();
        let error = DirLock::acquire(directory.path()).unwrap_err();
        assert!(matches!(error, LockError::Running { pid: Some(pid), .. } if pid == std::process::id()));
        assert!(error.to_string().contains(&format!("already running as process {}", std::process::id())), "{error}");
        drop(first);
        DirLock::acquire(directory.path()).unwrap();
    }

    #[tokio::test]
    async fn waiting_for_a_lock_ends_with_the_holder_in_words() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.lock");
        let mut first = lock_within(&path, Duration::ZERO, "a server").await.unwrap();
        write_holder(&mut first, 4711).unwrap();
        let error = lock_within(&path, Duration::from_millis(30), "a server").await.unwrap_err();
        assert!(error.to_string().contains("a server is still running as process 4711"), "{error}");
    }
}
