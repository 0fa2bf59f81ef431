//! `bench gateway`: pages, exports, posts and live streams, compared with Postgres and NATS without a gateway.

mod client;
mod exporting;
mod publishing;
mod reading;
mod serving;
mod watching;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use runtime::Config;
use serde::Serialize;

use self::exporting::Export;
use self::publishing::Publishing;
use self::reading::{Filled, Reading};
use self::serving::Serving;
use self::watching::Watching;
use super::latency::Latency;
use super::stack::BenchStack;
use crate::output;

/// Measure the gateway: pages of the audit log, exports, posts and live streams.
///
/// Runs all workers in one process on a stack of its own and measures that process:
///
/// * the first and the thousandth page of an organization's audit log, among --rows records over 60 days, compared with
///   the statement alone; the self-audit of each read is included
///
/// * an export in both formats and one of a tenth of the records, compared with COPY … TO STDOUT
///
/// * errors posted one by one at a rate and then as fast as possible, compared with the same records published directly
///   to JetStream; all must be stored
///
/// * live streams, each of one of fifty organizations, at 1,000 records per second; no stream may miss a record
///
/// Filling the audit log takes a minute per 5 million records and a gibibyte of disk per million.
#[derive(Debug, Args)]
pub(crate) struct Gateway {
    /// Audit records to fill in, over 60 days.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(10_000..=50_000_000))]
    rows: u64,
    /// Audit records to export.
    #[arg(long, value_name = "ROWS", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=50_000_000))]
    export: u64,
    /// Posts per second.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(100..=20_000))]
    rate: u32,
    /// Number of live streams.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(50..=3_000))]
    streams: u32,
    /// Duration of the posting phase and of the streaming phase.
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    reading: Reading,
    exports: Vec<Export>,
    publishing: Publishing,
    watching: Watching,
}

impl Gateway {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        super::on_a_stack(config, self.json, async |stack, progress| self.measure(stack, progress).await, print).await
    }

    async fn measure(&self, stack: &BenchStack, progress: &ProgressBar) -> anyhow::Result<Report> {
        let length = Duration::from_secs(self.seconds);
        let filled = Filled::ending_now(self.rows)?;
        filled.fill(stack, progress).await?;
        progress.set_message("starting all workers");
        let serving = Serving::start(stack, self.streams).await?;
        let report = Report {
            reading: reading::measure(stack, &serving, &filled, progress).await?,
            exports: exporting::measure(stack, &serving, &filled, self.export, progress).await?,
            publishing: publishing::measure(stack, &serving, self.rate, length, progress).await?,
            watching: watching::measure(stack, &serving, self.streams, length, progress).await?,
        };
        serving.worker.stop().await?;
        Ok(report)
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20))
}

fn print(report: &Report) {
    let Report { reading, exports, publishing, watching } = report;
    output::say(format_args!(
        "the audit log of one of {} organizations, {} records over {} days:",
        reading.organizations,
        output::grouped(reading.rows),
        reading.days
    ));
    let mut table = output::table(["WHAT", "TIMES", "MEDIAN", "P99", "MAX"], &[1, 2, 3, 4]);
    let deep = format!("page {}", output::grouped(reading.deep_page));
    let rows = [
        ("first page", &reading.first_page_ms),
        ("the statement alone", &reading.first_page_statement_ms),
        (&deep, &reading.deep_page_ms),
        ("the statement alone", &reading.deep_page_statement_ms),
    ];
    for (what, latency) in rows {
        let Latency { records, median, p99, max } = latency;
        let ms = |figure: &f64| format!("{figure:.1} ms");
        table.add_row([what.to_owned(), output::grouped(*records), ms(median), ms(p99), ms(max)]);
    }
    output::say(table);
    output::say("\nexport:");
    let mut table = output::table(["HOW", "ROWS", "TOOK", "ROWS/S", "SIZE", "MEMORY GREW BY"], &[1, 2, 3, 4, 5]);
    for export in exports {
        table.add_row([
            export.how.to_owned(),
            output::grouped(export.rows),
            format!("{:.1} s", export.seconds),
            output::grouped((export.rows as f64 / export.seconds) as u64),
            mib(export.bytes),
            export
                .grown_by_bytes
                .map_or_else(|| "-".to_owned(), |bytes| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))),
        ]);
    }
    output::say(table);
    let Latency { median, p99, max, .. } = publishing.post_ms;
    output::say(format_args!(
        "\nPOST /api/errors at {}/s: {:.0}/s with status 202, median {median:.1} ms, p99 {p99:.1} ms, max {max:.1} ms; \
         {:.2} cores for all workers; all stored",
        output::grouped(publishing.rate.into()),
        publishing.posts_per_second,
        publishing.cpu_share,
    ));
    output::say(format_args!(
        "as fast as possible: {}/s; directly to JetStream: {}/s",
        output::grouped(publishing.flat_out_per_second as u64),
        output::grouped(publishing.jetstream_per_second as u64),
    ));
    let Latency { median, p99, max, .. } = watching.publish_to_event_ms;
    output::say(format_args!(
        "\n{} live streams, {:.0} records/s, {} events/s, none missed: publish to event median {median:.1} ms, \
         p99 {p99:.1} ms, max {max:.1} ms; {:.2} cores for all workers; {} KiB per stream",
        output::grouped(watching.streams.into()),
        watching.records_per_second,
        output::grouped(watching.events_per_second as u64),
        watching.cpu_share,
        watching.memory_per_stream_bytes / 1024,
    ));
    output::say(format_args!(
        "\npeak memory of the process with all workers: {} reading, {} posting, {} streaming",
        mib(reading.peak_memory_bytes),
        mib(publishing.peak_memory_bytes),
        mib(watching.peak_memory_bytes),
    ));
}
