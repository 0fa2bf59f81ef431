//! `bench retention`: dropping a partition, compared with a DELETE of the same rows.

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::{Days, NaiveDate, TimeDelta, Utc};
use clap::Args;
use indicatif::ProgressBar;
use records::Kind;
use retention::plan::{self, Action, Item, Plan};
use retention::run::{self, Request, Step};
use retention::{RunLease, Settings};
use runtime::Config;
use runtime::config::{Keep, Retention as Kept};
use serde::Serialize;
use store::bench::{self, Footprint, Format};
use store::partitions::{Partition, Partitions};
use store::retention::Cause;
use store::{Dataset, PgConnection, partition_removal};
use tokio::time::sleep;

use super::copy_limit;
use super::latency::Latency;
use super::probe::{self, Probe, Window};
use super::sample::Series;
use super::stack::BenchStack;
use super::worker::{Memory, Worker};
use crate::{output, process};

/// All writers, but no retention worker: the bench drops the partitions itself.
const WORKERS: &str = "events,errors,metrics,logs,audit,executions,directory";
/// Days for which events are kept here. The dropped days are older. The deleted day is younger, so no plan contains it.
const KEPT_DAYS: u64 = 40;
const DELETED_AGE: u64 = 35;
/// Divisor of the size of the further days.
const SMALLER: u64 = 5;
/// Rows encoded and copied at once.
const FILL_AT_ONCE: u64 = 250_000;
const DAY_MICROS: u64 = 24 * 60 * 60 * 1_000_000;
/// How long the servers may settle before a phase is measured.
const COME_TO_REST: Duration = Duration::from_secs(3);

/// Measure how writes are affected by dropping a day of events, compared with a DELETE of as many rows.
///
/// On a stack of its own, a worker stores events that arrive at a steady rate, and the latency from record to row is
/// measured: without other load, while an expired day is dropped as in a nightly run, and during `DELETE FROM
/// watchbook.event_logs WHERE created_at < …` of a day with as many rows and the VACUUM that has to follow. All days
/// are filled, vacuumed and checkpointed before.
///
/// Dropping one day is too short for a p99. So smaller days, with a fifth of the rows each, are dropped one by one
/// after it and shown together with it. A record counts for every phase in which it was in flight.
#[derive(Debug, Args)]
pub(crate) struct Retention {
    /// Events of the dropped day and of the deleted day.
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(10_000..=20_000_000))]
    rows: u64,
    /// Smaller days to drop after it.
    #[arg(long, value_name = "DAYS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=50))]
    more_days: u32,
    /// Records per second during all phases.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..=2_000))]
    rate: u32,
    /// Seconds without other load, before the drops and again after them.
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    quiet: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    rows: u64,
    more_days: u32,
    records_per_second: u32,
    dropped_ms: Dropped,
    phases: Vec<Phase>,
    bloat: Vec<Bloat>,
    /// Memory growth of the process that dropped the days.
    run_memory_bytes: u64,
}

/// How long dropping the day took in milliseconds, in total and per step.
#[derive(Debug, Clone, Copy, Serialize)]
struct Dropped {
    whole: f64,
    taking_out: f64,
    counting: f64,
    /// Until no session sees the partition and all locks are released.
    dropping: f64,
    /// Time the server takes afterwards to remove the files.
    removing_files: f64,
}

#[derive(Debug, Serialize)]
struct Phase {
    name: &'static str,
    took_ms: f64,
    record_to_row_ms: Latency,
    /// Ratio of the p99 to the p99 of both quiet phases.
    p99_to_quiet: f64,
    /// WAL written during the phase, including that of the records.
    #[serde(skip_serializing_if = "Option::is_none")]
    log_bytes: Option<u64>,
}

/// Disk usage of a day.
#[derive(Debug, Serialize)]
struct Bloat {
    name: &'static str,
    table_bytes: u64,
    index_bytes: u64,
    dead_rows: u64,
}

impl Bloat {
    fn of(name: &'static str, footprint: Footprint) -> Self {
        let Footprint { table_bytes, index_bytes, dead_rows } = footprint;
        Self { name, table_bytes, index_bytes, dead_rows }
    }
}

/// A measured phase before its latencies are computed.
struct Measured {
    name: &'static str,
    windows: Vec<Window>,
    log_bytes: Option<u64>,
}

