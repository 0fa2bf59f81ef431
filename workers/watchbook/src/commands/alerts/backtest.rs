//! `watchbook alerts backtest`

use std::path::PathBuf;
use std::process::ExitCode;

use alerting::rule::Source;
use anyhow::Context;
use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;
use runtime::config::Sources;
use runtime::{Config, When};

use super::words;
use crate::{output, process, rules};

/// Show when rules would have fired, by evaluating them over stored roll-ups.
///
/// Uses the same evaluation as the alert worker. Roll-ups by label are kept for 35 days. The step is one minute, so a
/// transition that the worker would make within seconds is shown at the end of its minute.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  watchbook alerts backtest --rule new-rules.toml --from 2026-11-01T00:00:00Z")]
pub(crate) struct Backtest {
    /// File with [[rules]], as in watchbook.toml.
    #[arg(long = "rule", value_name = "FILE")]
    file: PathBuf,
    /// Start of the time range: RFC 3339, a date (midnight UTC), or relative to now such as -24h.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: When,
    /// End of the time range, in the same formats. Default: now.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<When>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Backtest {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let now = Utc::now();
        let (from, to) = (self.from.at(now), self.to.map_or(now, |to| to.at(now)));
        anyhow::ensure!(from < to, "--from {from} is not before --to {to}");
        let text =
            std::fs::read_to_string(&self.file).with_context(|| format!("{}: cannot be read", self.file.display()))?;
        let sources = Sources { file: Some((self.file, text)), environment: Vec::new() };
        let file = rules::load(&sources)?;
        anyhow::ensure!(!file.rules.is_empty(), "the file given by --rule has no [[rules]]");
        let alerting = rules::of(&file)?;
        let database = process::database(&config).await?;
        let mut connection = process::connect(&database).await?;
        let progress = crate::bench::progress();
        let mut all = Vec::new();
        for rule in &alerting.rules {
            anyhow::ensure!(
                rule.source != Source::Ingest,
                "`{}` has the source `ingest`, which has no stored roll-ups and cannot be backtested",
                rule.name
            );
            let tell = |until: DateTime<Utc>| progress.set_message(format!("{}: {until}", rule.name));
            let groups = config.alerts.max_groups;
            let found = alerts::backtest::backtest(&mut connection, rule, groups, from, to, tell).await?;
            all.push((rule.name.clone(), found));
        }
        progress.finish_and_clear();
        if self.json {
            let rules: serde_json::Map<_, _> =
                all.iter().map(|(rule, found)| (rule.clone(), serde_json::json!(found))).collect();
            output::json(&rules)?;
            return Ok(ExitCode::SUCCESS);
        }
        for (rule, found) in &all {
            let fired = found
                .iter()
                .filter(|change| {
                    change.to == alerting::evaluation::Condition::Firing
                        && change.from != alerting::evaluation::Condition::Recovering
                })
                .count();
            output::say(format_args!("{rule}: would have fired {fired} times"));
            for change in found {
                let at = change.at.to_rfc3339_opts(SecondsFormat::Secs, true);
                output::say(format_args!(
                    "  {at}  {}  {} -> {}: {}",
                    words(&change.labels),
                    change.from,
                    change.to,
                    change.reason
                ));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
