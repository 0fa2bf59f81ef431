//! Versions of programs, as printed by `--version`.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::run::run;
use crate::user::User;

/// Time limit for `--version`. It takes milliseconds, and seconds for a first start from a slow network disk.
const VERSION_BOUND: Duration = Duration::from_secs(20);

/// The first three numbers of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32, pub(crate) u32);

impl Version {
    /// Finds the version in a line such as `nats-server: v2.15.1` or `postgres (PostgreSQL) 15.18 (Debian …)`.
    pub(crate) fn parse(text: &str) -> Option<Version> {
        text.split_whitespace().find_map(|word| {
            let word = word.strip_prefix('v').unwrap_or(word);
            let mut numbers = word.split('.').map(|part| {
                let digits = part.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
                digits.parse::<u32>().ok()
            });
            let first = numbers.next().flatten()?;
            let mut next = || numbers.next().flatten().unwrap_or(0);
            Some(Version(first, next(), next()))
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)?;
        if self.2 > 0 { write!(f, ".{}", self.2) } else { Ok(()) }
    }
}

/// Runs `--version` as the user that will run the program, because the program may be inaccessible to that user.
pub(crate) async fn version_of(program: &Path, user: Option<&User>) -> Result<Version> {
    let mut command = Command::new(program);
    command.arg("--version").current_dir("/");
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    let told = run(command, VERSION_BOUND).await.map_err(|error| match user {
        Some(user) => error.context(format!("as user {}", user.name)),
        None => error,
    })?;
    Version::parse(&told).with_context(|| format!("{} --version printed {:?}", program.display(), told.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_what_the_programs_print() {
        for (text, version) in [
            ("nats-server: v2.15.1", Some(Version(2, 15, 1))),
            ("nats-server: v2.12.0-RC.3", Some(Version(2, 12, 0))),
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some(Version(15, 18, 0))),
            ("postgres (PostgreSQL) 19beta1", Some(Version(19, 0, 0))),
            ("command not found", None),
        ] {
            assert_eq!(Version::parse(text), version, "{text}");
        }
    }
}
