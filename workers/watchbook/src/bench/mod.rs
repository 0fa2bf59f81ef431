//! Benchmarks: the figures of the README, on your machine.
//!
//! Each run measures the limit in the same breath as the product, on a stack of its own, so that a
//! slow machine makes both slow and the ratio holds.

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

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

pub(crate) use alerts::Alerts;
pub(crate) use gateway::Gateway;
pub(crate) use pipeline::Pipeline;
pub(crate) use retention::Retention;

use crate::output;

/// What a bench is at, on a terminal.
pub(crate) fn progress() -> ProgressBar {
    if !output::is_watched() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
    let bar = ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
