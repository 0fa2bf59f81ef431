//! Atomic file writes: a temporary file beside the target, renamed when it is complete.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tempfile::{Builder, NamedTempFile};

/// Permissions of a new file before the umask applies.
const MODE: u32 = 0o666;

/// A file that appears only when it is complete. If it is dropped before that, nothing is left behind.
#[derive(Debug)]
pub(super) struct AtomicFile {
    path: PathBuf,
    beside: NamedTempFile,
    replaces: bool,
}

impl AtomicFile {
    /// Starts a file at `path`. Fails if a file exists there, unless `replaces` is set. Follows a link and replaces its
    /// target.
    pub(super) fn create(path: &Path, replaces: bool) -> anyhow::Result<Self> {
        let path = match fs::metadata(path) {
            Ok(there) => {
                anyhow::ensure!(
                    there.is_file(),
                    "{} is not a regular file: omit --output and redirect standard output there with `>`",
                    path.display()
                );
                anyhow::ensure!(replaces, "{} exists already: --force replaces it", path.display());
                fs::canonicalize(path).with_context(|| format!("resolve {}", path.display()))?
            }
            Err(_) => path.to_owned(),
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let beside = Builder::new()
            .prefix(".")
            .suffix(".part")
            .permissions(Permissions::from_mode(MODE))
            .tempfile_in(folder)
            .with_context(|| format!("create a temporary file in {}", folder.display()))?;
        Ok(Self { path, beside, replaces })
    }

    /// Appends `text`.
    pub(super) fn write(&mut self, text: &[u8]) -> anyhow::Result<()> {
        self.beside.write_all(text).with_context(|| format!("write {}", self.path.display()))
    }

    /// Syncs the file to disk and gives it its name.
    pub(super) fn commit(self) -> anyhow::Result<()> {
        let Self { path, beside, replaces } = self;
        beside.as_file().sync_all().with_context(|| format!("write {} to the disk", path.display()))?;
        let renamed = if replaces { beside.persist(&path) } else { beside.persist_noclobber(&path) };
        renamed
            .map(drop)
            .map_err(|error| error.error)
            .with_context(|| format!("rename the temporary file to {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        fs::read_dir(folder).unwrap().map(name).collect()
    }

    #[test]
    fn a_file_is_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let mut given_up = AtomicFile::create(&path, false).unwrap();
        given_up.write(b"half").unwrap();
        drop(given_up);
        assert_eq!(names(folder.path()), Vec::<String>::new());

        let mut file = AtomicFile::create(&path, false).unwrap();
        file.write(b"all").unwrap();
        assert!(!path.exists());
        file.commit().unwrap();
        assert_eq!(names(folder.path()), ["a.csv"]);
        assert!(AtomicFile::create(&path, false).unwrap_err().to_string().contains("--force"));

        let mut again = AtomicFile::create(&path, true).unwrap();
        again.write(b"more").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"all");
        again.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"more");
        assert_eq!(names(folder.path()), ["a.csv"]);
    }

    #[test]
    fn one_that_somebody_else_made_meanwhile_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let file = AtomicFile::create(&path, false).unwrap();
        fs::write(&path, "theirs").unwrap();
        assert!(file.commit().is_err());
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
        assert_eq!(names(folder.path()), ["a.csv"]);
    }

    #[test]
    fn what_is_no_file_is_refused_and_a_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        assert!(AtomicFile::create(Path::new("/dev/null"), true).is_err());
        assert!(AtomicFile::create(folder.path(), true).is_err());
        let (path, link) = (folder.path().join("a.csv"), folder.path().join("link"));
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut file = AtomicFile::create(&link, true).unwrap();
        file.write(b"new").unwrap();
        file.commit().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}
