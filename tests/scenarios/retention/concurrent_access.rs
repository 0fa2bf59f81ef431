//! Concurrent access: writers with late records, and readers with long transactions.

use ::retention::run::Step;
use chrono::{TimeDelta, Utc};
use harness::messages::{event, event_with, time};
use harness::{World, eventually};
use records::Kind;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use store::partitions::State;

use super::fixtures::{
    content_where, day, fill, make_plan, midnight, rows, run_of, run_until, settings, state, world_with,
};

/// With this setting, records as old as those of these tests are accepted.
const LONG: [(&str, &str); 1] = [("WATCHBOOK_RETENTION__KEEP__EVENTS", "365d")];

/// Returns a session that has read events in an open transaction.
async fn open_reader(world: &World) -> PgConnection {
    let mut reader = super::fixtures::connect(world).await;
    sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM watchbook.event_logs")
        .execute(&mut reader)
        .await
        .unwrap();
    reader
}

async fn stands(world: &World, expected: State) {
    eventually(&format!("the day is {expected:?}"), async || {
        let found = state(world, "events", day(40)).await;
        if found == Some(expected) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

pub(super) async fn no_session_of_runs(world: &World) {
    eventually("the server notices that the run is gone", async || {
        let left = world.count("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'watchbook tests%'").await;
        if left == 0 { Ok(()) } else { Err(left.to_string()) }
    })
    .await;
}

/// A record for a day that is being dropped is stored, and the day is reattached with all its records.
async fn a_late_record_brings_the_day_back(world: World) {
    let before = content_where(&world, "events", day(39), "true").await;
    let worker = world.spawn_with("events", &LONG);
    worker.ready().await;
    let happened_at = midnight(day(40)) + TimeDelta::hours(13);
    world.publish(Kind::Events, &event_with(0, json!({ "created_at": time(happened_at) }))).await;
    world.settled_as(Kind::Events, [1, 0, 0, 0]).await;
    assert_eq!(rows(&world, "events", day(40)).await, 31);
    assert_eq!(state(&world, "events", day(40)).await, Some(State::Attached));
    assert_eq!(content_where(&world, "events", day(39), "true").await, before);
    // The record is dropped with the day, once it is counted.
    run_of(&world).await;
    assert_eq!(state(&world, "events", day(40)).await, None);
    let audit = world.workers("audit").await;
    super::fixtures::audited(&world, "retention.run", 2).await;
    world.finish([worker, audit]).await;
}

#[tokio::test]
async fn a_late_record_is_stored_though_a_killed_run_had_taken_its_day_out() {
    let world = world_with(&[]).await;
    fill(&world, "events", day(40), 30).await;
    fill(&world, "events", day(20), 30).await;
    let killed = run_until(&world, &settings(|_| {}), Utc::now(), |step| step == Step::Detached).await;
    assert!(killed.is_none());
    assert_eq!(
        (rows(&world, "events", day(40)).await, state(&world, "events", day(40)).await),
        (0, Some(State::Detached))
    );
    no_session_of_runs(&world).await;
    a_late_record_brings_the_day_back(world).await;
}

#[tokio::test]
async fn a_late_record_is_stored_though_a_killed_run_was_taking_its_day_out() {
    let world = world_with(&[]).await;
    fill(&world, "events", day(40), 30).await;
    let reader = open_reader(&world).await;
    let settings = settings(|_| {});
    {
        let run = Box::pin(run_until(&world, &settings, Utc::now(), |_| false));
        tokio::select! {
            ended = run => panic!("it ended while somebody read: {ended:?}"),
            () = stands(&world, State::Detaching) => {}
        }
    }
    no_session_of_runs(&world).await;
    assert_eq!(state(&world, "events", day(40)).await, Some(State::Detaching));
    reader.close().await.unwrap();
    a_late_record_brings_the_day_back(world).await;
}

#[tokio::test]
async fn a_plan_counts_a_day_that_was_taken_out_and_a_run_puts_back_what_it_leaves() {
    let world = world_with(&[]).await;
    fill(&world, "events", day(40), 30).await;
    let settings = settings(|_| {});
    assert!(run_until(&world, &settings, Utc::now(), |step| step == Step::Detached).await.is_none());
    let plan = make_plan(&world, &settings, Utc::now()).await;
    assert_eq!(plan.items[0].rows, 30);
    assert!(plan.items[0].why.ends_with("taken out by a run that did not end"), "{plan:?}");
    // With other settings, the day is not expired any more.
    world.run_with(&["retention", "run"], &LONG, "").await.succeeded().prints("No records have expired");
    assert_eq!(
        (rows(&world, "events", day(40)).await, state(&world, "events", day(40)).await),
        (30, Some(State::Attached))
    );
    let worker = world.workers("audit").await;
    super::fixtures::audited(&world, "retention.run", 2).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_reader_that_takes_its_time_holds_up_the_day_and_no_writer() {
    let world = world_with(&[]).await;
    fill(&world, "events", day(40), 30).await;
    let worker = world.workers("events,audit").await;
    world.publish(Kind::Events, &event(0)).await;
    world.settled_as(Kind::Events, [1, 0, 0, 0]).await;
    let reader = open_reader(&world).await;
    let mut run = world.spawn_command(&["retention", "run", "--json"], &[]);
    stands(&world, State::Detaching).await;
    world.publish_records(Kind::Events, 1..50).await;
    world.settled_as(Kind::Events, [50, 0, 0, 0]).await;
    // The run only waits for the reader.
    assert_eq!(state(&world, "events", day(40)).await, Some(State::Detaching));
    assert!(run.output().is_empty(), "{}", run.output());
    reader.close().await.unwrap();
    assert!(run.ended().await.success(), "{}{}", run.output(), run.log());
    assert_eq!(state(&world, "events", day(40)).await, None);
    assert_eq!(world.count("SELECT count(*) FROM watchbook.event_logs").await, 50);
    super::fixtures::audited(&world, "retention.run", 1).await;
    world.finish([worker, run]).await;
}
