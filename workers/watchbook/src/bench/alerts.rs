//! `bench alerts`: the latency from the record that crosses a threshold to the webhook, and the duration of an
//! evaluation.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use alerting::rule_engine::{RuleEngine, Scope};
use alerting::series::Minute;
use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use chrono::{TimeDelta, Utc};
use clap::Args;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use publisher::Publisher;
use records::rollup::MinuteGroups;
use records::{Execution, Kind};
use runtime::Config;
use runtime::config::Sources;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::latency::{Latency, record};
use super::stack::BenchStack;
use super::worker::Worker;
use crate::{output, process, rules};

/// Bursts of background records per second: one every 10 ms.
const BURSTS_A_SECOND: u64 = 100;
/// After this time a notification counts as lost and the bench fails.
const AT_MOST: Duration = Duration::from_secs(30);
/// Evaluations of all rules and groups; the median counts.
const EVALUATIONS: usize = 20;
/// Windows of the evaluated rules. Rules that count the same records share their buckets.
const WINDOWS: [&str; 5] = ["5m", "10m", "15m", "30m", "1h"];

/// Measure the latency of an alert and the duration of an evaluation.
///
/// Runs every worker on a stack of its own, under a load of records. In each round one strategy crosses 30 %: the clock
/// starts when JetStream has acknowledged the record that crosses the threshold, and stops when the webhook is called.
/// The evaluation is measured separately: --rules rules over --groups groups, each with an hour of roll-ups.
#[derive(Debug, Args)]
pub(crate) struct Alerts {
    /// Rounds; in each, one strategy crosses the threshold.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(10..=1_000))]
    rounds: u32,
    /// Background load in records per second.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(100..=20_000))]
    rate: u64,
    /// Rules to evaluate.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rules: u32,
    /// Groups of each evaluated rule.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    groups: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    rounds: u32,
    records_per_second: f64,
    crossing_to_webhook_ms: Latency,
    rules: u32,
    groups: u32,
    evaluation_ms: Latency,
    worker_peak_memory_bytes: u64,
}

impl Alerts {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        super::on_a_stack(config, self.json, async |stack, progress| self.measure(stack, progress).await, print).await
    }

    async fn measure(&self, stack: &BenchStack, progress: &ProgressBar) -> anyhow::Result<Report> {
        progress.set_message(format!("{} rules over {} groups", self.rules, self.groups));
        let evaluation = self.evaluate()?;
        let (latency, records_per_second, peak) = self.tell(stack, progress).await?;
        Ok(Report {
            rounds: self.rounds,
            records_per_second,
            crossing_to_webhook_ms: Latency::of(&latency),
            rules: self.rules,
            groups: self.groups,
            evaluation_ms: Latency::of(&evaluation),
            worker_peak_memory_bytes: peak,
        })
    }

    /// Evaluates every rule over every group in this process.
    fn evaluate(&self) -> anyhow::Result<Histogram<u64>> {
        let mut file = String::new();
        for number in 0..self.rules {
            let window = WINDOWS[number as usize % WINDOWS.len()];
            let threshold = 30 + number % 60;
            write!(
                file,
                "[[rules]]\nname = \"rule-{number}\"\nsource = \"executions\"\nfailed_when = \"success == false\"\n\
                 window = \"{window}\"\nthreshold = \"{threshold}%\"\ngroup_by = [\"strategy_id\"]\n\n"
            )?;
        }
        let sources = Sources { file: Some(("bench".into(), file)), environment: Vec::new() };
        let alerting = rules::of(&sources.load()?)?;
        let now = Utc::now();
        let mut engine = RuleEngine::new(&alerting.rules, self.groups as usize);
        let (names, groups) = self.hour();
        for minute in 0..60 {
            engine.add(Minute {
                kind: Kind::Executions,
                minute: now - TimeDelta::minutes(minute),
                label_names: &names,
                level_names: &[],
                groups: &groups,
            });
        }
        let mut histogram = Histogram::new(3).context("make a histogram")?;
        for look in 0..EVALUATIONS {
            let now = now + TimeDelta::seconds(look as i64);
            let started = Instant::now();
            let changes = engine.evaluate(now, Scope::All);
            record(&mut histogram, started.elapsed())?;
            anyhow::ensure!(changes.is_empty(), "an alert changed state, although no rule reaches its threshold here");
        }
        Ok(histogram)
    }

    /// Returns one minute of every group.
    fn hour(&self) -> (Vec<String>, MinuteGroups<'static>) {
        let names = vec!["organization_id".to_owned(), "strategy_id".to_owned()];
        let mut groups = MinuteGroups::default();
        groups.dictionary.push("acme".into());
        for group in 0..self.groups {
            groups.dictionary.push(format!("strategy-{group}").into());
            groups.places.extend([1, group + 2]);
            groups.total.push(20);
            groups.failed.push(group % 5);
        }
        (names, groups)
    }

    /// Lets strategies cross the threshold one after the other, under load. Returns the latencies, the load in records
    /// per second and the peak memory of the worker.
    async fn tell(&self, stack: &BenchStack, progress: &ProgressBar) -> anyhow::Result<(Histogram<u64>, f64, u64)> {
        let webhook = Webhook::start().await?;
        let file = stack.write_file("alerts.toml", &settings(webhook.address))?;
        let worker = Worker::start_with(stack, "all", &[("WATCHBOOK_CONFIG", file)])?;
        let publisher = process::publisher(&stack.config, &stack.bus)?.for_organization("acme")?;
        let published = Arc::new(AtomicU64::new(0));
        let (load_began, load) =
            (Instant::now(), tokio::spawn(background(publisher.clone(), self.rate, published.clone())));
        // The workers need a moment to start, and the windows need samples.
        sleep(Duration::from_secs(3)).await;
        let mut histogram = Histogram::new(3).context("make a histogram")?;
        for round in 0..self.rounds {
            progress.set_message(format!("round {} of {} at {}/s", round + 1, self.rounds, self.rate));
            let strategy = format!("crossing-{round}");
            let mut before = vec![true; 10];
            before.extend([false; 4]);
            for success in before {
                publisher.publish(execution(&strategy, success)).await?;
            }
            // 4 of 14 is 28.6 %, 5 of 15 is 33.3 %. The random pause avoids a fixed phase to the worker's tick.
            sleep(Duration::from_millis(500 + fastrand::u64(..1_000))).await;
            publisher.publish(execution(&strategy, false)).await?;
            let crossed = Instant::now();
            record(&mut histogram, webhook.called_for(&strategy, crossed).await?)?;
        }
        load.abort();
        let rate = published.load(Ordering::Relaxed) as f64 / load_began.elapsed().as_secs_f64();
        let peak = worker.memory()?.peak;
        worker.stop().await?;
        Ok((histogram, rate, peak))
    }
}

