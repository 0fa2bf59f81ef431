//! Several writers of one kind: one is active, the others take over, and even two at once settle nothing twice.

use chrono::{DateTime, Utc};
use harness::messages::event;
use harness::{Signal, Watchbook, World, eventually};
use records::Kind;
use sqlx::Connection;
use store::Database;
use store::positions::{self, Settlement, StreamIdentity};

use crate::world;

/// Ends the session that holds a worker's lease on events, as a network does that drops idle connections.
async fn take_lease_from(world: &World, worker: &Watchbook) {
    let lease = format!("%:{} writer {}", worker.pid(), world.stream(Kind::Events));
    let ended = world
        .count(&format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE '{lease}'"
        ))
        .await;
    assert_eq!(ended, 1, "one session holds the lease");
}

/// Waits until a lane of a worker waits for a lock of another session.
async fn blocked(world: &World, worker: &Watchbook) {
    let lane = format!("watchbook %:{} events", worker.pid());
    eventually(&format!("a lane of {} waits for a lock", worker.name()), async || {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '{lane}' AND wait_event_type = 'Lock'"
        );
        let blocked: (i64,) = world.try_query_one(&sql).await?;
        if blocked.0 > 0 { Ok(()) } else { Err("no lane waits".to_owned()) }
    })
    .await;
}

