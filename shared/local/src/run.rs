//! Runs a command to its end.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::process::Command;

/// Maximum number of output lines in the error of a failed command.
const SHOWN_LINES: usize = 6;

/// Runs a command and returns its output. The error of a failed command contains its last lines.
pub(crate) async fn run(mut command: Command, bound: Duration) -> Result<String> {
    let name = command.as_std().get_program().to_owned();
    let name = Path::new(&name).display();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = tokio::time::timeout(bound, command.output())
        .await
        .map_err(|_| anyhow!("{name} took longer than {bound:?}"))?
        .with_context(|| format!("cannot run {name}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        let complaint = if complaint.trim().is_empty() { &printed } else { &complaint };
        let lines: Vec<&str> = complaint.lines().filter(|line| !line.trim().is_empty()).collect();
        bail!("{name} failed ({}): {}", output.status, lines[lines.len().saturating_sub(SHOWN_LINES)..].join(" / "));
    }
    Ok(printed)
}
