//! The latency from a record to its row, at a steady rate, while something else happens.
//!
//! The clock of a record starts when it is due, not when it is sent, so a record that waits behind slow ones counts as
//! slow. One query per millisecond looks for all records in flight, so the probe costs the same in every phase.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::{DateTime, Utc};
use hdrhistogram::Histogram;
use publisher::Publisher;
use records::{Event, Kind};
use store::PgConnection;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::latency::{Latency, record};
use super::stack::BenchStack;
use crate::process;

/// How often the rows are queried.
const POLL_EVERY: Duration = Duration::from_millis(1);
/// Maximum records in flight: those of some seconds, so that many records see a long wait.
const IN_FLIGHT: usize = 1_000;
/// After this time a record counts as lost and the bench fails.
const AT_MOST: Duration = Duration::from_secs(60);

/// Publishes records and looks for their rows until it is stopped.
pub(crate) struct Probe {
    stop: CancellationToken,
    publishing: JoinHandle<anyhow::Result<()>>,
    polling: JoinHandle<anyhow::Result<Vec<Sample>>>,
}

/// The latency of one record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    due: Instant,
    seen: Instant,
}

/// A time window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) from: Instant,
    pub(crate) until: Instant,
}

struct Pending {
    id: Uuid,
    created_at: DateTime<Utc>,
    due: Instant,
    /// Permit of the in-flight limit.
    _permit: OwnedSemaphorePermit,
}

impl Probe {
    /// Starts with `rate` records per second.
    pub(crate) async fn start(stack: &BenchStack, rate: u32) -> anyhow::Result<Self> {
        let publisher = process::publisher(&stack.config, &stack.bus)?;
        let connection = process::connect(&stack.database).await?;
        let stop = CancellationToken::new();
        let (sender, receiver) = mpsc::unbounded_channel();
        let every = Duration::from_secs(1) / rate.max(1);
        Ok(Self {
            publishing: tokio::spawn(publish(publisher, every, sender, stop.clone())),
            polling: tokio::spawn(poll_rows(connection, receiver)),
            stop,
        })
    }

    /// Stops publishing and waits until the last record has its row.
    pub(crate) async fn stop(self) -> anyhow::Result<Vec<Sample>> {
        self.stop.cancel();
        self.publishing.await??;
        self.polling.await?
    }
}

impl Window {
    /// Returns the window from `from` until now.
    pub(crate) fn since(from: Instant) -> Self {
        Self { from, until: Instant::now() }
    }

    pub(crate) fn length(&self) -> Duration {
        self.until.saturating_duration_since(self.from)
    }

    /// Returns whether a record was in flight during the window.
    fn sees(&self, sample: &Sample) -> bool {
        sample.due <= self.until && sample.seen >= self.from
    }
}

/// Returns the latencies of the records that were in flight during one of the windows.
pub(crate) fn latency(samples: &[Sample], windows: &[Window]) -> anyhow::Result<Latency> {
    let mut histogram = Histogram::new(3).context("make a histogram")?;
    for sample in samples.iter().filter(|sample| windows.iter().any(|window| window.sees(sample))) {
        record(&mut histogram, sample.seen.saturating_duration_since(sample.due))?;
    }
    Ok(Latency::of(&histogram))
}

async fn publish(
    publisher: Publisher,
    every: Duration,
    pending: UnboundedSender<Pending>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut publishes = JoinSet::new();
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        let due = tokio::select! {
            () = stop.cancelled() => break,
            due = ticks.tick() => due.into_std(),
        };
        let permit = places.clone().acquire_owned().await?;
        let mut outgoing = publisher.outgoing(Event { event_type: "bench.probe".into(), ..Event::default() });
        outgoing.created_at = Utc::now();
        let sent = pending.send(Pending { id: outgoing.id, created_at: outgoing.created_at, due, _permit: permit });
        if sent.is_err() {
            // The query task has failed and reports why.
            break;
        }
        let publisher = publisher.clone();
        publishes.spawn(async move { publisher.publish_outgoing(&outgoing).await });
        while let Some(published) = publishes.try_join_next() {
            published??;
        }
    }
    while let Some(published) = publishes.join_next().await {
        published??;
    }
    Ok(())
}

async fn poll_rows(
    mut connection: PgConnection,
    mut arriving: UnboundedReceiver<Pending>,
) -> anyhow::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    let mut pending: Vec<Pending> = Vec::new();
    loop {
        if pending.is_empty() {
            let Some(next) = arriving.recv().await else { return Ok(samples) };
            pending.push(next);
        }
        while let Ok(next) = arriving.try_recv() {
            pending.push(next);
        }
        let ids: Vec<Uuid> = pending.iter().map(|record| record.id).collect();
        let times = || pending.iter().map(|record| record.created_at);
        let (Some(from), Some(until)) = (times().min(), times().max()) else { continue };
        let stored = store::bench::stored_of(&mut connection, Kind::Events, from, until, &ids).await?;
        let seen = Instant::now();
        pending.retain(|record| {
            let is_stored = stored.contains(&record.id);
            samples.extend(is_stored.then_some(Sample { due: record.due, seen }));
            !is_stored
        });
        let oldest = pending.iter().map(|record| record.due).min();
        anyhow::ensure!(
            oldest.is_none_or(|due| due.elapsed() < AT_MOST),
            "a record is not stored after {} s",
            AT_MOST.as_secs()
        );
        sleep(POLL_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_where_it_was_on_its_way() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let window = Window { from: at(100), until: at(200) };
        let sees = |due, seen| window.sees(&Sample { due: at(due), seen: at(seen) });
        assert!(!sees(0, 99));
        assert!(sees(0, 100), "it arrived when it began");
        assert!(sees(0, 5_000), "longer than the window on both sides");
        assert!(sees(200, 210));
        assert!(!sees(201, 210));
    }
}
