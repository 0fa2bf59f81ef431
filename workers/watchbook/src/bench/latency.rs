//! The latency from the publish of a record to its row, at a low rate.

use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::Utc;
use hdrhistogram::Histogram;
use records::{Event, Kind};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::stack::BenchStack;
use crate::process;

/// Ten records per second, so that each record is alone in the pipeline.
const EVERY: Duration = Duration::from_millis(100);
/// How often the row is queried.
const POLL_EVERY: Duration = Duration::from_micros(500);
/// After this time a record counts as lost and the bench fails.
const AT_MOST: Duration = Duration::from_secs(30);

/// Latencies in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Latency {
    pub(crate) records: u64,
    pub(crate) median: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Latency {
    /// Summarizes a histogram of microseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let ms = |micros: u64| micros as f64 / 1_000.0;
        Self {
            records: histogram.len(),
            median: ms(histogram.value_at_quantile(0.5)),
            p99: ms(histogram.value_at_quantile(0.99)),
            max: ms(histogram.max()),
        }
    }
}

/// Records a duration in microseconds.
pub(crate) fn record(histogram: &mut Histogram<u64>, took: Duration) -> anyhow::Result<()> {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    histogram.record(micros).context("record a time")
}

/// Measures the microseconds from the start of a publish until the row can be read.
pub(crate) async fn measure(stack: &BenchStack, records: u32) -> anyhow::Result<Histogram<u64>> {
    let publisher = process::publisher(&stack.config, &stack.bus)?;
    let mut connection = process::connect(&stack.database).await?;
    let mut histogram = Histogram::new(3).context("make a histogram")?;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0..records {
        ticks.tick().await;
        let mut outgoing = publisher.outgoing(Event { event_type: "bench.quiet".into(), ..Event::default() });
        outgoing.created_at = Utc::now();
        let started = Instant::now();
        publisher.publish_outgoing(&outgoing).await?;
        while !store::batch::is_stored(&mut connection, Kind::Events, outgoing.created_at, outgoing.id).await? {
            anyhow::ensure!(started.elapsed() < AT_MOST, "record {number} is not stored after {} s", AT_MOST.as_secs());
            sleep(POLL_EVERY).await;
        }
        record(&mut histogram, started.elapsed())?;
    }
    Ok(histogram)
}
