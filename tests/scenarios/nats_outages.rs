//! NATS stops, loses data, and comes back as another server.

use std::path::Path;

use harness::messages::event;
use harness::{World, eventually};
use records::Kind;

use crate::world;

async fn delete_stream(world: &World) {
    world.jetstream().delete_stream(world.stream(Kind::Events)).await.unwrap();
}

#[tokio::test]
async fn a_killed_server_under_load_is_a_pause() {
    let world = world().own_nats().with("WATCHBOOK_WRITER__BATCH_ROWS", 100).start().await;
    let worker = world.workers("events").await;
    let load = world.load(Kind::Events, 0..3_000);
    for round in 1..=2_u64 {
        let enough = |account: &harness::Account| account.stored > round * 300;
        world.account_where(Kind::Events, "the worker is under way", enough).await;
        world.nats().kill().await.unwrap();
        // The first outage is long enough for the worker to report it, the second one is short.
        if round == 1 {
            worker.reports_ready(503, "\"events\":{\"ready\":false").await;
        }
        world.nats().restart().await.unwrap();
    }
    load.acknowledged().await;
    // Messages that the server stored and could not acknowledge were published twice.
    let account = world.settled(Kind::Events).await;
    assert_eq!((account.stored, account.dead_letters, account.deleted), (3_000, 0, 0), "{account:?}");
    world.holds_exactly(Kind::Events, 3_000).await;
    worker.ready().await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_cut_link_is_a_pause() {
    let world = world().proxies().with("WATCHBOOK_WRITER__BATCH_ROWS", 50).start().await;
    let worker = world.workers("events").await;
    let load = world.load(Kind::Events, 0..3_000);
    for round in 1..=3_u64 {
        let enough = |account: &harness::Account| account.stored >= round * 300;
        world.account_where(Kind::Events, "the worker is under way", enough).await;
        world.nats_link().cut();
        worker.logged("the connection to NATS broke").await;
        world.nats_link().restore();
    }
    load.acknowledged().await;
    world.settled_as(Kind::Events, [3_000, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, 3_000).await;
    worker.ready().await;
    world.readers_were_broken(4);
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_link_that_swallows_everything_for_a_while_is_a_pause() {
    let world = world().proxies().with("WATCHBOOK_WRITER__BATCH_ROWS", 50).start().await;
    let worker = world.workers("events").await;
    world.publish_records(Kind::Events, 0..100).await;
    world.settled(Kind::Events).await;
    world.nats_link().freeze();
    world.publish_records(Kind::Events, 100..500).await;
    worker.logged("the server is silent").await;
    world.nats_link().restore();
    world.settled_as(Kind::Events, [500, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, 500).await;
    worker.ready().await;
    world.readers_were_broken(4);
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_consumer_that_is_taken_away_is_made_anew() {
    let world = world().start().await;
    let worker = world.workers("events").await;
    world.publish_records(Kind::Events, 0..100).await;
    world.settled(Kind::Events).await;
    let stream = world.jetstream().get_stream(world.stream(Kind::Events)).await.unwrap();
    let names: Vec<String> = {
        use futures::TryStreamExt;
        stream.consumer_names().try_collect().await.unwrap()
    };
    assert!(!names.is_empty(), "somebody reads");
    for name in names {
        stream.delete_consumer(&name).await.unwrap();
    }
    world.publish_records(Kind::Events, 100..200).await;
    world.settled_as(Kind::Events, [200, 0, 0, 0]).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_stream_that_is_deleted_and_made_anew_is_read_from_its_start() {
    let world = world().start().await;
    let worker = world.workers("events").await;
    world.publish_records(Kind::Events, 0..100).await;
    world.settled_as(Kind::Events, [100, 0, 0, 0]).await;
    delete_stream(&world).await;
    worker.reports_ready(503, "does not exist: run `watchbook setup`").await;
    world.run(&["setup"]).await.succeeded();
    world.publish_records(Kind::Events, 100..140).await;
    let account = world.settled_as(Kind::Events, [40, 0, 0, 0]).await;
    assert!(account.has_past, "what was known of the old one is kept aside");
    world.holds_exactly(Kind::Events, 140).await;
    let past: (i64, String) = world.query_one("SELECT stored, reason FROM watchbook.past_positions").await;
    assert_eq!(past, (100, "the stream was recreated".to_owned()));
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_stream_that_is_made_anew_while_nobody_looks_is_noticed() {
    let world = world().start().await;
    let mut first = world.workers("events").await;
    world.publish_records(Kind::Events, 0..60).await;
    world.settled(Kind::Events).await;
    first.stop().await;
    delete_stream(&world).await;
    world.run(&["setup"]).await.succeeded();
    // As many records as before, so that the sequences look the same.
    world.publish_records(Kind::Events, 60..120).await;
    let second = world.workers("events").await;
    world.settled_as(Kind::Events, [60, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, 120).await;
    world.finish([first, second]).await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Restarts the server with an older copy of its streams, as after a crash of the operating system.
async fn lose_the_tail(world: &World, kept: &Path) {
    world.nats().kill().await.unwrap();
    let streams = world.nats().directory().join("jetstream");
    std::fs::remove_dir_all(&streams).unwrap();
    copy(kept, &streams);
    world.nats().restart().await.unwrap();
}

async fn keep_streams(world: &World) -> std::path::PathBuf {
    world.nats().stop().await.unwrap();
    let kept = world.directory().join("kept");
    copy(&world.nats().directory().join("jetstream"), &kept);
    world.nats().restart().await.unwrap();
    kept
}

/// Sequences are assigned again to other records: `after` of them once the stream has lost 50.
async fn a_lost_tail(after: u64, while_nobody_looks: bool) {
    let world = world().own_nats().start().await;
    let mut workers = vec![world.workers("events").await];
    world.publish_records(Kind::Events, 0..100).await;
    world.settled(Kind::Events).await;
    let kept = keep_streams(&world).await;
    world.publish_records(Kind::Events, 100..120).await;
    world.publish_bytes(Kind::Events, "no JSON").await;
    world.publish(Kind::Events, &event(0)).await;
    world.publish_records(Kind::Events, 120..148).await;
    world.settled_as(Kind::Events, [148, 1, 1, 0]).await;
    if while_nobody_looks {
        workers[0].kill().await;
    }
    lose_the_tail(&world, &kept).await;
    let load = world.load(Kind::Events, 148..148 + after);
    if while_nobody_looks {
        load.acknowledged().await;
        workers.push(world.workers("events").await);
    } else {
        load.acknowledged().await;
    }
    eventually("the loss is noticed", async || {
        let noticed: (i64,) = world
            .try_query_one("SELECT count(*) FROM watchbook.past_positions WHERE reason = 'the stream was truncated'")
            .await?;
        if noticed.0 == 1 { Ok(()) } else { Err(format!("{noticed:?}")) }
    })
    .await;
    let account = world.settled(Kind::Events).await;
    assert!(account.last_sequence >= 100 + after, "{account:?}");
    // It is not known which of the lost records were duplicates, see `store::positions::rewind_truncated_stream`.
    let (records, letters) = (account.stored + account.duplicates, account.dead_letters);
    assert_eq!((records, letters), (account.last_sequence, 0), "{account:?}");
    world.holds_exactly(Kind::Events, 148 + after).await;
    world.finish(workers).await;
}

#[tokio::test]
async fn a_lost_tail_is_noticed_and_both_tails_are_stored() {
    a_lost_tail(30, false).await;
}

#[tokio::test]
async fn a_lost_tail_is_noticed_although_the_new_one_is_longer() {
    a_lost_tail(200, true).await;
}

#[tokio::test]
async fn a_lost_tail_is_noticed_although_the_new_one_is_as_long() {
    a_lost_tail(50, true).await;
}

#[tokio::test]
async fn a_deleted_message_is_counted_and_what_is_around_it_is_stored() {
    let world = world().start().await;
    world.publish_records(Kind::Events, 0..100).await;
    let stream = world.jetstream().get_stream(world.stream(Kind::Events)).await.unwrap();
    for sequence in [1, 50, 51, 98, 100] {
        stream.delete_message(sequence).await.unwrap();
    }
    let worker = world.workers("events").await;
    world.settled_as(Kind::Events, [95, 0, 0, 5]).await;
    world.publish_records(Kind::Events, 100..110).await;
    world.settled_as(Kind::Events, [105, 0, 0, 5]).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn many_scattered_gaps_are_each_counted() {
    let world = world().with("WATCHBOOK_WRITER__BATCH_ROWS", 20).start().await;
    world.publish_records(Kind::Events, 0..120).await;
    let stream = world.jetstream().get_stream(world.stream(Kind::Events)).await.unwrap();
    for sequence in (3..120).step_by(4) {
        stream.delete_message(sequence).await.unwrap();
    }
    let worker = world.workers("events").await;
    world.settled_as(Kind::Events, [90, 0, 0, 30]).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_purge_before_reading_is_counted() {
    let world = world().start().await;
    world.publish_records(Kind::Events, 0..100).await;
    let stream = world.jetstream().get_stream(world.stream(Kind::Events)).await.unwrap();
    stream.purge().sequence(41).await.unwrap();
    let mut first = world.workers("events").await;
    world.settled_as(Kind::Events, [60, 0, 0, 40]).await;
    first.stop().await;
    world.publish_records(Kind::Events, 100..150).await;
    stream.purge().await.unwrap();
    let second = world.workers("events").await;
    world.settled_as(Kind::Events, [60, 0, 0, 90]).await;
    world.publish_records(Kind::Events, 150..160).await;
    world.settled_as(Kind::Events, [70, 0, 0, 90]).await;
    world.finish([first, second]).await;
}

#[tokio::test]
async fn a_purge_while_postgres_is_away_is_counted_once() {
    let world = world().proxies().with("WATCHBOOK_WRITER__BATCH_ROWS", 10).start().await;
    let worker = world.workers("events").await;
    world.publish_records(Kind::Events, 0..20).await;
    world.settled(Kind::Events).await;
    world.postgres_link().cut();
    world.publish_records(Kind::Events, 20..500).await;
    worker.reports_ready(503, "Postgres").await;
    let stream = world.jetstream().get_stream(world.stream(Kind::Events)).await.unwrap();
    stream.purge().sequence(401).await.unwrap();
    world.postgres_link().restore();
    // The records that the worker had read before are stored; the others are lost.
    let account = world.settled(Kind::Events).await;
    assert_eq!(account.stored + account.deleted, 500, "{account:?}");
    assert!(account.stored >= 120 && account.deleted > 0, "{account:?}");
    world.readers_were_broken(1);
    world.finish([worker]).await;
}
