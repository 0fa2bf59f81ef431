//! Many live streams at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::body::{Body, BodyDataStream};
use futures::StreamExt;
use gateway::auth::Role;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use records::{Event, Json};
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::reading::ORGANIZATIONS;
use super::serving::Serving;
use crate::bench::latency::{Latency, record};
use crate::bench::sample::organization;
use crate::bench::stack::BenchStack;
use crate::process;

/// Records per second, of all organizations in turn: each has a fiftieth, and each stream shows one of them.
const RATE: u32 = 1_000;
/// How long the last events may take to arrive.
const ARRIVED_WITHIN: Duration = Duration::from_secs(10);
/// Field of the payload with the publish time, in microseconds since the start of the bench.
const SENT_AT: &[u8] = b"\"sent_at_us\":";

/// The measurement of live streams.
#[derive(Debug, Serialize)]
pub(super) struct Watching {
    pub(super) streams: u32,
    pub(super) records_per_second: f64,
    pub(super) events_per_second: f64,
    /// From the publish of a record to its event, over all streams.
    pub(super) publish_to_event_ms: Latency,
    /// CPU cores used by the process with all workers.
    pub(super) cpu_share: f64,
    /// Memory of the process per open stream.
    pub(super) memory_per_stream_bytes: u64,
    pub(super) peak_memory_bytes: u64,
}

/// Opens the streams, publishes for `length`, and checks that each stream received every record of its organization.
pub(super) async fn measure(
    stack: &BenchStack,
    serving: &Serving,
    streams: u32,
    length: Duration,
    progress: &ProgressBar,
) -> anyhow::Result<Watching> {
    let memory = serving.worker.reset_peak()?;
    progress.set_message(format!("opening {streams} live streams"));
    let began = Instant::now();
    let published: Arc<Vec<AtomicU64>> = Arc::new((0..ORGANIZATIONS.get()).map(|_| AtomicU64::new(0)).collect());
    let mut watching = JoinSet::new();
    let (ended, ends) = tokio::sync::watch::channel(false);
    for number in 0..u64::from(streams) {
        let whose = number % ORGANIZATIONS;
        let name = organization(whose);
        let mut client = serving.client(stack, &format!("watcher-of-{name}"), Role::Viewer, &name).await?;
        let mut events = Events::of(client.get("/api/live/events").await?);
        events.next().await.context("a stream did not begin")??;
        let (published, mut ends) = (published.clone(), ends.clone());
        watching.spawn(async move {
            let mut times = Histogram::new(3).context("make a histogram")?;
            let expected = || published.get(whose as usize).map_or(0, |count| count.load(Ordering::Relaxed));
            // Number of records to expect, known once all are published.
            let mut last = None;
            while last.is_none_or(|last| times.len() < last) {
                let event = tokio::select! {
                    _ = ends.wait_for(|ended| *ended), if last.is_none() => {
                        last = Some(expected());
                        continue;
                    }
                    event = timeout(ARRIVED_WITHIN, events.next()) => event,
                };
                let event =
                    event.with_context(|| format!("a stream received {} of {} events", times.len(), expected()))?;
                let event = event.context("a stream ended")??;
                if let Some(sent_at) = sent_at(&event)? {
                    record(&mut times, began.elapsed().saturating_sub(sent_at))?;
                }
            }
            // The client keeps the connection open.
            drop(client);
            anyhow::Ok(times)
        });
    }
    let opened = serving.worker.memory()?.now;
    progress.set_message(format!("{streams} live streams, {RATE} records per second"));
    let (started, cpu) = (Instant::now(), serving.worker.cpu_seconds()?);
    let records = publish(stack, began, length, &published).await?;
    ended.send(true).context("all streams ended early")?;
    let mut all = Histogram::new(3).context("make a histogram")?;
    while let Some(times) = watching.join_next().await {
        all.add::<&Histogram<u64>>(&times??).context("add times")?;
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(Watching {
        streams,
        records_per_second: records as f64 / seconds,
        events_per_second: all.len() as f64 / seconds,
        publish_to_event_ms: Latency::of(&all),
        cpu_share: (serving.worker.cpu_seconds()? - cpu) / seconds,
        memory_per_stream_bytes: opened.saturating_sub(memory.now) / u64::from(streams.max(1)),
        peak_memory_bytes: serving.worker.memory()?.peak,
    })
}

/// Publishes for `length` and returns the number of records.
async fn publish(stack: &BenchStack, began: Instant, length: Duration, published: &[AtomicU64]) -> anyhow::Result<u64> {
    let publisher = process::publisher(&stack.config, &stack.bus)?;
    let mut publishes = JoinSet::new();
    let mut ticks = interval(Duration::from_secs(1) / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let until = Instant::now() + length;
    let mut records = 0;
    while Instant::now() < until {
        ticks.tick().await;
        let whose = records % ORGANIZATIONS;
        let publisher = publisher.clone().for_organization(&organization(whose))?;
        let sent_at = u64::try_from(began.elapsed().as_micros())?;
        let event = Event {
            event_type: "bench.watched".into(),
            payload: Json::of(&json!({ "sent_at_us": sent_at })).unwrap_or_default(),
            ..Event::default()
        };
        publishes.spawn(async move { publisher.publish(event).await });
        published.get(whose as usize).context("unknown organization")?.fetch_add(1, Ordering::Relaxed);
        records += 1;
        while let Some(published) = publishes.try_join_next() {
            published??;
        }
    }
    while let Some(published) = publishes.join_next().await {
        published??;
    }
    Ok(records)
}

/// The server-sent events of a response.
struct Events {
    body: BodyDataStream,
    /// The part of the next event that has arrived.
    text: Vec<u8>,
}

impl Events {
    fn of(body: Body) -> Self {
        Self { body: body.into_data_stream(), text: Vec::new() }
    }

    /// Returns the next event or comment.
    async fn next(&mut self) -> Option<anyhow::Result<Vec<u8>>> {
        loop {
            if let Some(end) = self.text.windows(2).position(|pair| pair == b"\n\n") {
                let rest = self.text.split_off(end + 2);
                return Some(Ok(std::mem::replace(&mut self.text, rest)));
            }
            match self.body.next().await? {
                Ok(part) => self.text.extend_from_slice(&part),
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}

/// Returns when the record of an event was published; `None` for a comment.
///
/// # Errors
/// If the stream reports lost events.
fn sent_at(event: &[u8]) -> anyhow::Result<Option<Duration>> {
    let text = std::str::from_utf8(event).context("an event is not UTF-8")?;
    anyhow::ensure!(!text.contains("event: lost"), "a stream lost events: {text}");
    let Some(at) = event.windows(SENT_AT.len()).position(|part| part == SENT_AT) else { return Ok(None) };
    let digits = text[at + SENT_AT.len()..].split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    Ok(Some(Duration::from_micros(digits.parse().context("parse sent_at_us of an event")?)))
}
