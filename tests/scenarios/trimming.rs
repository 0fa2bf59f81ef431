//! Trimming of streams: settled messages beyond the replay window are purged, unsettled ones never.

use std::time::{Duration, Instant};

use futures::StreamExt;
use harness::World;
use harness::messages::{event, event_with};
use records::Kind;
use serde_json::{Value, json};
use sqlx::Connection;

use crate::world;

/// Blocks every writer from settling while the connection is open.
async fn close_gate(world: &World) -> sqlx::PgConnection {
    let mut gate = sqlx::PgConnection::connect(world.database_url()).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT FROM watchbook.positions FOR UPDATE").execute(&mut gate).await.unwrap();
    gate
}

/// Waits until the housekeeping has looked up the replay window several times. It does so at most once a second, with a
/// consumer that it creates for it, and JetStream publishes an advisory for each.
async fn window_was_looked_at(world: &World, times: usize) {
    let subject = format!("$JS.EVENT.ADVISORY.CONSUMER.CREATED.{}.>", world.stream(Kind::Events));
    let mut consumers = world.client().subscribe(subject).await.unwrap();
    let looks = async {
        for _ in 0..times {
            consumers.next().await.unwrap();
        }
    };
    tokio::time::timeout(harness::BOUND, looks).await.expect("the housekeeper looks at the window");
}

#[tokio::test]
async fn settled_messages_behind_the_window_go_and_unsettled_ones_stay() {
    let world = world().with("WATCHBOOK_STREAMS__REPLAY_WINDOW", "2s").start().await;
    let worker = world.workers("events").await;
    world.publish_records(Kind::Events, 0..50).await;
    world.settled(Kind::Events).await;
    world.account_where(Kind::Events, "settled messages are purged", |account| account.messages == 0).await;

    let gate = close_gate(&world).await;
    world.publish_records(Kind::Events, 50..80).await;
    // By then the messages are far beyond the window.
    window_was_looked_at(&world, 5).await;
    let account = world.account(Kind::Events).await;
    assert_eq!((account.messages, account.settled.as_slice()), (30, &[(1, 50)][..]), "{account:?}");
    gate.close().await.unwrap();
    world.settled_as(Kind::Events, [80, 0, 0, 0]).await;
    world.account_where(Kind::Events, "they are purged in their turn", |account| account.messages == 0).await;
    world.holds_exactly(Kind::Events, 80).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn each_kind_has_a_window_of_its_own() {
    let world = world().with("WATCHBOOK_STREAMS__LOGS__REPLAY_WINDOW", "2s").start().await;
    let worker = world.workers("events,logs").await;
    world.publish_records(Kind::Events, 0..30).await;
    world.publish_records(Kind::Logs, 0..30).await;
    world.settled(Kind::Events).await;
    world.settled(Kind::Logs).await;
    world.account_where(Kind::Logs, "settled messages are purged", |account| account.messages == 0).await;
    assert_eq!(world.account(Kind::Events).await.messages, 30, "the window of events is that of all, 1 h");
    world.finish([worker]).await;
}

#[tokio::test]
async fn nothing_goes_before_its_window_ends() {
    const WINDOW: Duration = Duration::from_secs(4);
    let world = world().with("WATCHBOOK_STREAMS__REPLAY_WINDOW", "4s").start().await;
    let worker = world.workers("events").await;
    let published = Instant::now();
    world.publish_records(Kind::Events, 0..50).await;
    world.account_where(Kind::Events, "one of them is purged", |account| account.messages < 50).await;
    // However slow this machine is: younger messages may still be needed for a replay.
    assert!(published.elapsed() >= WINDOW, "purged after {:?}", published.elapsed());
    world.account_where(Kind::Events, "all of them are purged", |account| account.messages == 0).await;
    world.settled_as(Kind::Events, [50, 0, 0, 0]).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_stream_that_has_been_trimmed_is_read_on_by_the_next_worker() {
    let world = world().with("WATCHBOOK_STREAMS__REPLAY_WINDOW", "2s").start().await;
    let mut first = world.workers("events").await;
    world.publish_records(Kind::Events, 0..50).await;
    world.account_where(Kind::Events, "all is settled and purged", |a| a.is_quiet() && a.messages == 0).await;
    first.stop().await;
    world.publish_records(Kind::Events, 50..70).await;
    let second = world.workers("events").await;
    world.settled_as(Kind::Events, [70, 0, 0, 0]).await;
    world.finish([first, second]).await;
}

/// An event of about 200 kB.
fn large(n: u64) -> Value {
    event_with(n, json!({ "payload": { "text": "x".repeat(200_000) } }))
}

#[tokio::test]
async fn a_full_stream_refuses_the_publish_and_forgets_nothing() {
    let world = world().with("WATCHBOOK_STREAMS__MAX_BYTES", "16MiB").start().await;
    let mut taken = 0;
    let refusal = loop {
        match world.try_publish_all(Kind::Events, [large(taken)]).await {
            Ok(_) => taken += 1,
            Err(refusal) => break refusal,
        }
    };
    assert!(refusal.contains("maximum bytes exceeded"), "{refusal}");
    assert!((70..90).contains(&taken), "16 MiB hold {taken} of these");
    assert_eq!(world.account(Kind::Events).await.messages, taken);

    // A stream that is nearly full is trimmed before its window ends, so that there is space again.
    let worker = world.workers("events").await;
    world.settled_as(Kind::Events, [taken, 0, 0, 0]).await;
    world.publish_until_acknowledged(Kind::Events, &large(taken)).await;
    world.settled_as(Kind::Events, [taken + 1, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, taken + 1).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_crowded_stream_keeps_what_is_not_settled() {
    let world = world().with("WATCHBOOK_STREAMS__MAX_BYTES", "16MiB").start().await;
    let worker = world.workers("events").await;
    world.publish_all(Kind::Events, (0..20).map(large)).await;
    world.settled(Kind::Events).await;
    let gate = close_gate(&world).await;
    // Above three quarters of its maximum size.
    world.publish_all(Kind::Events, (20..70).map(large)).await;
    // The newest settled message stays, because it shows whether the stream was truncated.
    let trimmed = |account: &harness::Account| account.messages == 51;
    world.account_where(Kind::Events, "the settled ones are purged, and no other", trimmed).await;
    gate.close().await.unwrap();
    world.publish(Kind::Events, &event(70)).await;
    world.settled_as(Kind::Events, [71, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, 71).await;
    world.finish([worker]).await;
}
