//! The rules, receivers and routes of this process: loaded at start, and again when the configuration file changes.
//!
//! An invalid file is rejected: the old rules stay in force, and `watchbook alerts rules` shows the problem.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use alerting::Alerting;
use alerts::Rules;
use chrono::Utc;
use runtime::Config;
use runtime::config::{ConfigError, Sources};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often the file is read. Reading it whole is cheap and notices every way of replacing it. A changed file is used
/// once it is the same twice in a row.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// Returns all problems of the rules, receivers and routes, each with its key.
pub(crate) fn problems(config: &Config) -> Vec<(String, String)> {
    match compile(config) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.into_iter().map(|problem| (problem.key, problem.message)).collect(),
    }
}

/// Returns the rules, receivers and routes of the settings.
///
/// # Errors
/// All problems, one per line with its key.
pub(crate) fn of(config: &Config) -> anyhow::Result<Alerting> {
    compile(config).map_err(|problems| {
        let lines: Vec<_> =
            problems.into_iter().map(|problem| format!("{}: {}", problem.key, problem.message)).collect();
        anyhow::anyhow!(lines.join("\n"))
    })
}

fn compile(config: &Config) -> Result<Alerting, Vec<alerting::Problem>> {
    Alerting::of(config, &|name| std::env::var(name).ok())
}

/// Loads the settings and checks all of them, including rules, receivers and routes.
pub(crate) fn load(sources: &Sources) -> Result<Config, ConfigError> {
    sources.load_checked(problems)
}

/// Reloads the file at `path` when it changes, until `stop`. The receiver starts with `first`.
pub(crate) fn follow(path: Option<PathBuf>, first: Alerting, stop: CancellationToken) -> watch::Receiver<Arc<Rules>> {
    let first = Rules { alerting: Arc::new(first), loaded_at: Utc::now(), problem: None };
    let (sender, receiver) = watch::channel(Arc::new(first));
    tokio::spawn(async move {
        let mut seen = Sources::of_process(path.as_deref()).ok().and_then(|sources| sources.file);
        let mut before = seen.clone();
        // Whether a file ever existed. If not, the built-in rules are intended.
        let mut was_there = seen.is_some();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(POLL_EVERY) => {}
            }
            // A file that cannot be read is treated as missing, wherever its path came from.
            let now = Sources::of_process(path.as_deref()).unwrap_or_default();
            // The file may be in the middle of a write: use it only when it is the same as at the last read.
            let is_settled = now.file == before;
            before.clone_from(&now.file);
            if !is_settled || now.file == seen {
                continue;
            }
            seen.clone_from(&now.file);
            let is_gone = now.file.as_ref().is_none_or(|(_, text)| text.trim().is_empty());
            was_there |= !is_gone;
            if was_there && is_gone {
                let problem = "the file is missing or empty: its rules stay in force until there is a new file";
                tracing::error!(problem, "the old rules stay in force");
                sender.send_modify(|rules| {
                    let problem = Some((problem.to_owned(), Utc::now()));
                    *rules = Arc::new(Rules { problem, ..Rules::clone(rules) });
                });
                continue;
            }
            let loaded = load(&now).map_err(anyhow::Error::from).and_then(|config| of(&config));
            sender.send_modify(|rules| {
                *rules = Arc::new(match loaded {
                    Ok(alerting) => {
                        tracing::info!(rules = alerting.rules.len(), "rules reloaded");
                        Rules { alerting: Arc::new(alerting), loaded_at: Utc::now(), problem: None }
                    }
                    Err(error) => {
                        tracing::error!(%error, "the changed file is invalid; the old rules stay in force");
                        Rules { problem: Some((error.to_string(), Utc::now())), ..Rules::clone(rules) }
                    }
                });
            });
        }
    });
    receiver
}
