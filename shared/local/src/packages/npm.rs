//! Postgres from npm.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::pins::{POSTGRES_NPM_PACKAGES, POSTGRES_NPM_VERSION, platform};
use crate::machine::Machine;
use crate::run::run;

/// Time limit of npm, for tens of megabytes over a slow line.
const NPM_BOUND: Duration = Duration::from_secs(600);

pub(super) async fn fetch(machine: &Machine, directory: &Path) -> Result<()> {
    let Some((_, package, integrity)) = POSTGRES_NPM_PACKAGES.iter().find(|(name, ..)| *name == platform()) else {
        bail!("there is no package for {}", platform());
    };
    let mut command = machine.command("npm");
    // Install scripts are not run, because they are foreign code. What the package's own script does follows below.
    command.args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--prefix"]).arg(directory);
    command.arg(format!("{package}@{POSTGRES_NPM_VERSION}"));
    run(command, NPM_BOUND).await?;

    // npm has verified the package against the registry. This verifies it against the known hash.
    let lock = read_json(&directory.join("node_modules/.package-lock.json"))?;
    let found = &lock["packages"][format!("node_modules/{package}")]["integrity"];
    if found != *integrity {
        bail!("{package}@{POSTGRES_NPM_VERSION} has an unknown hash: {found} instead of {integrity}");
    }
    fs::rename(directory.join("node_modules").join(package).join("native"), directory.join("native"))?;
    let _ = fs::remove_dir_all(directory.join("node_modules"));
    make_links(directory)
}

/// Creates the symbolic links that the libraries need. An npm package cannot contain links, so it contains a list
/// of them.
fn make_links(directory: &Path) -> Result<()> {
    let list = read_json(&directory.join("native/pg-symlinks.json"))?;
    for link in list.as_array().into_iter().flatten() {
        let (Some(source), Some(target)) = (link["source"].as_str(), link["target"].as_str()) else { continue };
        // All links stay within their directory: only the file name is used, so none can lead out of it.
        let Some(source) = Path::new(source).file_name() else { continue };
        if target.split('/').any(|part| part == "..") {
            bail!("pg-symlinks.json contains a path outside of the package: {target}");
        }
        let target = directory.join(target.trim_start_matches('/'));
        if target.symlink_metadata().is_err() {
            symlink(source, &target).with_context(|| format!("cannot create the link {}", target.display()))?;
        }
    }
    Ok(())
}

fn read_json(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("cannot parse {}", path.display()))
}
