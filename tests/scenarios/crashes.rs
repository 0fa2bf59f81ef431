//! Workers that are killed at any point.

use harness::messages::{created_at, id, time};
use harness::{World, eventually};
use records::Kind;
use sqlx::Connection;

use crate::world;

/// Returns how many sequences are settled.
async fn settled(world: &World) -> i64 {
    let count =
        "SELECT coalesce(sum(stored + duplicates + dead_letters + deleted), 0)::bigint FROM watchbook.positions";
    world.count(count).await
}

#[tokio::test]
async fn ten_random_kills_lose_nothing_and_double_nothing() {
    const KILLS: u64 = 10;
    const RECORDS_A_ROUND: u64 = 800;
    let seed = std::env::var("WATCHBOOK_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("WATCHBOOK_TEST_SEED={seed} repeats this choice of moments");
    let mut chance = fastrand::Rng::with_seed(seed);
    let world = world().with("WATCHBOOK_WRITER__LANES", 3).with("WATCHBOOK_WRITER__BATCH_ROWS", 60).start().await;
    let mut killed = Vec::new();
    for round in 0..KILLS {
        let load = world.load(Kind::Events, round * RECORDS_A_ROUND..(round + 1) * RECORDS_A_ROUND);
        // At any point from the start to the last record.
        let until = settled(&world).await + chance.i64(0..RECORDS_A_ROUND as i64);
        let mut worker = world.spawn("events");
        if chance.u8(..5) > 0 {
            eventually("enough is settled to die", async || {
                let settled = settled(&world).await;
                if settled >= until { Ok(()) } else { Err(format!("{settled} of {until}")) }
            })
            .await;
        }
        worker.kill().await;
        killed.push(worker);
        load.acknowledged().await;
    }
    let total = KILLS * RECORDS_A_ROUND;
    let worker = world.workers("events").await;
    world.settled_as(Kind::Events, [total, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, total).await;
    world.finish(killed.into_iter().chain([worker])).await;
}

/// Blocks the lane that has record 0 until the transaction ends: its row is written and not yet committed.
async fn hold_record_0(world: &World) -> sqlx::PgConnection {
    let mut connection = sqlx::PgConnection::connect(world.database_url()).await.unwrap();
    sqlx::raw_sql(&format!(
        "BEGIN;
         INSERT INTO watchbook.event_logs (event_type, payload, actor_type, id, created_at, received_at, attributes)
         VALUES ('held', '{{}}', 'user', '{}', '{}', now(), '{{}}')",
        id(0),
        time(created_at(0))
    ))
    .execute(&mut connection)
    .await
    .unwrap();
    connection
}

#[tokio::test]
async fn lanes_that_overtake_each_other_leave_no_hole() {
    let world = world().with("WATCHBOOK_WRITER__LANES", 2).with("WATCHBOOK_WRITER__BATCH_ROWS", 10).start().await;
    world.publish_records(Kind::Events, 0..60).await;
    let held = hold_record_0(&world).await;
    let worker = world.workers("events").await;
    let ahead = |account: &harness::Account| account.settled == [(11, 60)];
    world.account_where(Kind::Events, "the other lane is ahead", ahead).await;
    held.close().await.unwrap();
    world.settled_as(Kind::Events, [60, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, 60).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_hole_between_lanes_is_filled_after_a_crash() {
    let world = world().with("WATCHBOOK_WRITER__LANES", 2).with("WATCHBOOK_WRITER__BATCH_ROWS", 10).start().await;
    world.publish_records(Kind::Events, 0..60).await;
    let held = hold_record_0(&world).await;
    let mut first = world.workers("events").await;
    let ahead = |account: &harness::Account| account.settled == [(11, 60)];
    world.account_where(Kind::Events, "the other lane is ahead", ahead).await;
    first.kill().await;
    world.publish_records(Kind::Events, 60..70).await;
    held.close().await.unwrap();
    let second = world.workers("events").await;
    world.settled_as(Kind::Events, [70, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, 70).await;
    world.finish([first, second]).await;
}

#[tokio::test]
async fn holes_of_several_crashes_are_filled_whatever_the_stream_still_holds() {
    let world = world().start().await;
    world.publish_records(Kind::Events, 0..100).await;
    let mut first = world.workers("events").await;
    world.settled(Kind::Events).await;
    first.kill().await;
    // As if lanes had died between ranges that others had settled: the rows of the holes are deleted.
    world
        .execute("DELETE FROM watchbook.event_logs WHERE (attributes->>'n')::int + 1 IN (1, 2, 30, 31, 32, 60, 100)")
        .await;
    world
        .execute(
            "UPDATE watchbook.positions SET stored = stored - 7,
                    settled = settled - '{[1,3), [30,33), [60,61), [100,101)}'::int8multirange",
        )
        .await;
    world.execute("UPDATE watchbook.outcome_minutes SET total = total - 7 WHERE ctid = (SELECT max(ctid) FROM watchbook.outcome_minutes)").await;
    let stream = world.jetstream().get_stream(world.stream(Kind::Events)).await.unwrap();
    // The messages of one hole are deleted, and some of another.
    stream.delete_message(60).await.unwrap();
    stream.delete_message(31).await.unwrap();
    let second = world.workers("events").await;
    world.settled_as(Kind::Events, [98, 0, 0, 2]).await;
    world.finish([first, second]).await;
}
