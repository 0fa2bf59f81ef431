//! Publishes events in each of the three ways and prints the throughput:
//!
//! ```text
//! watchbook setup
//! cargo run --release -p publisher --example publish -- nats://127.0.0.1:4222 1000000
//! ```
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::error::Error;
use std::time::{Duration, Instant};

use publisher::{BufferOptions, Publisher};
use records::{Event, Json, Kind};
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let servers = arguments.next().unwrap_or_else(|| "nats://127.0.0.1:4222".to_owned());
    let count: usize = arguments.next().map_or(Ok(100_000), |count| count.parse())?;
    let publisher = Publisher::builder().organization("acme").source("example").connect(servers).await?;

    // One record, acknowledged.
    let receipt = publisher.publish(event(0)?).await?;
    println!("{} is message {} of {}", receipt.id, receipt.sequence, receipt.stream);

    // Many records in atomic batches. Includes encoding, checking, sending and acknowledgements.
    let events = (0..count).map(event).collect::<Result<Vec<_>, _>>()?;
    let began = Instant::now();
    publisher.publish_batch(events).await?;
    report("publish_batch (including encoding and checks)", count, began);

    // Encoded messages, without checks.
    let body = publisher.prepare(&publisher.outgoing(event(0)?))?.message;
    let bodies = vec![body; count];
    let began = Instant::now();
    publisher.publish_encoded(Kind::Events, bodies).await?;
    report("publish_encoded (encoded before)", count, began);

    // In the background, through a buffer that waits out an outage.
    let buffered = publisher.buffered(BufferOptions::default());
    let began = Instant::now();
    for index in 0..count {
        buffered.push(event(index)?).await?;
    }
    buffered.close(Duration::from_secs(30)).await?;
    report("buffered", count, began);
    Ok(())
}

fn event(index: usize) -> Result<Event<'static>, serde_json::Error> {
    let payload =
        json!({ "branch": "main", "step": index, "log": "https://ci.example.com/builds/1/steps/2", "ok": true });
    Ok(Event {
        event_type: "build.finished".into(),
        payload: Json::of(&payload)?,
        project_id: Some("project-1".into()),
        run_id: Some(format!("run-{}", index / 100).into()),
        ..Event::default()
    })
}

fn report(what: &str, count: usize, began: Instant) {
    println!("{what}: {:.0} records/s", count as f64 / began.elapsed().as_secs_f64());
}
