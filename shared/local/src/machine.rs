//! Where programs are installed on this machine.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::run::run;
use crate::sys;
use crate::version::Version;

/// Directories of a Postgres that is not on PATH: Debian, Red Hat, the PGDG packages, Alpine, Homebrew on both
/// types of Mac, Postgres.app.
const POSTGRES_PLACES: [&str; 8] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/libexec/postgresql*",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
];
/// The cache used by root. Postgres runs as another user there, which cannot access root's home.
pub(crate) const SHARED_CACHE: &str = "/var/cache/watchbook";
/// Time limit for `pg_config`, which prints one line.
const PG_CONFIG_BOUND: Duration = Duration::from_secs(10);

/// Where to search for programs. Tests use a machine that has none.
pub(crate) struct Machine {
    pub(crate) path: OsString,
    /// The value of `WATCHBOOK_NATS_SERVER`.
    pub(crate) nats_server: Option<PathBuf>,
    /// The value of `WATCHBOOK_POSTGRES_BIN`.
    pub(crate) postgres_bin: Option<PathBuf>,
    /// Directories to search besides PATH. `*` stands for a version.
    pub(crate) postgres_places: Vec<String>,
    /// Cache for programs that must run as a user who cannot access the caller's cache.
    pub(crate) shared_cache: PathBuf,
    /// Whether system packages may be installed, which only root can do.
    pub(crate) may_install: bool,
}

impl Machine {
    /// Returns this machine.
    pub(crate) fn here() -> Machine {
        // Absolute, because the programs are started in another directory.
        let absolute = |value: OsString| std::path::absolute(&value).unwrap_or_else(|_| value.into());
        let chosen = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(absolute);
        Machine {
            path: std::env::var_os("PATH").unwrap_or_default(),
            nats_server: chosen("WATCHBOOK_NATS_SERVER"),
            postgres_bin: chosen("WATCHBOOK_POSTGRES_BIN"),
            postgres_places: POSTGRES_PLACES.map(String::from).to_vec(),
            shared_cache: PathBuf::from(SHARED_CACHE),
            may_install: sys::is_root(),
        }
    }

    #[cfg(test)]
    pub(crate) fn bare(path: &[&Path], shared_cache: &Path) -> Machine {
        Machine {
            path: std::env::join_paths(path).unwrap(),
            nats_server: None,
            postgres_bin: None,
            postgres_places: Vec::new(),
            shared_cache: shared_cache.to_owned(),
            may_install: false,
        }
    }

    /// Returns every program with this name on PATH, in order.
    pub(crate) fn on_path(&self, name: &str) -> Vec<PathBuf> {
        let places = std::env::split_paths(&self.path).filter(|place| place.is_absolute());
        places.map(|place| place.join(name)).filter(|program| is_program(program)).collect()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        !self.on_path(name).is_empty()
    }

    /// Returns a command from this machine's PATH.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.on_path(name).into_iter().next().unwrap_or_else(|| name.into()));
        command.env("PATH", &self.path);
        command
    }

    /// Returns the directories of complete Postgres installations: those on the user's PATH first, then the newest
    /// first.
    pub(crate) async fn postgres_directories(&self) -> Vec<PathBuf> {
        let mut places = Vec::new();
        if self.has("pg_config") {
            let mut pg_config = self.command("pg_config");
            pg_config.arg("--bindir");
            if let Ok(told) = run(pg_config, PG_CONFIG_BOUND).await {
                places.push(PathBuf::from(told.trim()));
            }
        }
        // A link leads to the directory with the rest of Postgres.
        let linked = |program: PathBuf| program.canonicalize().ok()?.parent().map(Path::to_path_buf);
        places.extend(self.on_path("postgres").into_iter().filter_map(linked));
        let mut known: Vec<PathBuf> = self.postgres_places.iter().flat_map(|pattern| matching(pattern)).collect();
        known.sort_by_key(|place| std::cmp::Reverse(version_in(place)));
        places.extend(known);

        let mut whole: Vec<PathBuf> = Vec::new();
        for place in places.into_iter().filter_map(|place| place.canonicalize().ok()) {
            if !whole.contains(&place) && is_program(&place.join("initdb")) && is_program(&place.join("postgres")) {
                whole.push(place);
            }
        }
        whole
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Returns the directories that match a pattern with at most one `*`.
fn matching(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else { return vec![PathBuf::from(pattern)] };
    let (parent, start) = before.rsplit_once('/').unwrap_or((".", before));
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(start)).map(|name| PathBuf::from(format!("{parent}/{name}{after}"))).collect()
}

/// Returns the version in the path of a directory, for sorting.
fn version_in(place: &Path) -> Option<Version> {
    let parts = place.components().rev().map(|part| part.as_os_str().to_string_lossy().into_owned());
    parts.into_iter().find_map(|part| Version::parse(part.trim_start_matches(|c: char| !c.is_ascii_digit())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_the_places_of_each_system() {
        for (place, version) in [
            ("/usr/lib/postgresql/15/bin", 15),
            ("/usr/pgsql-17/bin", 17),
            ("/usr/libexec/postgresql16", 16),
            ("/opt/homebrew/opt/postgresql@18/bin", 18),
        ] {
            assert_eq!(version_in(Path::new(place)), Some(Version(version, 0, 0)), "{place}");
        }
    }
}