/// Measurements other than latencies.
struct Remaining {
    dropped: Dropped,
    bloat: Vec<Bloat>,
    memory: u64,
}

impl Retention {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        super::on_a_stack(config, self.json, async |stack, progress| self.measure(stack, progress).await, print).await
    }

    async fn measure(&self, stack: &BenchStack, progress: &ProgressBar) -> anyhow::Result<Report> {
        let today = Utc::now().date_naive();
        let deleted = ago(today, DELETED_AGE)?;
        // The large day is the oldest, so it is dropped first.
        let dropped = ago(today, KEPT_DAYS + 1 + u64::from(self.more_days))?;
        fill(stack, deleted, self.rows, progress).await?;
        fill(stack, dropped, self.rows, progress).await?;
        for more in 1..=u64::from(self.more_days) {
            fill(stack, partition(later(dropped, more)?), self.rows / SMALLER, progress).await?;
        }
        stack.settle_down().await?;
        let worker = Worker::start(stack, WORKERS)?;
        let probe = Probe::start(stack, self.rate).await?;
        let mut phases = Vec::new();
        let rest = self.phases(stack, &mut phases, dropped, deleted, progress).await;
        let samples = probe.stop().await?;
        worker.stop().await?;
        let rest = rest?;
        let is_quiet = |phase: &&Measured| phase.name.starts_with(QUIET);
        let quiet: Vec<Window> = phases.iter().filter(is_quiet).flat_map(|phase| phase.windows.clone()).collect();
        let quiet = probe::latency(&samples, &quiet)?;
        let mut reports = Vec::new();
        for phase in phases {
            let latency = probe::latency(&samples, &phase.windows)?;
            reports.push(Phase {
                name: phase.name,
                took_ms: phase.windows.iter().map(|window| ms(window.length())).sum(),
                p99_to_quiet: latency.p99 / quiet.p99,
                record_to_row_ms: latency,
                log_bytes: phase.log_bytes,
            });
        }
        Ok(Report {
            rows: self.rows,
            more_days: self.more_days,
            records_per_second: self.rate,
            dropped_ms: rest.dropped,
            phases: reports,
            bloat: rest.bloat,
            run_memory_bytes: rest.memory,
        })
    }

    /// Runs all phases while records arrive.
    async fn phases(
        &self,
        stack: &BenchStack,
        phases: &mut Vec<Measured>,
        dropped: Partition,
        deleted: Partition,
        progress: &ProgressBar,
    ) -> anyhow::Result<Remaining> {
        let mut connection = partition_removal::session(&stack.database).await?;
        let mut bloat = vec![Bloat::of("the day", bench::footprint(&mut connection, dropped).await?)];
        self.quiet("quiet, before", phases, progress).await;

        progress.set_message("making the plan");
        let settings = settings();
        let memory = Memory::reset()?;
        let now = Utc::now();
        let started = Instant::now();
        let mut plan = plan::make(&mut connection, &settings, now, &mut |_| {}).await?;
        phases.push(Measured { name: "the plan", windows: vec![Window::since(started)], log_bytes: None });
        let is_as_filled = plan.items.iter().all(|item| item.action == Action::Drop)
            && plan.items.first().is_some_and(|item| item.rows == self.rows)
            && plan.items.len() == 1 + self.more_days as usize;
        anyhow::ensure!(is_as_filled, "the plan does not drop exactly the days that were filled: {plan:?}");

        progress.set_message("dropping the day");
        let more = Plan { items: plan.items.split_off(1) };
        let log = bench::log_position(&mut connection).await?;
        let watcher = process::connect(&stack.database).await?;
        let watching = tokio::spawn(until_nobody_finds(watcher, dropped));
        let first = drop_days(stack, &settings, &plan).await?;
        let log = bench::log_position(&mut connection).await? - log;
        let unseen = watching.await??;
        let mut windows: Vec<Window> = first.iter().map(|steps| steps.window).collect();
        phases.push(Measured { name: "drop", windows: windows.clone(), log_bytes: Some(log) });
        if !more.items.is_empty() {
            progress.set_message("dropping smaller days");
            windows.extend(drop_days(stack, &settings, &more).await?.iter().map(|steps| steps.window));
            phases.push(Measured { name: "drop, all days", windows, log_bytes: None });
        }
        let grown = Memory::of(std::process::id())?.peak.saturating_sub(memory.now);
        bloat.push(Bloat::of("drop", bench::footprint(&mut connection, dropped).await?));
        let dropped = first.first().context("no day was dropped")?.durations(unseen);
        self.quiet("quiet, after", phases, progress).await;

        progress.set_message("DELETE of as many rows");
        let log = bench::log_position(&mut connection).await?;
        let started = Instant::now();
        let mut job = process::connect(&stack.database).await?;
        let rows = bench::delete_older(&mut job, Kind::Events, deleted.ends_at()).await?;
        let window = Window::since(started);
        anyhow::ensure!(rows == self.rows, "DELETE removed {rows} rows, but {} were filled", self.rows);
        let after_delete = bench::log_position(&mut connection).await?;
        phases.push(Measured { name: "DELETE", windows: vec![window], log_bytes: Some(after_delete - log) });
        bloat.push(Bloat::of("DELETE", bench::footprint(&mut connection, deleted).await?));
        progress.set_message("VACUUM after it");
        let started = Instant::now();
        bench::vacuum(&mut job, deleted).await?;
        let window = Window::since(started);
        let log = bench::log_position(&mut connection).await? - after_delete;
        phases.push(Measured { name: "VACUUM after it", windows: vec![window], log_bytes: Some(log) });
        bloat.push(Bloat::of("DELETE and VACUUM", bench::footprint(&mut connection, deleted).await?));
        Ok(Remaining { dropped, bloat, memory: grown })
    }

    async fn quiet(&self, name: &'static str, phases: &mut Vec<Measured>, progress: &ProgressBar) {
        progress.set_message(name);
        sleep(COME_TO_REST).await;
        let started = Instant::now();
        sleep(Duration::from_secs(self.quiet)).await;
        phases.push(Measured { name, windows: vec![Window::since(started)], log_bytes: None });
    }
}

