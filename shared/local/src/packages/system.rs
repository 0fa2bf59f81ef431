//! Postgres from the packages of the operating system, which only root can install.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::machine::Machine;
use crate::programs::ProgressCallback;
use crate::run::run;

/// Time limit of an installation: package lists and tens of megabytes over a slow line.
const INSTALL_BOUND: Duration = Duration::from_secs(900);

/// Returns the command that installs a program with the system's packages, for a user to run.
pub(crate) fn install_command(machine: &Machine, debian: &str, red_hat: &str, alpine: &str, brew: &str) -> String {
    let sudo = if machine.may_install { "" } else { "sudo " };
    if machine.has("apt-get") {
        format!("{sudo}apt-get install {debian}")
    } else if machine.has("dnf") {
        format!("{sudo}dnf install {red_hat}")
    } else if machine.has("apk") {
        format!("{sudo}apk add {alpine}")
    } else if machine.has("brew") || cfg!(target_os = "macos") {
        format!("brew install {brew}")
    } else {
        format!("your system's package of {debian}")
    }
}

/// Installs the distribution's Postgres, without a cluster or a service.
pub(crate) async fn install_postgres(machine: &Machine, on_progress: &ProgressCallback) -> Result<()> {
    if machine.has("apt-get") {
        install_by_apt(machine, on_progress).await
    } else if machine.has("dnf") {
        on_progress("Installing Postgres: dnf install postgresql-server");
        let mut dnf = machine.command("dnf");
        dnf.args(["install", "-y", "--setopt=install_weak_deps=False", "postgresql-server"]);
        run(dnf, INSTALL_BOUND).await.map(drop)
    } else if machine.has("apk") {
        on_progress("Installing Postgres: apk add postgresql");
        let mut apk = machine.command("apk");
        apk.args(["add", "--no-cache", "postgresql"]);
        run(apk, INSTALL_BOUND).await.map(drop)
    } else {
        bail!("apt-get, dnf and apk are missing")
    }
}

async fn install_by_apt(machine: &Machine, on_progress: &ProgressCallback) -> Result<()> {
    let package = match distribution_package(machine).await {
        Ok(package) => package,
        // A new container has no package lists yet.
        Err(_) => {
            on_progress("Reading the package lists: apt-get update");
            let mut update = machine.command("apt-get");
            update.arg("update").env("DEBIAN_FRONTEND", "noninteractive");
            run(update, INSTALL_BOUND).await?;
            distribution_package(machine).await?
        }
    };
    on_progress(&format!("Installing Postgres: apt-get install {package}"));
    let no_cluster = NoCluster::ask_for()?;
    let mut install = machine.command("apt-get");
    install.args(["install", "-y", "--no-install-recommends", &package]).env("DEBIAN_FRONTEND", "noninteractive");
    let result = run(install, INSTALL_BOUND).await.map(drop);
    drop(no_cluster);
    result
}

/// Returns the package of the distribution's major version. `postgresql` only depends on it; with the versioned
/// package the next release of the distribution does not replace it under a cluster that it cannot read.
async fn distribution_package(machine: &Machine) -> Result<String> {
    let mut ask: Command = machine.command("apt-cache");
    ask.args(["depends", "--important", "postgresql"]);
    let told = run(ask, INSTALL_BOUND).await?;
    pointed_to(&told).context("apt has no package postgresql")
}

fn pointed_to(depends: &str) -> Option<String> {
    depends.lines().find_map(|line| {
        let package = line.trim().strip_prefix("Depends:")?.trim();
        let major = package.strip_prefix("postgresql-")?;
        (!major.is_empty() && major.chars().all(|c| c.is_ascii_digit())).then(|| package.to_owned())
    })
}

/// Keeps Debian from creating and starting a cluster during this installation. Dropping it restores the default for
/// later installations.
struct NoCluster {
    path: PathBuf,
}

impl NoCluster {
    fn ask_for() -> Result<NoCluster> {
        // A directory that Debian's configuration includes. Changing the configuration file itself would cause
        // prompts on upgrades.
        let directory = Path::new("/etc/postgresql-common/createcluster.d");
        let path = directory.join("watchbook.conf");
        fs::create_dir_all(directory)
            .and_then(|()| {
                fs::write(&path, "# Exists only while Watchbook installs Postgres.\ncreate_main_cluster = false\n")
            })
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(NoCluster { path })
    }
}

impl Drop for NoCluster {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_of_the_distribution_is_read_from_its_pointer() {
        let told = "postgresql\n  Depends: postgresql-15\n  Suggests: postgresql-doc\n";
        assert_eq!(pointed_to(told).as_deref(), Some("postgresql-15"));
        assert_eq!(pointed_to("postgresql\n  Depends: postgresql-common\n"), None);
    }
}
