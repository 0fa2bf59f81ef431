//! `watchbook retention run`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use retention::plan::{self, Item};
use retention::run::{Report, Request, Step};
use retention::{RunLease, Settings};
use runtime::Config;
use store::retention::Cause;
use store::{Lease, partition_removal};

use super::bytes;
use super::plan::day;
use crate::{bench, internal_records, output, process};

/// How long to wait for a run of another process. A run that finds nothing to remove takes less.
const ACT_WITHIN: Duration = Duration::from_secs(10);

/// Remove expired records now.
///
/// Makes the plan that `retention plan` shows and executes it, item by item. An item that changed since the plan was
/// made, or that cannot be archived, is left unchanged and reported; the exit code is then 1. An interrupted run is
/// resumed by the next one.
#[derive(Debug, Args)]
#[command(
    after_help = "Example, to review a plan before it is executed:\n  watchbook retention plan --json > plan.json\n  watchbook retention run --plan plan.json"
)]
pub(crate) struct Run {
    /// Execute only this plan, printed by `retention plan --json`; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Name recorded in the audit log as the actor.
    #[arg(long, value_name = "NAME", default_value_t = process::somebody(), value_parser = process::actor)]
    by: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Run {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let given = self.plan.as_ref().map(read).transpose()?;
        let database = process::database(&config).await?;
        process::check_migrations(&database).await?;
        let mut connection = partition_removal::session(&database).await?;
        let Some(run_lease) = RunLease::acquire(&database, ACT_WITHIN).await? else {
            let holder = Lease::holders(&mut connection, &[RunLease::LEASE.to_owned()]).await?;
            let holder = holder.into_iter().flatten().next().unwrap_or_else(|| "another process".to_owned());
            anyhow::bail!("{holder} is running retention; wait until it ends: see `watchbook retention history`");
        };
        let settings = Settings::of(&config);
        let now = plan::now(&mut connection).await?;
        let progress = bench::progress();
        let mut told = |what: &str| progress.set_message(format!("counting {what}"));
        let plan = match given {
            Some(plan) => plan,
            None => plan::make(&mut connection, &settings, now, &mut told).await?,
        };
        progress.finish_and_clear();
        let request =
            Request { cause: Cause::Command, scheduled_for: None, actor_id: self.by, process: process::name() };
        let bar = bar(plan.items.len());
        let observer = |step: Step, item: &Item| {
            match step {
                Step::Begun => bar.inc(1),
                Step::Batch { .. } | Step::Archived | Step::Copied | Step::Detached | Step::Counted | Step::Removed => {
                }
            }
            bar.set_message(format!("{} {} {}: {}", item.action.name(), item.kind, day(item), words(step)));
            retention::run::no_observer(step, item)
        };
        let work = retention::run::execute(&database, &settings, &plan, &request, now, &observer);
        let report = run_lease.run_while_held(work).await;
        bar.finish_and_clear();
        run_lease.release().await;
        let report = report
            .context("the retention lease was lost and the run was aborted: see `watchbook retention history`")?;
        let report = report?.context("another process executed the run")?;
        internal_records::publish(&config, &mut connection).await;
        if self.json {
            output::json(&report)?;
        } else {
            print(&report);
        }
        Ok(if report.done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn read(path: &PathBuf) -> anyhow::Result<plan::Plan> {
    let text = if path.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin()).context("read the plan from standard input")?
    } else {
        std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?
    };
    serde_json::from_str(&text).with_context(|| {
        format!("{} is not a plan: expected the output of `watchbook retention plan --json`", path.display())
    })
}

fn bar(items: usize) -> ProgressBar {
    if !output::is_watched() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {elapsed} {pos}/{len} {msg}");
    let bar = ProgressBar::new(items as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

const fn words(step: Step) -> &'static str {
    match step {
        Step::Begun => "begun",
        Step::Archived => "archived",
        Step::Copied => "held rows copied",
        Step::Detached => "detached",
        Step::Counted => "counted",
        Step::Batch { .. } => "deleting",
        Step::Removed => "dropped",
    }
}

fn print(report: &Report) {
    if report.items.is_empty() {
        output::say("No records have expired.");
        return;
    }
    let mut table = output::table(["KIND", "DAY", "ACTION", "ROWS", "BYTES", "KEPT", "ENDED"], &[3, 4, 5]);
    for one in &report.items {
        let item = &one.item;
        table.add_row([
            item.kind.clone(),
            day(item),
            item.action.name().to_owned(),
            output::grouped(item.rows),
            bytes(item.bytes),
            output::grouped(item.kept_rows),
            one.problem.as_ref().map_or_else(|| "done".to_owned(), |problem| format!("FAILED: {problem}")),
        ]);
    }
    output::say(table);
    output::say(format_args!("run {}", report.run));
}
