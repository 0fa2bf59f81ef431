//! Contention: long readers, late writers, a table that was detached by hand, and locks.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::retention::plan::Item;
use ::retention::run::{Step, no_observer};
use chrono::{NaiveDate, Utc};
use futures::future::BoxFuture;
use harness::messages::event;
use harness::{World, eventually};
use records::Kind;
use sqlx::{Connection, PgConnection};
use store::partitions::{Partition, State};
use tokio::sync::Notify;

use super::concurrent_access::no_session_of_runs;
use super::fixtures::{
    audited, bare_world, connect, content_where, dataset, day, execute, fill, make_plan, outline, plan_of, rows,
    run_of, run_until, settings, state, world_with,
};
use super::kills;

/// Returns a session that has run `sql` in an open transaction.
async fn idle(world: &World, sql: &str) -> PgConnection {
    let mut reader = connect(world).await;
    sqlx::raw_sql(&format!("BEGIN ISOLATION LEVEL REPEATABLE READ; {sql}")).execute(&mut reader).await.unwrap();
    reader
}

async fn stands(world: &World, of: &str, day: NaiveDate, expected: Option<State>) {
    eventually(&format!("{of} of {day} is {expected:?}"), async || {
        let found = state(world, of, day).await;
        if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

/// Counts the held rows again and again.
async fn looks(world: &World, held: i64) -> Infallible {
    let mut connection = connect(world).await;
    loop {
        let sql = "SELECT count(*) FROM watchbook.event_logs WHERE organization_id = 'acme'";
        let (found,): (i64,) = sqlx::query_as(sql).fetch_one(&mut connection).await.unwrap();
        assert_eq!(found, held, "held rows are out of sight");
    }
}

#[tokio::test]
async fn what_is_held_is_never_out_of_sight_while_its_day_is_rewritten() {
    let world = bare_world().await;
    for ago in [42, 41, 40] {
        fill(&world, "events", day(ago), 900).await;
    }
    kills::hold(&world, Some("acme"), None).await;
    let before = content_where(&world, "events", day(40), "organization_id = 'acme'").await;
    // One session has not read the table, and stays. Another one reads it, and ends after a while.
    let stays = idle(&world, "SELECT count(*) FROM watchbook.holds").await;
    let reads = idle(&world, "SELECT count(*) FROM watchbook.event_logs").await;
    let settings = settings(|_| {});
    let plan = make_plan(&world, &settings, Utc::now()).await;
    let counted = Arc::new(Notify::new());
    let observer = |step: Step, item: &Item| {
        if step == Step::Counted {
            counted.notify_one();
        }
        no_observer(step, item)
    };
    let work = async {
        let goes = async {
            counted.notified().await;
            reads.close().await.unwrap();
        };
        tokio::join!(execute(&world, &settings, &plan, &observer), goes).0
    };
    let report = tokio::select! {
        never = looks(&world, 900) => match never {},
        report = work => report,
    };
    assert!(report.done && report.items.len() == 3, "{report:?}");
    for ago in [42, 41, 40] {
        assert_eq!(rows(&world, "events", day(ago)).await, 300);
        assert_eq!(state(&world, "events", day(ago)).await, Some(State::Attached));
    }
    assert_eq!(content_where(&world, "events", day(40), "true").await, before);
    stays.close().await.unwrap();
    world.finish([]).await;
}

#[tokio::test]
async fn who_writes_into_a_day_that_is_frozen_is_not_kept_waiting_and_loses_nothing() {
    let world = bare_world().await;
    fill(&world, "events", day(40), 30).await;
    kills::hold(&world, Some("acme"), None).await;
    let settings = settings(|_| {});
    let plan = make_plan(&world, &settings, Utc::now()).await;
    let late = format!(
        "INSERT INTO watchbook.event_logs (event_type, payload, actor_type, id, created_at, received_at, attributes)
         VALUES ('late', '{{}}', 'user', gen_random_uuid(), '{} 12:00:00+00', now(), '{{}}')",
        day(40)
    );
    let (frozen, goes_on, heard) = (Arc::new(Notify::new()), Arc::new(Notify::new()), AtomicUsize::new(0));
    let observer = |step: Step, item: &Item| -> BoxFuture<'static, ()> {
        if step != Step::Counted || heard.fetch_add(1, Ordering::Relaxed) > 0 {
            return no_observer(step, item);
        }
        let (frozen, goes_on) = (frozen.clone(), goes_on.clone());
        Box::pin(async move {
            frozen.notify_one();
            goes_on.notified().await;
        })
    };
    let writes = async {
        frozen.notified().await;
        // Only the run itself may resolve the deadlock.
        let mut writer = connect(&world).await;
        sqlx::raw_sql("SET deadlock_timeout = '10min'").execute(&mut writer).await.unwrap();
        let written = sqlx::raw_sql(&late).execute(&mut writer);
        let waits = async {
            eventually("the writer waits for the day", async || {
                let sql = "SELECT count(*) FROM pg_locks JOIN pg_database ON database = pg_database.oid
                    WHERE NOT granted AND locktype = 'relation' AND datname = current_database()";
                let waiting = world.count(sql).await;
                if waiting == 1 { Ok(()) } else { Err(waiting.to_string()) }
            })
            .await;
            goes_on.notify_one();
        };
        let (written, ()) = tokio::join!(written, waits);
        writer.close().await.unwrap();
        written.unwrap().rows_affected()
    };
    let both = async { tokio::join!(execute(&world, &settings, &plan, &observer), writes) };
    let both = tokio::time::timeout(harness::BOUND, both).await;
    let (report, written) = both.expect("neither waits for the other");
    assert_eq!(written, 1);
    // Either the day has changed, or its copy contains the record.
    let late_rows = world.count("SELECT count(*) FROM watchbook.event_logs WHERE event_type = 'late'").await;
    assert_eq!((late_rows, rows(&world, "events", day(40)).await), (1, if report.done { 11 } else { 31 }));
    world.finish([]).await;
}

#[tokio::test]
async fn a_day_that_is_on_its_way_out_holds_up_no_older_one_and_no_other_kind() {
    let world = world_with(&[]).await;
    fill(&world, "executions", day(100), 30).await;
    let reader = idle(&world, "SELECT count(*) FROM watchbook.sandbox_execution_logs").await;
    let settings = settings(|_| {});
    {
        let run = Box::pin(run_until(&world, &settings, Utc::now(), |_| false));
        tokio::select! {
            ended = run => panic!("it ended while somebody read: {ended:?}"),
            () = stands(&world, "executions", day(100), Some(State::Detaching)) => {}
        }
    }
    no_session_of_runs(&world).await;
    fill(&world, "executions", day(101), 30).await;
    for (kind, ago) in [("events", 40), ("errors", 100), ("dead_letters", 100)] {
        fill(&world, kind, day(ago), 30).await;
    }
    let mut run = world.spawn_command(&["retention", "run", "--json"], &[]);
    stands(&world, "events", day(40), None).await;
    stands(&world, "errors", day(100), None).await;
    assert_eq!(state(&world, "executions", day(100)).await, Some(State::Detaching));
    reader.close().await.unwrap();
    assert!(run.ended().await.success(), "{}{}", run.output(), run.log());
    for (kind, ago) in [("executions", 101), ("executions", 100), ("dead_letters", 100)] {
        assert_eq!((rows(&world, kind, day(ago)).await, state(&world, kind, day(ago)).await), (0, None), "{kind}");
    }
    let worker = world.workers("audit").await;
    audited(&world, "retention.run", 2).await;
    world.finish([worker, run]).await;
}

#[tokio::test]
async fn a_table_that_somebody_took_out_by_himself_is_left_alone() {
    let world = world_with(&[]).await;
    for (kind, ago) in [("events", 40), ("events", 41), ("metrics", 40)] {
        fill(&world, kind, day(ago), 30).await;
    }
    let name = |kind: &str| Partition::starting(dataset(kind), day(40)).name();
    for kind in ["events", "metrics"] {
        let (table, name) = (dataset(kind).table(), name(kind));
        world.execute(&format!("ALTER TABLE {table} DETACH PARTITION {name}")).await;
    }
    // A comment on the table that Watchbook did not write.
    world.execute(&format!("COMMENT ON TABLE {} IS 'taken out by ann'", name("metrics"))).await;
    let plan = plan_of(&world).await;
    assert_eq!(outline(&plan), [("events".to_owned(), day(41).to_string(), 30, "drop".to_owned())]);
    run_of(&world).await;
    // Once more without work: what a run repairs is not part of this test.
    run_of(&world).await;
    for kind in ["events", "metrics"] {
        assert_eq!(world.count(&format!("SELECT count(*) FROM {}", name(kind))).await, 30, "{kind}");
        assert_eq!(rows(&world, kind, day(40)).await, 0, "{kind}");
        let inherits = format!("SELECT count(*) FROM pg_inherits WHERE inhrelid = to_regclass('{}')", name(kind));
        assert_eq!(world.count(&inherits).await, 0, "{kind}");
    }
    assert_eq!(world.count("SELECT count(*) FROM watchbook.container_metric_hours").await, 0);
    let worker = world.workers("audit").await;
    audited(&world, "retention.run", 2).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_writer_does_not_wait_for_who_makes_partitions_where_there_is_one() {
    let world = world_with(&[]).await;
    let mut maker = connect(&world).await;
    for table in ["watchbook.event_logs", "watchbook.dead_letters"] {
        sqlx::query("SELECT pg_advisory_lock(hashtextextended('watchbook partitions of ' || $1, 0))")
            .bind(table)
            .execute(&mut maker)
            .await
            .unwrap();
    }
    let worker = world.workers("events").await;
    world.publish(Kind::Events, &event(0)).await;
    world.settled_as(Kind::Events, [1, 0, 0, 0]).await;
    maker.close().await.unwrap();
    world.finish([worker]).await;
}
