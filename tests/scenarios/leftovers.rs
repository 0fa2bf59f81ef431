//! The harness itself: a test that leaves something behind fails, whatever else it checks.

use std::any::Any;

use async_nats::jetstream::consumer::pull;
use harness::messages::event;
use harness::{Watchbook, World};
use records::Kind;
use tokio::task::{LocalSet, spawn_local};

use crate::world;

/// Returns the panic message of a test that ends with this world.
async fn failure_at_the_end_of(world: World) -> String {
    let panic = panic_at_the_end_of(world, None).await;
    panic.downcast_ref::<String>().cloned().expect("a panic with words")
}

async fn panic_at_the_end_of(world: World, running: Option<Watchbook>) -> Box<dyn Any + Send> {
    let tasks = LocalSet::new();
    let ended = tasks.run_until(async { spawn_local(world.finish(running)).await }).await;
    ended.expect_err("the harness notices").into_panic()
}

#[tokio::test]
async fn a_message_without_an_outcome_is_noticed() {
    let world = world().start().await;
    world.publish(Kind::Events, &event(0)).await;
    let words = failure_at_the_end_of(world).await;
    assert!(words.contains("left over in events"), "{words}");
}

#[tokio::test]
async fn a_row_that_nobody_counted_is_noticed() {
    let world = world().start().await;
    world.execute("INSERT INTO watchbook.outcome_minutes VALUES ('events', now(), '_', 0, 1, 0)").await;
    let words = failure_at_the_end_of(world).await;
    assert!(words.contains("the roll-ups do not count 0 rows"), "{words}");
}

#[tokio::test]
async fn a_consumer_that_nobody_needs_is_noticed() {
    let world = world().start().await;
    let stream = world.jetstream().get_stream(world.stream(Kind::Logs)).await.unwrap();
    stream.create_consumer(pull::Config::default()).await.unwrap();
    let words = failure_at_the_end_of(world).await;
    assert!(words.contains("1 consumers of logs are left over"), "{words}");
}

#[tokio::test]
async fn a_process_that_ended_badly_is_noticed() {
    let world = world().start().await;
    let mut worker = world.workers("events").await;
    worker.kill().await;
    // The test killed it itself, so only the end of its sessions is awaited.
    world.finish([worker]).await;

    let world = crate::world().without_setup().start().await;
    let worker = world.spawn("events");
    worker.logged("run `watchbook setup`").await;
    panic_at_the_end_of(world, Some(worker)).await;
}
