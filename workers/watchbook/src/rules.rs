//! The rules, receivers and routes of this process: read at start, and again whenever the file changes.
//!
//! A file that is wrong changes nothing: the old rules stay, and the problem is told to whoever asks.

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

/// How often the file is looked at: reading some kilobytes, so that no way of replacing it goes unnoticed. Twice the
/// same, and it is used.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Everything that is wrong with the rules, receivers and routes of these settings, by key.
pub(crate) fn problems(config: &Config) -> Vec<(String, String)> {
    match compile(config) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.into_iter().map(|problem| (problem.key, problem.message)).collect(),
    }
}

/// The rules, receivers and routes of checked settings.
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

/// The settings of this process, with everything checked.
pub(crate) fn load(sources: &Sources) -> Result<Config, ConfigError> {
    sources.load_checked(problems)
}

/// Follows the file at `path` until `stop`, beginning with what is in force.
pub(crate) fn follow(path: Option<PathBuf>, first: Alerting, stop: CancellationToken) -> watch::Receiver<Arc<Rules>> {
    let first = Rules { alerting: Arc::new(first), loaded_at: Utc::now(), problem: None };
    let (sender, receiver) = watch::channel(Arc::new(first));
    tokio::spawn(async move {
        let mut seen = Sources::of_process(path.as_deref()).ok().and_then(|sources| sources.file);
        let mut before = seen.clone();
        // Whether there ever was one: where there never was, the built-in rules are meant.
        let mut was_there = seen.is_some();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            // One that cannot be read is as good as gone, whoever named it.
            let now = Sources::of_process(path.as_deref()).unwrap_or_default();
            // One that is just being written is only believed when it has stayed the same for a while.
            let is_settled = now.file == before;
            before.clone_from(&now.file);
            if !is_settled || now.file == seen {
                continue;
            }
            seen.clone_from(&now.file);
            let is_gone = now.file.as_ref().is_none_or(|(_, text)| text.trim().is_empty());
            was_there |= !is_gone;
            if was_there && is_gone {
                let problem = "the file is gone, or empty: its rules stay until there is another one";
                tracing::error!(problem, "the rules stay as they are");
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
                        tracing::info!(rules = alerting.rules.len(), "the rules were loaded anew");
                        Rules { alerting: Arc::new(alerting), loaded_at: Utc::now(), problem: None }
                    }
                    Err(error) => {
                        tracing::error!(%error, "the changed file is not used, the rules stay as they are");
                        Rules { problem: Some((error.to_string(), Utc::now())), ..Rules::clone(rules) }
                    }
                });
            });
        }
    });
    receiver
}
