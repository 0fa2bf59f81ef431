//! The cluster's directory: who it belongs to, how it is made, and what an earlier server left in it.

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

/// How long making a cluster may take: one to two seconds, on a slow disk that syncs a minute.
const MAKE_BOUND: Duration = Duration::from_secs(180);
/// The file of ours that `postgresql.conf` includes last.
const SETTINGS_FILE: &str = "watchbook.conf";

/// Where a cluster is and who may touch it.
pub(crate) struct Place {
    path: PathBuf,
    /// Whom Postgres runs as; `None` is ourselves.
    pub(crate) user: Option<User>,
    /// Open for Postgres to inherit, where its user could not get there by path: as root in a home directory, say.
    pub(crate) directory: Option<Arc<File>>,
}

impl Place {
    /// What Postgres is told as its data directory. An inherited descriptor leads there whatever bars the way.
    pub(crate) fn argument(&self) -> OsString {
        match &self.directory {
            Some(directory) => format!("/proc/self/fd/{}", directory.as_raw_fd()).into(),
            None => self.path.clone().into(),
        }
    }
}

/// Looks at a cluster's directory and gives it to the user that Postgres runs as.
pub(crate) fn place(path: &Path) -> Result<Place> {
    let user = match User::for_postgres()? {
        // Made by a plain user earlier: stays theirs.
        Some(user) => Some(match User::owner_of(path)? {
            Some(owner) => owner,
            // New, or copied back by root from somewhere.
            None => {
                give(path, &user).with_context(|| format!("cannot give {} to user {}", path.display(), user.name))?;
                user
            }
        }),
        None => {
            let owner = path.metadata().with_context(|| format!("cannot look at {}", path.display()))?.uid();
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

/// Makes the cluster and its database where there is none yet, and returns the password. Whatever interrupts it, there
/// is a whole cluster afterwards or none.
pub(crate) async fn make(programs: &Programs, directory: &Path, options: &PostgresOptions) -> Result<String> {
    let lock = lock_server(directory, "postgres").await?;
    let (cluster, password_file) = (directory.join("cluster"), directory.join("password"));
    if cluster.exists() {
        let password = fs::read_to_string(&password_file).with_context(|| {
            format!(
                "the password of {} cannot be read from {}; put the file back, or remove the whole of {} to begin anew",
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
    fs::create_dir(&new).with_context(|| format!("cannot make {}", new.display()))?;
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

    /// Postgres without a network, its statements on its input: no client and no password needed.
    async fn create_database(&self, database: &str, durable: bool) -> Result<()> {
        let mut arguments: Vec<OsString> = vec!["--single".into()];
        if !durable {
            arguments.push("-F".into());
        }
        arguments.extend(["-D".into(), self.place.argument(), "postgres".into()]);
        let said = self.run("postgres", arguments, &format!("CREATE DATABASE {database}\n")).await?;
        // It ends well even when a statement has failed.
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

/// An input that no directory lists and no command line shows, readable by the child's user alone.
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

/// Writes the file that `postgresql.conf` includes, for the cluster's owner to read.
pub(crate) fn write_settings(cluster: &Path, text: &str) -> Result<()> {
    let path = cluster.join(SETTINGS_FILE);
    let owner = cluster.metadata()?;
    write_private(&path, text)
        .and_then(|()| if sys::is_root() { chown(&path, Some(owner.uid()), Some(owner.gid())) } else { Ok(()) })
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Removes what a killed Postgres left behind when its number now belongs to another program, as it often does in a
/// container that was started again: Postgres would take that one for itself and refuse to start.
///
/// Ours has gone, for the lock is held; a Postgres that somebody started here by hand is left alone.
pub(crate) fn forget_dead_postmaster(cluster: &Path) -> Result<()> {
    let path = cluster.join("postmaster.pid");
    let Ok(state) = fs::read_to_string(&path) else { return Ok(()) };
    let Some(pid) = state.lines().next().and_then(|line| line.trim().parse::<u32>().ok()) else { return Ok(()) };
    // A system without /proc leaves the question to Postgres, and so does a number that nobody has.
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return Ok(()) };
    if is_living_postgres(&status) {
        return Ok(());
    }
    fs::remove_file(&path).with_context(|| format!("cannot remove the stale {}", path.display()))
}

/// Reads `12 (name) S …`. A dead process that its parent has not looked after yet (`Z`) still counts for Postgres.
fn is_living_postgres(status: &str) -> bool {
    let Some((name, rest)) = status.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')) else { return true };
    name.starts_with("postgres") && !rest.trim_start().starts_with(['Z', 'X'])
}

/// A cluster can be used by the major version that made it alone.
pub(crate) async fn check_version(programs: &Programs, cluster: &Path) -> Result<()> {
    let made_by = fs::read_to_string(cluster.join("PG_VERSION")).context("the cluster has no PG_VERSION")?;
    let program = programs.postgres_bin.join("postgres");
    let version = version_of(&program, None).await?;
    if made_by.trim() != version.0.to_string() {
        bail!(
            "{} was made by Postgres {}, and {} is {version}: set WATCHBOOK_POSTGRES_BIN to the bin directory of a \
             Postgres {}, or begin anew in another directory",
            cluster.display(),
            made_by.trim(),
            program.display(),
            made_by.trim()
        );
    }
    Ok(())
}