#[tokio::test]
async fn one_writes_and_the_other_takes_over_when_it_is_killed() {
    let world = world().start().await;
    let mut first = world.workers("all").await;
    first.writes(Kind::Events).await;
    let second = world.workers("all").await;
    second.reports_ready(200, "standby").await;
    world.publish_records(Kind::Events, 0..100).await;
    world.settled(Kind::Events).await;
    let load = world.load(Kind::Events, 100..1_500);
    first.kill().await;
    for &kind in Kind::ALL {
        second.writes(kind).await;
    }
    load.acknowledged().await;
    world.settled_as(Kind::Events, [1_500, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, 1_500).await;
    world.finish([first, second]).await;
}

#[tokio::test]
async fn the_other_takes_over_when_one_is_stopped_and_when_it_comes_back() {
    let world = world().start().await;
    let mut first = world.workers("events").await;
    first.writes(Kind::Events).await;
    let mut second = world.workers("events").await;
    let load = world.load(Kind::Events, 0..2_000);
    first.stop().await;
    second.writes(Kind::Events).await;
    let third = world.workers("events").await;
    second.stop().await;
    third.writes(Kind::Events).await;
    load.acknowledged().await;
    world.settled_as(Kind::Events, [2_000, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, 2_000).await;
    world.finish([first, second, third]).await;
}

#[tokio::test]
async fn status_names_the_process_that_writes() {
    let world = world().start().await;
    let nobody = world.run(&["status", "--json"]).await.json();
    assert!(nobody.as_array().unwrap().iter().all(|kind| kind["writer"].is_null()), "{nobody}");
    let first = world.workers("events").await;
    first.writes(Kind::Events).await;
    let second = world.workers("events,logs").await;
    second.writes(Kind::Logs).await;
    let status = world.run(&["status", "--json"]).await.succeeded().json();
    for kind in status.as_array().unwrap() {
        let writer = kind["writer"].as_str();
        let expected = match kind["kind"].as_str().unwrap() {
            "events" => Some(first.pid()),
            "logs" => Some(second.pid()),
            _ => None,
        };
        let pid = writer.map(|writer| writer.rsplit_once(':').unwrap().1.parse::<u32>().unwrap());
        assert_eq!(pid, expected, "{kind}");
    }
    world.finish([first, second]).await;
}

/// Both workers have read and copied the same batch when the first one commits: the guard decides, not the lease.
#[tokio::test]
async fn two_that_write_the_same_batch_at_once_settle_it_once() {
    let world = world().start().await;
    let first = world.workers("events").await;
    first.writes(Kind::Events).await;
    let second = world.workers("events").await;
    second.reports_ready(200, "standby").await;

    // Every transaction that settles waits for this one.
    let mut gate = sqlx::PgConnection::connect(world.database_url()).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT FROM watchbook.positions FOR UPDATE").execute(&mut gate).await.unwrap();
    world.publish_records(Kind::Events, 0..20).await;
    blocked(&world, &first).await;
    take_lease_from(&world, &first).await;
    second.writes(Kind::Events).await;
    blocked(&world, &second).await;
    gate.close().await.unwrap();

    world.settled_as(Kind::Events, [20, 0, 0, 0]).await;
    second.logged("another writer settled a part of the batch").await;
    first.logged("the lease is lost").await;
    world.publish_records(Kind::Events, 20..40).await;
    world.settled_as(Kind::Events, [40, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, 40).await;
    world.finish([first, second]).await;
}

#[tokio::test]
async fn a_writer_that_stood_still_while_it_was_replaced_does_no_harm() {
    let world = world().with("WATCHBOOK_WRITER__BATCH_ROWS", 50).start().await;
    let first = world.workers("events").await;
    first.writes(Kind::Events).await;
    let second = world.workers("events").await;
    let load = world.load(Kind::Events, 0..3_000);
    world.account_where(Kind::Events, "the first writer is under way", |account| account.stored > 0).await;
    first.signal(Signal::Stop).await;
    take_lease_from(&world, &first).await;
    second.writes(Kind::Events).await;
    first.signal(Signal::Continue).await;
    load.acknowledged().await;
    first.logged("the lease is lost").await;
    world.settled_as(Kind::Events, [3_000, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, 3_000).await;
    // It may become the writer again once the other one ends.
    let mut second = second;
    second.stop().await;
    first.writes(Kind::Events).await;
    world.publish_all(Kind::Events, [event(3_000)]).await;
    world.settled_as(Kind::Events, [3_001, 0, 0, 0]).await;
    world.finish([first, second]).await;
}

#[tokio::test]
async fn of_many_who_settle_overlapping_ranges_each_sequence_has_one() {
    let world = world().start().await;
    let database = Database::new(world.database_url(), "test").unwrap();
    let stream = StreamIdentity { name: "RACE".to_owned(), created_at: DateTime::<Utc>::UNIX_EPOCH };
    let mut connection = database.connect("race").await.unwrap();
    positions::load(&mut connection, &stream, Kind::Events).await.unwrap();
    let racers: Vec<_> = (0..8_u64)
        .map(|racer| {
            let (database, stream) = (database.clone(), stream.clone());
            tokio::spawn(async move {
                let mut connection = database.connect("race").await.unwrap();
                let mut settled = 0;
                for turn in 0..40 {
                    // All racers want ranges of different lengths within the same hundred sequences.
                    let first = 1 + turn * 100 + (racer * 7) % 10 * 10;
                    let last = first + 4 + racer * 3;
                    let settlement = Settlement { first, last, stored: last - first + 1, ..Settlement::default() };
                    let mut transaction = connection.begin().await.unwrap();
                    if positions::settle(&mut transaction, &stream, &settlement).await.unwrap() {
                        transaction.commit().await.unwrap();
                        settled += last - first + 1;
                    } else {
                        transaction.rollback().await.unwrap();
                    }
                }
                settled
            })
        })
        .collect();
    let mut accepted = 0;
    for racer in racers {
        accepted += racer.await.unwrap();
    }
    let account = positions::find(&mut connection, &stream.name).await.unwrap().unwrap();
    assert_eq!((account.stored, account.position.settled_count()), (accepted, accepted));
    assert!(accepted > 0);

    let another = StreamIdentity { created_at: Utc::now(), ..stream };
    let settlement = Settlement { first: 100_000, last: 100_000, stored: 1, ..Settlement::default() };
    assert!(!positions::settle(&mut connection, &another, &settlement).await.unwrap(), "of a stream made anew");
    connection.close().await.unwrap();
    world.finish([]).await;
}