/// Prefix of the names of quiet phases.
const QUIET: &str = "quiet";

/// When a day was dropped, and when it reached each step.
#[derive(Debug, Clone, Copy)]
struct Steps {
    window: Window,
    taken_out: Instant,
    counted: Instant,
}

impl Steps {
    /// Returns the duration of each step. `unseen` is when no session saw the partition any more.
    fn durations(&self, unseen: Instant) -> Dropped {
        let between = |from: Instant, until: Instant| ms(until.saturating_duration_since(from));
        Dropped {
            whole: ms(self.window.length()),
            taking_out: between(self.window.from, self.taken_out),
            counting: between(self.taken_out, self.counted),
            dropping: between(self.counted, unseen),
            removing_files: between(unseen, self.window.until),
        }
    }
}

/// Waits until other sessions do not see a partition any more. If it is locked, the query waits as any reader would.
async fn until_nobody_finds(mut connection: PgConnection, day: Partition) -> anyhow::Result<Instant> {
    const POLL_EVERY: Duration = Duration::from_millis(2);
    while bench::footprint(&mut connection, day).await?.table_bytes > 0 {
        sleep(POLL_EVERY).await;
    }
    Ok(Instant::now())
}

/// Executes a plan as the command and the worker do. Returns the steps of each day.
async fn drop_days(stack: &BenchStack, settings: &Settings, plan: &Plan) -> anyhow::Result<Vec<Steps>> {
    let reached = Mutex::new(Vec::new());
    let observer = |step: Step, item: &Item| {
        reached.lock().unwrap_or_else(PoisonError::into_inner).push((item.day, step, Instant::now()));
        run::no_observer(step, item)
    };
    let request =
        Request { cause: Cause::Command, scheduled_for: None, actor_id: "bench".to_owned(), process: process::name() };
    let run_lease =
        RunLease::acquire(&stack.database, Duration::ZERO).await?.context("another process holds the lease")?;
    let work = run::execute(&stack.database, settings, plan, &request, Utc::now(), &observer);
    let report = run_lease.run_while_held(work).await.context("the retention lease was lost")?;
    run_lease.release().await;
    let report = report?.context("another process executed the run")?;
    anyhow::ensure!(report.done, "the days were not dropped: {}", report.problem().unwrap_or_default());
    let reached = reached.into_inner().unwrap_or_else(PoisonError::into_inner);
    let at = |item: &Item, wanted: Step| {
        let found = reached.iter().find(|(day, step, _)| *day == item.day && *step == wanted);
        found.map(|(_, _, at)| *at).with_context(|| format!("the drop did not reach {wanted:?}"))
    };
    let steps = |item: &Item| {
        Ok(Steps {
            window: Window { from: at(item, Step::Begun)?, until: at(item, Step::Removed)? },
            taken_out: at(item, Step::Detached)?,
            counted: at(item, Step::Counted)?,
        })
    };
    plan.items.iter().map(steps).collect()
}

