//! Errors posted one by one, as browsers and scripts do.

use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::Utc;
use gateway::auth::Role;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use publisher::Publisher;
use records::Kind;
use serde::Serialize;
use store::positions;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at, sleep};

use super::client::Client;
use super::serving::Serving;
use crate::bench::latency::{Latency, record};
use crate::bench::sample::Series;
use crate::bench::stack::BenchStack;
use crate::process;

/// Concurrent connections that post, and concurrent publishes when measuring without the gateway.
const AT_ONCE: u32 = 32;
/// Duration of the phases without a rate limit.
const FLAT_OUT: Duration = Duration::from_secs(5);
/// Organization of the posted records.
const ORGANIZATION: &str = "acme";
const PATH: &str = "/api/errors";
/// How long the writers may take to store the last records.
const STORED_WITHIN: Duration = Duration::from_secs(60);

/// The measurement of posting.
#[derive(Debug, Serialize)]
pub(super) struct Publishing {
    /// The requested rate, in posts per second.
    pub(super) rate: u32,
    /// The rate that was reached: responses with status 202 per second. Any other status fails the bench.
    pub(super) posts_per_second: f64,
    /// From the time a post was due to its response.
    pub(super) post_ms: Latency,
    /// CPU cores used by the process with all workers.
    pub(super) cpu_share: f64,
    /// Posts per second over the same connections without a rate limit.
    pub(super) flat_out_per_second: f64,
    /// The same records published to JetStream one by one by a NATS client with the same concurrency: the limit.
    pub(super) jetstream_per_second: f64,
    pub(super) peak_memory_bytes: u64,
}

/// Posts at a rate, then without one, then publishes directly to JetStream, and waits until all records are stored.
pub(super) async fn measure(
    stack: &BenchStack,
    serving: &Serving,
    rate: u32,
    length: Duration,
    progress: &ProgressBar,
) -> anyhow::Result<Publishing> {
    serving.worker.reset_peak()?;
    progress.set_message(format!("{rate} posts per second"));
    let every = Duration::from_secs(1) * AT_ONCE / rate;
    let (started, cpu) = (Instant::now(), serving.worker.cpu_seconds()?);
    let posts = post(stack, serving, Some(every), length).await?;
    let seconds = started.elapsed().as_secs_f64();
    let cpu_share = (serving.worker.cpu_seconds()? - cpu) / seconds;
    let posts_per_second = posts.len() as f64 / seconds;

    progress.set_message("posting as fast as possible");
    let started = Instant::now();
    let flat_out = post(stack, serving, None, FLAT_OUT).await?.len();
    let flat_out_per_second = flat_out as f64 / started.elapsed().as_secs_f64();

    progress.set_message("publishing directly to JetStream");
    let publisher = process::publisher(&stack.config, &stack.bus)?;
    let started = Instant::now();
    let published = publish(stack, &publisher).await?;
    let jetstream_per_second = published as f64 / started.elapsed().as_secs_f64();

    progress.set_message("waiting for the rows");
    wait_until_stored(stack, posts.len() + flat_out + published).await?;
    Ok(Publishing {
        rate,
        posts_per_second,
        post_ms: Latency::of(&posts),
        cpu_share,
        flat_out_per_second,
        jetstream_per_second,
        peak_memory_bytes: serving.worker.memory()?.peak,
    })
}

/// Posts over [`AT_ONCE`] connections: on each one post per `every`, or as fast as possible.
async fn post(
    stack: &BenchStack,
    serving: &Serving,
    every: Option<Duration>,
    length: Duration,
) -> anyhow::Result<Histogram<u64>> {
    let mut clients = Vec::new();
    for number in 0..AT_ONCE {
        clients.push(serving.client(stack, &format!("service-{number}"), Role::Producer, ORGANIZATION).await?);
    }
    let mut posting = JoinSet::new();
    let started = Instant::now();
    for (client, number) in clients.into_iter().zip(0..AT_ONCE) {
        // Spread the connections over the interval.
        let first = started + every.map_or(Duration::ZERO, |every| every * number / AT_ONCE);
        posting.spawn(keep_posting(client, series(stack), first, every, started + length));
    }
    let mut all = Histogram::new(3).context("make a histogram")?;
    while let Some(posts) = posting.join_next().await {
        all.add(posts??).context("add times")?;
    }
    Ok(all)
}

async fn keep_posting(
    mut client: Client,
    series: Series,
    first: Instant,
    every: Option<Duration>,
    until: Instant,
) -> anyhow::Result<Histogram<u64>> {
    let mut times = Histogram::new(3).context("make a histogram")?;
    // A late post is caught up and timed from when it was due, so a slow response delays the ones behind it too.
    let mut ticks = every.map(|every| interval_at(first.into(), every));
    if let Some(ticks) = &mut ticks {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    }
    for number in 0.. {
        let due = match &mut ticks {
            Some(ticks) => ticks.tick().await.into_std(),
            None => Instant::now(),
        };
        if due >= until {
            break;
        }
        client.post(PATH, ORGANIZATION, series.posted(number)).await?;
        record(&mut times, due.elapsed())?;
    }
    Ok(times)
}

/// Returns the records of one connection.
fn series(stack: &BenchStack) -> Series {
    Series::new(Kind::Errors, stack.bus.prefix(), Utc::now())
}

/// Publishes over one NATS connection with the concurrency of the posts. Returns the number of records.
async fn publish(stack: &BenchStack, publisher: &Publisher) -> anyhow::Result<u64> {
    let mut publishing = JoinSet::new();
    let until = Instant::now() + FLAT_OUT;
    for _ in 0..AT_ONCE {
        let (publisher, series) = (publisher.clone(), series(stack));
        publishing.spawn(async move {
            let mut published = 0;
            while Instant::now() < until {
                let message = series.message(published);
                let sent = publisher.publish_encoded(Kind::Errors, vec![message]).await;
                sent.map_err(|error| anyhow::anyhow!("publish: {}", error.error()))?;
                published += 1;
            }
            anyhow::Ok(published)
        });
    }
    let mut all = 0;
    while let Some(published) = publishing.join_next().await {
        all += published??;
    }
    Ok(all)
}

/// Waits until `published` records are stored, so that none is a duplicate or a dead letter.
async fn wait_until_stored(stack: &BenchStack, published: u64) -> anyhow::Result<()> {
    const POLL_EVERY: Duration = Duration::from_millis(50);
    let mut connection = process::connect(&stack.database).await?;
    let stream = stack.bus.stream_name(Kind::Errors);
    let started = Instant::now();
    loop {
        let account = positions::find(&mut connection, &stream).await?;
        let stored = account.map_or(0, |account| account.stored);
        // Internal records of Watchbook itself may add to it.
        if stored >= published {
            return Ok(());
        }
        let is_late = started.elapsed() > STORED_WITHIN;
        anyhow::ensure!(!is_late, "{published} records were acknowledged, but only {stored} are stored");
        sleep(POLL_EVERY).await;
    }
}
