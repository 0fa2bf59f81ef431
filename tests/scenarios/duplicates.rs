//! The same record several times: stored once, whatever the reason.

use std::borrow::Cow;

use harness::messages::{self, MARKER, event, event_with, record};
use publisher::Publisher;
use records::{Event, Kind};
use serde_json::json;

use crate::world;

#[tokio::test]
async fn every_kind_stores_a_record_that_comes_twice_once() {
    let world = world().start().await;
    let worker = world.workers("all").await;
    for &kind in Kind::ALL {
        world.publish_all(kind, [record(kind, 0), record(kind, 0), record(kind, 1)]).await;
    }
    for &kind in Kind::ALL {
        world.settled_as(kind, [2, 1, 0, 0]).await;
        world.holds_exactly(kind, 2).await;
    }
    world.finish([worker]).await;
}

#[tokio::test]
async fn within_a_batch_the_first_one_is_kept() {
    let world = world().start().await;
    // Published before a writer reads, so that all of it is one batch.
    let second = event_with(0, json!({ "payload": { "second": true } }));
    let third = event_with(0, json!({ "payload": { "third": true } }));
    world.publish_all(Kind::Events, [event(0), second, event(1), third]).await;
    let worker = world.workers("events").await;
    world.settled_as(Kind::Events, [2, 2, 0, 0]).await;
    world.holds_exactly(Kind::Events, 2).await;
    let later = "SELECT count(*) FROM watchbook.event_logs WHERE payload ? 'second' OR payload ? 'third'";
    assert_eq!(world.count(later).await, 0);
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_batch_of_nothing_but_duplicates_is_settled() {
    let world = world().start().await;
    let worker = world.workers("events").await;
    world.publish_records(Kind::Events, 0..200).await;
    world.settled_as(Kind::Events, [200, 0, 0, 0]).await;
    world.publish_records(Kind::Events, 0..200).await;
    world.settled_as(Kind::Events, [200, 200, 0, 0]).await;
    world.holds_exactly(Kind::Events, 200).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn batches_of_parallel_lanes_share_records_without_doubling_them() {
    let world = world().with("WATCHBOOK_WRITER__LANES", 4).with("WATCHBOOK_WRITER__BATCH_ROWS", 20).start().await;
    // Each batch of twenty comes five times in a row, so that lanes conflict on the same keys, in either order.
    let bodies = (0..20_u64).flat_map(|batch| {
        (0..5).flat_map(move |turn| {
            let records = batch * 20..batch * 20 + 20;
            if turn % 2 == 0 { records.collect::<Vec<_>>() } else { records.rev().collect() }
        })
    });
    world.publish_all(Kind::Events, bodies.map(event)).await;
    let worker = world.workers("events").await;
    world.settled_as(Kind::Events, [400, 1_600, 0, 0]).await;
    world.holds_exactly(Kind::Events, 400).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn what_one_worker_stored_is_a_duplicate_for_the_next() {
    let world = world().start().await;
    let mut first = world.workers("events").await;
    world.publish_records(Kind::Events, 0..50).await;
    world.settled(Kind::Events).await;
    first.kill().await;
    world.publish_records(Kind::Events, 25..75).await;
    let second = world.workers("events").await;
    world.settled_as(Kind::Events, [75, 25, 0, 0]).await;
    world.holds_exactly(Kind::Events, 75).await;
    world.finish([first, second]).await;
}

#[tokio::test]
async fn the_same_text_as_an_id_is_two_records_in_two_organizations() {
    let world = world().start().await;
    let body = event_with(0, json!({ "id": "order-17" })).to_string();
    for organization in ["acme", "acme", "globex", "_"] {
        let subject = world.subject(Kind::Events, organization);
        world.try_publish_bytes(&subject, Default::default(), body.clone()).await.unwrap();
    }
    let worker = world.workers("events").await;
    world.settled_as(Kind::Events, [3, 1, 0, 0]).await;
    let organizations: Vec<(Option<String>,)> =
        world.query_all("SELECT organization_id FROM watchbook.event_logs ORDER BY 1").await;
    assert_eq!(organizations, [(Some("acme".to_owned()),), (Some("globex".to_owned()),), (None,)]);
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_record_without_an_identity_has_the_same_one_when_it_is_read_again() {
    let world = world().start().await;
    world.publish_all(Kind::Events, (0..10).map(|n| json!({ "event_type": "bare", "n": n, "marker": MARKER }))).await;
    let mut first = world.workers("events").await;
    world.settled_as(Kind::Events, [10, 0, 0, 0]).await;
    first.stop().await;
    // The position is lost, as after a restore from a backup: everything is read again.
    world.execute("DELETE FROM watchbook.positions").await;
    world.rows_were_dropped();
    let second = world.workers("events").await;
    world.settled_as(Kind::Events, [0, 10, 0, 0]).await;
    world.holds_exactly(Kind::Events, 10).await;
    world.finish([first, second]).await;
}

#[tokio::test]
async fn our_own_publisher_may_publish_the_same_batch_twice() {
    let world = world().start().await;
    let worker = world.workers("events").await;
    let publisher =
        Publisher::builder().prefix(world.name()).organization("acme").from_client(world.client().clone()).unwrap();
    let event = |n: usize| Event {
        event_type: Cow::Borrowed("build.finished"),
        run_id: Some(format!("run-{n}").into()),
        ..Event::default()
    };
    let batch: Vec<_> = (0..300).map(|n| publisher.prepare(&publisher.outgoing(event(n))).unwrap().message).collect();
    publisher.publish_encoded(Kind::Events, batch.clone()).await.unwrap();
    publisher.publish_encoded(Kind::Events, batch).await.unwrap();
    let receipt = publisher.publish(event(300)).await.unwrap();
    assert_eq!(receipt.sequence, 601);
    world.settled_as(Kind::Events, [301, 300, 0, 0]).await;
    let found = world.count(&format!("SELECT count(*) FROM watchbook.event_logs WHERE id = '{}'", receipt.id)).await;
    assert_eq!(found, 1);
    world.finish([worker]).await;
}

#[tokio::test]
async fn the_roll_ups_count_each_execution_once() {
    let world = world().with("WATCHBOOK_WRITER__BATCH_ROWS", 25).start().await;
    let worker = world.workers("executions").await;
    for _ in 0..3 {
        world.publish_records(Kind::Executions, 0..90).await;
    }
    world.settled_as(Kind::Executions, [90, 180, 0, 0]).await;
    // Every third record counts as failed, see `messages::record`.
    let counted: (i64, i64) = world
        .query_one(
            "SELECT sum(total)::bigint, sum(failed)::bigint FROM watchbook.outcome_minutes WHERE kind = 'executions'",
        )
        .await;
    assert_eq!(counted, (90, 30));
    let minutes = world.count("SELECT count(DISTINCT minute) FROM watchbook.outcome_minutes").await;
    assert!((1..=2).contains(&minutes), "{minutes} minutes, for records around {}", messages::base_time());
    world.finish([worker]).await;
}