/// Returns the settings of the workers: one rule grouped by strategy, and one receiver.
fn settings(webhook: SocketAddr) -> String {
    format!(
        "[[rules]]\nname = \"crossing\"\nsource = \"executions\"\nfailed_when = \"success == false\"\nwindow = \"1h\"\n\
         threshold = \"30%\"\ngroup_by = [\"strategy_id\"]\nseverity = \"critical\"\n\n\
         [[receivers]]\nname = \"bench\"\nwebhook = {{ url = \"http://{webhook}/\" }}\n\n\
         [[routes]]\nto = [\"bench\"]\n"
    )
}

fn execution(strategy: &str, success: bool) -> Execution<'static> {
    Execution {
        user_id: "user-1".into(),
        strategy_id: strategy.to_owned().into(),
        success,
        execution_time_ms: 120,
        ..Execution::default()
    }
}

/// Publishes healthy executions at a rate, in small bursts, until it is aborted.
async fn background(publisher: Publisher, rate: u64, published: Arc<AtomicU64>) {
    let mut ticks = interval(Duration::from_millis(1_000 / BURSTS_A_SECOND));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut number = 0_u64;
    loop {
        ticks.tick().await;
        let burst: Vec<_> = (0..rate / BURSTS_A_SECOND)
            .map(|n| execution(&format!("strategy-{:03}", (number + n) % 300), !(number + n).is_multiple_of(20)))
            .collect();
        let count = burst.len() as u64;
        number += count;
        // A failed publish shows as a lower rate.
        if publisher.publish_batch(burst).await.is_ok() {
            published.fetch_add(count, Ordering::Relaxed);
        }
    }
}

/// The part of a webhook's body that the bench reads.
#[derive(Debug, Deserialize)]
struct Call {
    alerts: Vec<Alert>,
}

#[derive(Debug, Deserialize)]
struct Alert {
    labels: HashMap<String, String>,
}

/// A webhook receiver that records when it was first called for each strategy.
struct Webhook {
    address: SocketAddr,
    calls: Calls,
}

type Calls = Arc<Mutex<HashMap<String, Instant>>>;

impl Webhook {
    async fn start() -> anyhow::Result<Self> {
        let calls = Calls::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen for the webhook")?;
        let address = listener.local_addr().context("read the address that was bound")?;
        let router = Router::new().route("/", post(note)).with_state(calls.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, calls })
    }

    /// Waits for the call for a strategy and returns how long after `since` it came.
    async fn called_for(&self, strategy: &str, since: Instant) -> anyhow::Result<Duration> {
        loop {
            let called = self.calls.lock().unwrap_or_else(PoisonError::into_inner).get(strategy).copied();
            if let Some(called) = called {
                return Ok(called.saturating_duration_since(since));
            }
            anyhow::ensure!(since.elapsed() < AT_MOST, "no notification of {strategy} within {} s", AT_MOST.as_secs());
            sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn note(State(calls): State<Calls>, body: Bytes) -> StatusCode {
    let now = Instant::now();
    let Ok(call) = serde_json::from_slice::<Call>(&body) else { return StatusCode::BAD_REQUEST };
    let mut calls = calls.lock().unwrap_or_else(PoisonError::into_inner);
    for strategy in call.alerts.into_iter().filter_map(|mut alert| alert.labels.remove("strategy_id")) {
        calls.entry(strategy).or_insert(now);
    }
    StatusCode::OK
}

fn print(report: &Report) {
    let line = |latency: &Latency| {
        format!("median {:.1} ms, p99 {:.1} ms, max {:.1} ms", latency.median, latency.p99, latency.max)
    };
    output::say(format_args!(
        "from the acknowledged record to the webhook, {} rounds at {:.0} records/s: {}",
        report.rounds,
        report.records_per_second,
        line(&report.crossing_to_webhook_ms)
    ));
    output::say(format_args!(
        "evaluation of {} rules over {} groups each, an hour of roll-ups: {}",
        report.rules,
        report.groups,
        line(&report.evaluation_ms)
    ));
    output::say(format_args!(
        "peak memory of the process with all workers: {:.0} MiB",
        report.worker_peak_memory_bytes as f64 / f64::from(1 << 20)
    ));
}
