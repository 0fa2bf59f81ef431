//! The directory of a Postgres cluster: its owner, its creation, and leftovers of an earlier server.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, fchown, lchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::child::{Child, Launch};
use crate::files::write_private;
use crate::log::Log;
use crate::postgres::{PostgresOptions, ROLE};
use crate::programs::Programs;
use crate::secret;
use crate::server::lock_server;
use crate::sys::{self, Signal};
use crate::user::User;
use crate::version::version_of;

/// Time limit for creating a cluster. It takes one to two seconds, and up to a minute on a slow disk.
const MAKE_BOUND: Duration = Duration::from_secs(180);
/// The file that `postgresql.conf` includes last.
const SETTINGS_FILE: &str = "watchbook.conf";

/// The location of a cluster and the user that may access it.
pub(crate) struct Place {
    path: PathBuf,
    /// The user that Postgres runs as. `None` is the current one.
    pub(crate) user: Option<User>,
    /// Inherited by Postgres as an open file if its user cannot reach the directory by path, such as in root's
    /// home.
    pub(crate) directory: Option<Arc<File>>,
}

impl Place {
    /// Returns the data directory argument for Postgres. The path of an inherited file descriptor works without
    /// access to the parent directories.
    pub(crate) fn argument(&self) -> OsString {
        match &self.directory {
            Some(directory) => format!("/proc/self/fd/{}", directory.as_raw_fd()).into(),
            None => self.path.clone().into(),
        }
    }
}

/// Checks the directory of a cluster and gives it to the user that Postgres runs as.
pub(crate) fn place(path: &Path) -> Result<Place> {
    let user = match User::for_postgres()? {
        // Created earlier by an unprivileged user, who stays the owner.
        Some(user) => Some(match User::owner_of(path)? {
            Some(owner) => owner,
            // A new directory, or one that root copied.
            None => {
                give(path, &user).with_context(|| format!("cannot give {} to user {}", path.display(), user.name))?;
                user
            }
        }),
        None => {
            let owner = path.metadata().with_context(|| format!("cannot read the owner of {}", path.display()))?.uid();
            if owner != sys::user_id() {
                bail!(
                    "{} belongs to user number {owner}, and Postgres runs on its own user's data alone: run this as \
                     that user, or change the owner with `sudo chown -R $(id -u) {}`",
                    path.display(),
                    path.display()
                );
            }
            None
        }
    };
    let barred = user.as_ref().and_then(|user| user.barred_from(path));
    let directory = match (barred, &user) {
        (Some(_), Some(_)) if cfg!(target_os = "linux") => Some(Arc::new(File::open(path)?)),
        (Some(barred), Some(user)) => bail!(
            "Postgres runs as user {} here, who may not enter {}: choose a data directory elsewhere, or allow it with \
             `chmod o+x {}`",
            user.name,
            barred.display(),
            barred.display()
        ),
        _ => None,
    };
    Ok(Place { path: path.to_owned(), user, directory })
}

fn give(path: &Path, user: &User) -> std::io::Result<()> {
    lchown(path, Some(user.uid), Some(user.gid))?;
    if path.symlink_metadata()?.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), user)?;
        }
    }
    Ok(())
}

/// Creates the cluster and its database if there is none, and returns the password. If interrupted, it leaves
/// either a complete cluster or none.
pub(crate) async fn make(programs: &Programs, directory: &Path, options: &PostgresOptions) -> Result<String> {
    let lock = lock_server(directory, "postgres").await?;
    let (cluster, password_file) = (directory.join("cluster"), directory.join("password"));
    if cluster.exists() {
        let password = fs::read_to_string(&password_file).with_context(|| {
            format!(
                "cannot read the password of {} from {}; restore the file, or remove {} to start over",
                cluster.display(),
                password_file.display(),
                directory.display()
            )
        })?;
        return Ok(password.trim().to_owned());
    }
    let password = secret::generate()?;
    write_private(&password_file, &password).with_context(|| format!("cannot write {}", password_file.display()))?;

    let new = directory.join("cluster.new");
    if new.exists() {
        fs::remove_dir_all(&new).with_context(|| format!("cannot remove the unfinished {}", new.display()))?;
    }
    fs::create_dir(&new).with_context(|| format!("cannot create {}", new.display()))?;
    fs::set_permissions(&new, Permissions::from_mode(0o700))?;
    let maker = Maker { programs, directory, place: place(&new)?, lock };
    maker.run_initdb(&password, options.durable).await?;
    maker.create_database(&options.database, options.durable).await?;
    include_settings(&new)?;
    fs::rename(&new, &cluster).with_context(|| format!("cannot rename {}", new.display()))?;
    Ok(password)
}

struct Maker<'a> {
    programs: &'a Programs,
    directory: &'a Path,
    place: Place,
    lock: File,
}

