//! `watchbook retention history`

use std::process::ExitCode;

use anyhow::Context;
use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;
use runtime::Config;
use serde_json::json;
use store::retention::{self, Action, Run};
use uuid::Uuid;

use super::bytes;
use crate::{output, process};

/// List retention runs with their actor, time, duration, outcome and problem.
///
/// With the id of a run, list what it did item by item.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  watchbook retention history --limit 5")]
pub(crate) struct History {
    /// Id of a run to show in detail.
    id: Option<Uuid>,
    /// Maximum number of runs, newest first.
    #[arg(long, value_name = "RUNS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
    /// Include runs that only trimmed the logs of containers to their size limit.
    #[arg(long)]
    all: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl History {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let database = process::database(&config).await?;
        process::check_migrations(&database).await?;
        let mut connection = process::connect(&database).await?;
        let Some(id) = self.id else {
            let runs = retention::newest(&mut connection, self.all, self.limit).await?;
            if self.json {
                output::json(&runs)?;
            } else {
                print_runs(&runs);
            }
            return Ok(ExitCode::SUCCESS);
        };
        let run = retention::find(&mut connection, id).await?.with_context(|| format!("run {id} does not exist"))?;
        let actions = retention::actions(&mut connection, id).await?;
        if self.json {
            output::json(&json!({ "run": run, "actions": actions }))?;
        } else {
            print_runs(std::slice::from_ref(&run));
            print_actions(&actions);
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print_runs(runs: &[Run]) {
    let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
    let mut table = output::table(
        ["RUN", "CAUSE", "BY", "PROCESS", "STARTED", "TOOK", "OUTCOME", "ITEMS", "ROWS", "BYTES", "PROBLEM"],
        &[7, 8, 9],
    );
    for run in runs {
        let took = run.ended_at.map(|ended_at| ended_at - run.started_at);
        table.add_row([
            run.id.to_string(),
            run.cause.clone(),
            run.actor_id.clone(),
            run.process.clone(),
            time(run.started_at),
            took.map_or_else(|| "-".to_owned(), |took| format!("{:.1} s", took.as_seconds_f64())),
            run.outcome.clone(),
            run.items.to_string(),
            grouped(run.rows),
            size(run.bytes),
            run.problem.clone().unwrap_or_default(),
        ]);
    }
    output::say(table);
}

fn print_actions(actions: &[Action]) {
    let mut table =
        output::table(["KIND", "DAY", "ACTION", "ROWS", "BYTES", "KEPT", "TOOK", "ARCHIVED"], &[3, 4, 5, 6]);
    for action in actions {
        let object = action.archived.as_ref().and_then(|manifest| manifest.get("object")?.as_str());
        table.add_row([
            action.kind.clone(),
            action.day.map_or_else(|| "-".to_owned(), |day| day.to_string()),
            action.action.clone(),
            grouped(action.rows),
            size(action.bytes),
            grouped(action.kept_rows),
            format!("{} ms", action.took_ms),
            object.unwrap_or("-").to_owned(),
        ]);
    }
    output::say(table);
}

fn grouped(number: i64) -> String {
    output::grouped(u64::try_from(number).unwrap_or_default())
}

fn size(number: i64) -> String {
    bytes(u64::try_from(number).unwrap_or_default())
}
