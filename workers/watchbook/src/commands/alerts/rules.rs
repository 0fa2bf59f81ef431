//! `watchbook alerts rules`

use std::process::ExitCode;

use clap::Args;
use runtime::Config;
use serde_json::json;

use crate::{output, process, rules};

/// Show the configured rules and whether the alert worker uses the same ones.
///
/// Exits with 1 if the worker uses other rules or rejected a changed file.
#[derive(Debug, Args)]
pub(crate) struct Rules {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Rules {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let alerting = rules::of(&config)?;
        let database = process::database(&config).await?;
        let mut connection = process::connect(&database).await?;
        let in_force = store::alerts::settings(&mut connection).await?;
        let is_same = in_force.as_ref().is_none_or(|settings| settings.fingerprint == alerting.fingerprint());
        let problem = in_force.as_ref().and_then(|settings| settings.problem.clone());
        if self.json {
            let worker = in_force.as_ref().map(|settings| {
                json!({ "process": settings.loaded_by, "loaded_at": settings.loaded_at, "has_these_rules": is_same,
                        "problem": settings.problem, "problem_at": settings.problem_at })
            });
            output::json(&json!({ "rules": alerting.describe(), "worker": worker }))?;
        } else {
            let mut table = output::table(["RULE", "SEVERITY", "FIRES WHEN", "BY"], &[]);
            for rule in &alerting.rules {
                let by = if rule.group_by.is_empty() { "-".to_owned() } else { rule.group_by.join(", ") };
                table.add_row([rule.name.clone(), rule.severity.to_string(), rule.describe_condition(), by]);
            }
            output::say(table);
            match &in_force {
                None => output::say("No alert worker has run yet."),
                Some(settings) => {
                    let what = if is_same { "these rules" } else { "rules that DIFFER from these settings" };
                    output::say(format_args!(
                        "{} evaluates {what}, loaded at {}.",
                        settings.loaded_by, settings.loaded_at
                    ));
                }
            }
            if let (Some(problem), Some(at)) = (&problem, in_force.as_ref().and_then(|settings| settings.problem_at)) {
                output::say(format_args!("A changed file was rejected at {at}; the old rules stay:\n{problem}"));
            }
        }
        Ok(if is_same && problem.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
