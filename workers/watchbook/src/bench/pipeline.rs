//! `bench pipeline`: throughput from stream to table, compared with raw COPY into Postgres.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use indicatif::ProgressBar;
use records::Kind;
use runtime::Config;
use serde::Serialize;
use store::bench::Format;
use store::positions;
use tokio::time::sleep;

use super::copy_limit;
use super::latency::{self, Latency};
use super::sample::Series;
use super::stack::BenchStack;
use super::worker::Worker;
use crate::kind_argument::kind_parser;
use crate::{output, process};

/// How often the settled range is queried, by primary key.
const POLL_EVERY: Duration = Duration::from_millis(25);
/// A pipeline that settles nothing for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(60);
/// Messages published at once.
const PUBLISH_AT_ONCE: u64 = 50_000;
/// Maximum publishes that wait for their acknowledgement.
const PUBLISHES_IN_FLIGHT: usize = 2_000;
/// How long a started worker may settle before its idle memory is read.
const COME_TO_REST: Duration = Duration::from_secs(2);

/// Measure the throughput from stream to table, compared with two parallel raw COPYs of the same rows.
///
/// Runs on a stack of its own, which is removed afterwards. Each round empties the table, copies the rows raw (the
/// limit of this machine, in the text format of `psql \copy` and in the binary format), empties the table again, and
/// lets a worker process store the same rows from the stream. The figures are medians over the rounds. The clock of
/// the pipeline starts with its first settled batch, so process start is not measured.
#[derive(Debug, Args)]
pub(crate) struct Pipeline {
    /// Rows per round.
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(10_000..=5_000_000))]
    rows: u64,
    /// Rounds; the median is reported.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
    /// Kind to measure. Repeat it for several kinds.
    #[arg(long = "kind", value_parser = kind_parser(), default_value = "events", conflicts_with = "all_kinds")]
    kinds: Vec<Kind>,
    /// Measure every kind.
    #[arg(long)]
    all_kinds: bool,
    /// Measure again with this many existing rows in the table.
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    existing_rows: Option<u64>,
    /// Records to measure the latency with, at ten per second; 0 to skip it.
    #[arg(long, default_value_t = 200)]
    quiet_records: u32,
    /// Number of label groups in the roll-ups of the rows. Default: a realistic number.
    #[arg(long, value_name = "GROUPS", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    groups: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    rows: u64,
    rounds: u32,
    kinds: Vec<KindReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_memory_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_to_row_ms: Option<Latency>,
}

#[derive(Debug, Serialize)]
struct KindReport {
    kind: &'static str,
    existing_rows: u64,
    /// Two parallel raw COPYs in the text format, in rows per second: the limit.
    raw_copy_rows_per_second: f64,
    /// The same in the binary format, which the writers send.
    raw_binary_copy_rows_per_second: f64,
    pipeline_rows_per_second: f64,
    /// Ratio of the pipeline to the text COPY: the median over the rounds.
    ratio: f64,
    publish_rows_per_second: f64,
    worker_peak_memory_bytes: u64,
    /// CPU time of the worker per row.
    worker_cpu_us_per_row: f64,
}

