//! Shutdown: records that were read are written, and the rest is left for the next process.

use harness::{Account, Signal, World};
use records::Kind;

use crate::world;

/// Checks the state after a clean shutdown: no hole, and an outcome for every settled sequence.
async fn is_whole(world: &World) {
    let account = world.account(Kind::Events).await;
    let settled = account.stored + account.duplicates + account.dead_letters + account.deleted;
    assert_eq!(account.settled, [(1, settled)], "{account:?}");
    account.matches_rows(Kind::Events).unwrap();
}

async fn stopped_under_load(signal: Signal, workers: &str) {
    let world = world().with("WATCHBOOK_WRITER__BATCH_ROWS", 100).start().await;
    let mut first = world.workers(workers).await;
    let load = world.load(Kind::Events, 0..5_000);
    world.account_where(Kind::Events, "the worker is under way", |account| account.stored > 500).await;
    first.signal(signal).await;
    let status = first.ended().await;
    assert_eq!(status.code(), Some(0), "{}", first.log());
    assert!(first.log().contains("stopped; what was read is settled"), "{}", first.log());
    first.stopped_quietly();
    is_whole(&world).await;
    load.acknowledged().await;
    let second = world.workers("events").await;
    world.settled_as(Kind::Events, [5_000, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, 5_000).await;
    world.finish([first, second]).await;
}

#[tokio::test]
async fn a_terminated_worker_under_load_stops_cleanly() {
    stopped_under_load(Signal::Terminate, "events").await;
}

#[tokio::test]
async fn an_interrupted_worker_under_load_stops_cleanly() {
    stopped_under_load(Signal::Interrupt, "all").await;
}

#[tokio::test]
async fn a_rolling_restart_under_load_loses_nothing() {
    let world = world().with("WATCHBOOK_WRITER__BATCH_ROWS", 50).start().await;
    let load = world.load(Kind::Events, 0..4_000);
    let mut stopped = Vec::new();
    let mut running = world.workers("events").await;
    for round in 1..=5_u64 {
        let next = world.workers("events").await;
        let enough = |account: &Account| account.stored >= round * 100;
        world.account_where(Kind::Events, "the worker is under way", enough).await;
        running.stop().await;
        stopped.push(std::mem::replace(&mut running, next));
    }
    load.acknowledged().await;
    world.settled_as(Kind::Events, [4_000, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, 4_000).await;
    world.finish(stopped.into_iter().chain([running])).await;
}

/// Postgres neither answers nor refuses. The process still ends within its budget, and reports that the shutdown was
/// not clean or leaves what it could not write.
#[tokio::test]
async fn a_worker_stops_in_time_although_postgres_is_silent() {
    let world = world().proxies().with("WATCHBOOK_WRITER__BATCH_ROWS", 50).start().await;
    let mut first = world.workers("events").await;
    let load = world.load(Kind::Events, 0..2_000);
    world.account_where(Kind::Events, "the worker is under way", |account| account.stored > 200).await;
    world.postgres_link().freeze();
    first.signal(Signal::Terminate).await;
    first.ended().await;
    world.postgres_link().restore();
    load.acknowledged().await;
    world.readers_were_broken(1);
    let second = world.workers("events").await;
    world.settled_as(Kind::Events, [2_000, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, 2_000).await;
    world.finish([first, second]).await;
}

#[tokio::test]
async fn a_worker_stops_although_nats_is_away() {
    let world = world().proxies().start().await;
    let mut first = world.workers("events").await;
    world.publish_records(Kind::Events, 0..100).await;
    world.settled(Kind::Events).await;
    world.nats_link().cut();
    first.logged("the connection to NATS broke").await;
    world.publish_records(Kind::Events, 100..200).await;
    first.signal(Signal::Terminate).await;
    first.ended().await;
    world.nats_link().restore();
    world.readers_were_broken(1);
    let second = world.workers("events").await;
    world.settled_as(Kind::Events, [200, 0, 0, 0]).await;
    world.finish([first, second]).await;
}
