//! Benchmarks: the figures of the guide, on your machine.
//!
//! Each run measures the limit of the machine together with Watchbook, on a stack of its own, so that a slow machine
//! slows both and the ratio stays comparable.

mod alerts;
mod copy_limit;
mod gateway;
mod latency;
mod pipeline;
mod probe;
mod retention;
mod sample;
mod stack;
mod worker;

use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use runtime::Config;
use serde::Serialize;

pub(crate) use alerts::Alerts;
pub(crate) use gateway::Gateway;
pub(crate) use pipeline::Pipeline;
pub(crate) use retention::Retention;

use self::stack::BenchStack;
use crate::output;

/// Returns a spinner with a message; hidden if standard error is not a terminal.
pub(crate) fn progress() -> ProgressBar {
    if !output::is_watched() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
    let bar = ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Starts a stack, runs `measure` on it, removes the stack and prints the report.
async fn on_a_stack<R: Serialize>(
    config: Config,
    json: bool,
    measure: impl AsyncFnOnce(&BenchStack, &ProgressBar) -> anyhow::Result<R>,
    print: impl FnOnce(&R),
) -> anyhow::Result<ExitCode> {
    let progress = progress();
    progress.set_message("starting a stack");
    let stack = BenchStack::start(config).await?;
    let report = measure(&stack, &progress).await;
    progress.finish_and_clear();
    stack.stop().await?;
    let report = report?;
    if json {
        output::json(&report)?;
    } else {
        print(&report);
    }
    Ok(ExitCode::SUCCESS)
}
