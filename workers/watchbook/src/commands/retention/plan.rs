//! `watchbook retention plan`

use std::process::ExitCode;

use clap::Args;
use retention::Settings;
use retention::plan::{self, Item};
use runtime::{Config, When};
use store::partition_removal;

use super::bytes;
use crate::{bench, output, process};

/// Show what a run would remove now and what holds keep. Changes nothing.
///
/// A run makes the same plan and executes exactly that.
#[derive(Debug, Args)]
#[command(
    after_help = "Example, to review a plan before it is executed:\n  watchbook retention plan --json > plan.json\n  watchbook retention run --plan plan.json"
)]
pub(crate) struct Plan {
    /// Time to plan for, to see what a run would remove then: RFC 3339, a date (midnight UTC), or relative to now such
    /// as -24h. Default: now.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    at: Option<When>,
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
}

impl Plan {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let database = process::database(&config).await?;
        process::check_migrations(&database).await?;
        let mut connection = partition_removal::session(&database).await?;
        let progress = bench::progress();
        let now = match self.at {
            Some(When::At(at)) => at,
            // The database's clock, by which what is too old is told.
            Some(ago) => ago.at(plan::now(&mut connection).await?),
            None => plan::now(&mut connection).await?,
        };
        let mut told = |what: &str| progress.set_message(format!("counting {what}"));
        let plan = plan::make(&mut connection, &Settings::of(&config), now, &mut told).await;
        progress.finish_and_clear();
        let plan = plan?;
        if self.json {
            output::json(&plan)?;
        } else {
            print(&plan);
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print(plan: &plan::Plan) {
    if plan.items.is_empty() {
        output::say("No records have expired.");
        return;
    }
    let mut table = output::table(["KIND", "DAY", "ACTION", "ROWS", "BYTES", "KEPT", "WHY"], &[3, 4, 5]);
    for item in &plan.items {
        table.add_row([
            item.kind.clone(),
            day(item),
            item.action.name().to_owned(),
            output::grouped(item.rows),
            bytes(item.bytes),
            output::grouped(item.kept_rows),
            why(item),
        ]);
    }
    output::say(table);
    let rows = plan.items.iter().map(|item| item.rows).sum();
    let size = plan.items.iter().map(|item| item.bytes).sum();
    output::say(format_args!(
        "{} rows ({}) would be removed. `watchbook retention run` removes them.",
        output::grouped(rows),
        bytes(size)
    ));
}

pub(super) fn day(item: &Item) -> String {
    item.day.map_or_else(|| "-".to_owned(), |day| day.to_string())
}

fn why(item: &Item) -> String {
    let holds: Vec<_> = item
        .held
        .iter()
        .map(|held| format!("hold {} keeps {}: {}", held.hold, output::grouped(held.rows), held.reason))
        .collect();
    if holds.is_empty() { item.why.clone() } else { format!("{}; {}", item.why, holds.join("; ")) }
}