impl Maker<'_> {
    async fn run_initdb(&self, password: &str, durable: bool) -> Result<()> {
        let mut arguments: Vec<OsString> = vec!["-D".into(), self.place.argument(), "-U".into(), ROLE.into()];
        let fixed = ["--no-instructions", "-A", "scram-sha-256", "--pwfile=/dev/stdin", "-E", "UTF8", "--locale=C"];
        arguments.extend(fixed.map(OsString::from));
        if !durable {
            arguments.push("--no-sync".into());
        }
        self.run("initdb", arguments, password).await.map(drop)
    }

    /// Runs Postgres in single-user mode with the statements on its input. This needs neither a network nor a
    /// client nor a password.
    async fn create_database(&self, database: &str, durable: bool) -> Result<()> {
        let mut arguments: Vec<OsString> = vec!["--single".into()];
        if !durable {
            arguments.push("-F".into());
        }
        arguments.extend(["-D".into(), self.place.argument(), "postgres".into()]);
        let said = self.run("postgres", arguments, &format!("CREATE DATABASE {database}\n")).await?;
        // Single-user mode exits with 0 even if a statement failed.
        if said.lines().any(|line| line.contains("ERROR:") || line.contains("FATAL:")) {
            bail!("cannot create the database {database}: {said}");
        }
        Ok(())
    }

    async fn run(&self, program: &str, arguments: Vec<OsString>, input: &str) -> Result<String> {
        let (log, output) = Log::open(&self.directory.join("initdb.log"))?;
        let child = Child::start(Launch {
            program: self.programs.postgres_bin.join(program),
            arguments,
            user: self.place.user.clone(),
            lock: self.lock.try_clone()?,
            directory: self.place.directory.clone(),
            input: Some(nameless_file(input, self.place.user.as_ref())?),
            log: output,
            on_parent_death: Signal::Kill,
            on_drop: Signal::Kill,
        })
        .await?;
        let status = tokio::time::timeout(MAKE_BOUND, child.exited())
            .await
            .map_err(|_| anyhow!("{program} took longer than {MAKE_BOUND:?}; {}", log.last_lines()))?;
        if !status.success() {
            bail!("{program} failed ({status}); {}", log.last_lines());
        }
        Ok(log.since_start())
    }
}

/// Creates an unlinked temporary file for input, readable by the child's user only. The text appears in no
/// directory and on no command line.
fn nameless_file(text: &str, user: Option<&User>) -> Result<File> {
    let mut file = tempfile::tempfile().context("cannot make a temporary file")?;
    writeln!(file, "{}", text.trim_end())?;
    file.rewind()?;
    if let Some(user) = user {
        fchown(&file, Some(user.uid), Some(user.gid))?;
    }
    Ok(file)
}

fn include_settings(cluster: &Path) -> Result<()> {
    let path = cluster.join("postgresql.conf");
    let mut file = File::options().append(true).open(&path)?;
    writeln!(file, "\ninclude_if_exists '{SETTINGS_FILE}'").with_context(|| format!("cannot write {}", path.display()))
}

/// Writes the file that `postgresql.conf` includes, readable by the owner of the cluster.
pub(crate) fn write_settings(cluster: &Path, text: &str) -> Result<()> {
    let path = cluster.join(SETTINGS_FILE);
    let owner = cluster.metadata()?;
    write_private(&path, text)
        .and_then(|()| if sys::is_root() { chown(&path, Some(owner.uid()), Some(owner.gid())) } else { Ok(()) })
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Removes the PID file of a killed Postgres if another program now has its process id, as often happens in a
/// restarted container. Postgres would mistake that program for itself and refuse to start.
///
/// A Postgres of ours cannot be running, because the lock is held. A Postgres that a user started here by hand is
/// left alone.
pub(crate) fn forget_dead_postmaster(cluster: &Path) -> Result<()> {
    let path = cluster.join("postmaster.pid");
    let Ok(state) = fs::read_to_string(&path) else { return Ok(()) };
    let Some(pid) = state.lines().next().and_then(|line| line.trim().parse::<u32>().ok()) else { return Ok(()) };
    // Without /proc, or if no process has this id, Postgres decides by itself.
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return Ok(()) };
    if is_living_postgres(&status) {
        return Ok(());
    }
    fs::remove_file(&path).with_context(|| format!("cannot remove the stale {}", path.display()))
}

/// Parses `12 (name) S …`. A zombie that its parent has not reaped (`Z`) still counts as running for Postgres.
fn is_living_postgres(status: &str) -> bool {
    let Some((name, rest)) = status.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')) else { return true };
    name.starts_with("postgres") && !rest.trim_start().starts_with(['Z', 'X'])
}

/// Checks that the cluster belongs to the major version of the program. No other version can read it.
pub(crate) async fn check_version(programs: &Programs, cluster: &Path) -> Result<()> {
    let made_by = fs::read_to_string(cluster.join("PG_VERSION")).context("the cluster has no PG_VERSION")?;
    let program = programs.postgres_bin.join("postgres");
    let version = version_of(&program, None).await?;
    if made_by.trim() != version.0.to_string() {
        bail!(
            "{} was made by Postgres {}, and {} is {version}: set WATCHBOOK_POSTGRES_BIN to the bin directory of a \
             Postgres {}, or start over in another directory",
            cluster.display(),
            made_by.trim(),
            program.display(),
            made_by.trim()
        );
    }
    Ok(())
}