/// Returns the default settings, regardless of the configuration.
fn settings() -> Settings {
    let mut retention = Kept::default();
    retention.keep.events = Keep::For(Duration::from_secs(KEPT_DAYS * 24 * 60 * 60));
    Settings { retention, partition_days_ahead: 1 }
}

/// Fills a day with events and vacuums it, as autovacuum would.
async fn fill(stack: &BenchStack, day: Partition, rows: u64, progress: &ProgressBar) -> anyhow::Result<()> {
    let mut connection = process::connect(&stack.database).await?;
    Partitions::default().ensure(&mut connection, day).await?;
    let apart = TimeDelta::microseconds(i64::try_from(DAY_MICROS / rows)?);
    let series = Series::new(Kind::Events, stack.bus.prefix(), day.starts_at()).with_apart(apart);
    let mut filled = 0;
    while filled < rows {
        progress.set_message(format!(
            "filling {}: {} of {} rows",
            day.first_day(),
            output::grouped(filled),
            output::grouped(rows)
        ));
        let until = (filled + FILL_AT_ONCE).min(rows);
        let pieces = copy_limit::encode(&series, filled..until)?;
        copy_limit::copy(stack, Kind::Events, Format::Binary, &pieces).await?;
        filled = until;
    }
    progress.set_message(format!("filling {}: VACUUM", day.first_day()));
    bench::vacuum_and_analyze(&mut connection, day).await?;
    Ok(())
}

fn ago(today: NaiveDate, days: u64) -> anyhow::Result<Partition> {
    Ok(partition(today.checked_sub_days(Days::new(days)).context("the date is out of range")?))
}

fn later(day: Partition, days: u64) -> anyhow::Result<NaiveDate> {
    day.first_day().checked_add_days(Days::new(days)).context("the date is out of range")
}

fn partition(day: NaiveDate) -> Partition {
    Partition::starting(Dataset::Records(Kind::Events), day)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

fn print(report: &Report) {
    let Dropped { whole, taking_out, counting, dropping, removing_files } = report.dropped_ms;
    output::say(format_args!(
        "a day of {} events was dropped in {whole:.0} ms: detached in {taking_out:.0} ms, counted in {counting:.0} ms, \
         dropped in {dropping:.0} ms, files removed in {removing_files:.0} ms",
        output::grouped(report.rows)
    ));
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let header = ["PHASE", "TOOK", "RECORDS", "MEDIAN", "P99", "MAX", "P99 TO QUIET", "WAL"];
    let mut table = output::table(header, &[1, 2, 3, 4, 5, 6, 7]);
    for phase in &report.phases {
        let latency = &phase.record_to_row_ms;
        table.add_row([
            phase.name.to_owned(),
            format!("{:.2} s", phase.took_ms / 1_000.0),
            output::grouped(latency.records),
            format!("{:.1} ms", latency.median),
            format!("{:.1} ms", latency.p99),
            format!("{:.1} ms", latency.max),
            format!("{:.2}", phase.p99_to_quiet),
            phase.log_bytes.map_or_else(|| "-".to_owned(), mib),
        ]);
    }
    output::say(format_args!("record to row at {} records/s:\n{table}", report.records_per_second));
    let mut table = output::table(["ON DISK AFTER", "TABLE", "INDEXES", "DEAD ROWS"], &[1, 2, 3]);
    for bloat in &report.bloat {
        table.add_row([
            bloat.name.to_owned(),
            mib(bloat.table_bytes),
            mib(bloat.index_bytes),
            output::grouped(bloat.dead_rows),
        ]);
    }
    output::say(table);
    output::say(format_args!(
        "all days: that one and {} days of {} events each; memory of the process that dropped them grew by {}",
        report.more_days,
        output::grouped(report.rows / SMALLER),
        mib(report.run_memory_bytes)
    ));
    output::say(
        "a record counts for each phase in which it was in flight; p99 of fewer than 100 records is the maximum",
    );
}