impl Pipeline {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        super::on_a_stack(config, self.json, async |stack, progress| self.measure(stack, progress).await, print).await
    }

    async fn measure(&self, stack: &BenchStack, progress: &ProgressBar) -> anyhow::Result<Report> {
        let kinds = if self.all_kinds { Kind::ALL } else { &self.kinds };
        let mut report = Report {
            rows: self.rows,
            rounds: self.rounds,
            kinds: Vec::new(),
            idle_memory_bytes: None,
            record_to_row_ms: None,
        };
        for &kind in kinds {
            report.kinds.push(self.measure_kind(stack, kind, 0, progress).await?);
            if let Some(existing) = self.existing_rows {
                stack.empty(kind).await?;
                fill(stack, kind, existing, progress).await?;
                report.kinds.push(self.measure_kind(stack, kind, existing, progress).await?);
            }
            stack.empty(kind).await?;
        }
        if self.quiet_records > 0 {
            progress.set_message("latency at a low rate");
            let worker = Worker::start(stack, "all")?;
            sleep(COME_TO_REST).await;
            report.idle_memory_bytes = Some(worker.memory()?.now);
            report.record_to_row_ms = Some(Latency::of(&latency::measure(stack, self.quiet_records).await?));
            worker.stop().await?;
        }
        Ok(report)
    }

    async fn measure_kind(
        &self,
        stack: &BenchStack,
        kind: Kind,
        existing: u64,
        progress: &ProgressBar,
    ) -> anyhow::Result<KindReport> {
        let (mut texts, mut binaries, mut rates, mut ratios) = (vec![], vec![], vec![], vec![]);
        let (mut publishes, mut cpus, mut peak) = (vec![], vec![], 0);
        for round in 1..=self.rounds {
            let tell = |what: &str| progress.set_message(format!("{kind}, round {round} of {}: {what}", self.rounds));
            tell("raw COPY");
            let limit = copy_limit::measure(stack, kind, self.rows, || self.series(kind, stack), existing == 0).await?;
            if existing == 0 {
                stack.empty(kind).await?;
            } else {
                stack.remake_stream(kind).await?;
            }
            tell("publishing");
            publishes.push(self.publish(stack, kind).await?);
            stack.settle_down().await?;
            tell("the pipeline");
            let drained = self.drain(stack, kind).await?;
            texts.push(limit.text);
            binaries.push(limit.binary);
            ratios.push(drained.rows_per_second / limit.text);
            rates.push(drained.rows_per_second);
            cpus.push(drained.cpu_us_per_row);
            peak = peak.max(drained.peak_memory);
        }
        Ok(KindReport {
            kind: kind.name(),
            existing_rows: existing,
            raw_copy_rows_per_second: median(texts),
            raw_binary_copy_rows_per_second: median(binaries),
            pipeline_rows_per_second: median(rates),
            ratio: median(ratios),
            publish_rows_per_second: median(publishes),
            worker_peak_memory_bytes: peak,
            worker_cpu_us_per_row: median(cpus),
        })
    }

    /// Returns a series that ends about now.
    fn series(&self, kind: Kind, stack: &BenchStack) -> Series {
        Series::new(kind, stack.bus.prefix(), series_start(self.rows)).with_groups(self.groups)
    }

    async fn publish(&self, stack: &BenchStack, kind: Kind) -> anyhow::Result<f64> {
        // One by one, as most clients publish: the messages of an atomic batch carry headers.
        let publisher = process::publisher_builder(&stack.config)
            .batch_records(1)
            .acks_in_flight(PUBLISHES_IN_FLIGHT)
            .from_client(stack.bus.client())?;
        let series = self.series(kind, stack);
        let mut took = Duration::ZERO;
        let mut from = 0;
        while from < self.rows {
            let to = (from + PUBLISH_AT_ONCE).min(self.rows);
            let messages: Vec<_> = (from..to).map(|n| series.message(n)).collect();
            let started = Instant::now();
            publisher
                .publish_encoded(kind, messages)
                .await
                .map_err(|error| anyhow::anyhow!("publish: {}", error.error()))?;
            took += started.elapsed();
            from = to;
        }
        Ok(self.rows as f64 / took.as_secs_f64())
    }

    /// Starts a worker and waits until it has settled the whole stream.
    async fn drain(&self, stack: &BenchStack, kind: Kind) -> anyhow::Result<Drained> {
        let mut connection = process::connect(&stack.database).await?;
        let stream = stack.bus.stream_name(kind);
        let last = stack.bus.stream_state(kind).await?.last_sequence;
        let mut worker = Worker::start(stack, kind.name())?;
        let (mut first, mut newest) = (None, (Instant::now(), 0));
        loop {
            let account = positions::find(&mut connection, &stream).await?;
            let settled = account.map_or(0, |account| account.position.settled_count());
            let now = Instant::now();
            if settled > newest.1 {
                first.get_or_insert((now, settled));
                newest = (now, settled);
            }
            if settled == last {
                break;
            }
            anyhow::ensure!(
                now - newest.0 < STUCK_AFTER,
                "the pipeline is stuck: {settled} of {last} messages settled"
            );
            worker.check()?;
            sleep(POLL_EVERY).await;
        }
        let (memory, cpu) = (worker.memory()?, worker.cpu_seconds()?);
        worker.stop().await?;
        let (started, before) = first.context("the worker settled nothing")?;
        Ok(Drained {
            rows_per_second: (last - before) as f64 / (newest.0 - started).as_secs_f64(),
            peak_memory: memory.peak,
            cpu_us_per_row: cpu * 1e6 / last as f64,
        })
    }
}

