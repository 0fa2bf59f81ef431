//! The user that Postgres runs as, because it refuses to run as root.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::sys;

/// A user to run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl User {
    /// Returns the user for Postgres. `None` is the current user; for root it is `postgres`, or else `nobody`.
    pub(crate) fn for_postgres() -> Result<Option<User>> {
        if !sys::is_root() {
            return Ok(None);
        }
        let accounts = std::fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
        match named(&accounts, "postgres").or_else(|| named(&accounts, "nobody")) {
            Some(user) => Ok(Some(user)),
            None => bail!(
                "Postgres refuses to run as root, and this system has neither a user `postgres` nor `nobody`: \
                 make one with `useradd --system postgres`, or run this as a plain user"
            ),
        }
    }

    /// Returns the owner of an existing directory, which no other user can use. `None` if it is root.
    pub(crate) fn owner_of(path: &Path) -> Result<Option<User>> {
        let metadata = path.metadata().with_context(|| format!("cannot read the owner of {}", path.display()))?;
        let (uid, gid) = (metadata.uid(), metadata.gid());
        Ok((uid != 0).then(|| User { name: format!("number {uid}"), uid, gid }))
    }

    /// Returns whether this user can enter a directory. Tests it with a process, because only the kernel evaluates
    /// access control lists.
    pub(crate) fn can_enter(&self, directory: &Path) -> bool {
        // The standard library changes the user before the directory, so a denied access fails the start.
        let mut look = Command::new("/bin/sh");
        look.args(["-c", ":"]).uid(self.uid).gid(self.gid).current_dir(directory);
        look.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        look.status().is_ok_and(|status| status.success())
    }

    /// Returns the outermost parent directory that this user cannot enter.
    pub(crate) fn barred_from(&self, directory: &Path) -> Option<PathBuf> {
        let mut way: Vec<&Path> = directory.ancestors().collect();
        way.reverse();
        way.into_iter().find(|step| !self.can_enter(step)).map(Path::to_path_buf)
    }
}

fn named(accounts: &str, name: &str) -> Option<User> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(User { name: name.to_owned(), uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_read_from_its_line() {
        let accounts = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65533:nobody:/:/bin/false\nbroken\n";
        assert_eq!(named(accounts, "nobody"), Some(User { name: "nobody".into(), uid: 65534, gid: 65533 }));
        assert_eq!(named(accounts, "postgres"), None);
    }
}