/// Figures of a worker that settled a whole stream.
struct Drained {
    rows_per_second: f64,
    peak_memory: u64,
    cpu_us_per_row: f64,
}

/// Fills a table with rows that are older than the measured ones.
async fn fill(stack: &BenchStack, kind: Kind, count: u64, progress: &ProgressBar) -> anyhow::Result<()> {
    const AT_ONCE: u64 = 500_000;
    let mut filled = 0;
    while filled < count {
        progress.set_message(format!(
            "{kind}: {} of {} existing rows",
            output::grouped(filled),
            output::grouped(count)
        ));
        let piece = AT_ONCE.min(count - filled);
        let rows = copy_limit::encode(&Series::new(kind, stack.bus.prefix(), series_start(piece)), 0..piece)?;
        copy_limit::copy(stack, kind, Format::Binary, &rows).await?;
        filled += piece;
    }
    Ok(())
}

/// Returns the start of a series of `rows` records that ends about now. Never before today, so that all rows of a
/// round are in one partition, as usual in production.
fn series_start(rows: u64) -> DateTime<Utc> {
    let now = Utc::now();
    let today = now - TimeDelta::microseconds(now.timestamp_micros().rem_euclid(24 * 60 * 60 * 1_000_000));
    (now - TimeDelta::microseconds(rows as i64 * 100)).max(today)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => f64::NAN,
        even if even % 2 == 0 => (figures[middle - 1] + figures[middle]) / 2.0,
        _ => figures[middle],
    }
}

fn print(report: &Report) {
    let mib = |bytes: u64| format!("{:.0} MiB", bytes as f64 / (1 << 20) as f64);
    let header = [
        "KIND",
        "EXISTING ROWS",
        "RAW COPY ×2, ROWS/S",
        "BINARY",
        "PIPELINE, ROWS/S",
        "RATIO",
        "WORKER PEAK",
        "CPU/ROW",
        "PUBLISH, ROWS/S",
    ];
    let mut table = output::table(header, &[1, 2, 3, 4, 5, 6, 7, 8]);
    for kind in &report.kinds {
        table.add_row([
            kind.kind.to_owned(),
            output::grouped(kind.existing_rows),
            output::grouped(kind.raw_copy_rows_per_second as u64),
            output::grouped(kind.raw_binary_copy_rows_per_second as u64),
            output::grouped(kind.pipeline_rows_per_second as u64),
            format!("{:.2}", kind.ratio),
            mib(kind.worker_peak_memory_bytes),
            format!("{:.1} µs", kind.worker_cpu_us_per_row),
            output::grouped(kind.publish_rows_per_second as u64),
        ]);
    }
    output::say(format_args!("{} rows per round, median of {}:\n{table}", output::grouped(report.rows), report.rounds));
    if let Some(idle) = report.idle_memory_bytes {
        output::say(format_args!("idle process with all workers: {}", mib(idle)));
    }
    if let Some(latency) = &report.record_to_row_ms {
        output::say(format_args!(
            "record to row, {} records at 10/s: median {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            latency.records, latency.median, latency.p99, latency.max
        ));
    }
}
