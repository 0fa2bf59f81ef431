//! Outages of Postgres of every kind: they cause a pause, and never a dead letter or a lost record.

use harness::{Signal, eventually};
use records::Kind;
use sqlx::Connection;

use crate::world;

#[tokio::test]
async fn a_restart_under_load_is_a_pause() {
    let world = world().own_postgres().with("WATCHBOOK_WRITER__BATCH_ROWS", 100).start().await;
    let worker = world.workers("events").await;
    let load = world.load(Kind::Events, 0..4_000);
    world.account_where(Kind::Events, "the worker is under way", |account| account.stored > 200).await;
    world.postgres().restart().await.unwrap();
    world.account_where(Kind::Events, "it goes on", |account| account.stored > 1_000).await;
    world.postgres().kill().await.unwrap();
    world.postgres().restart().await.unwrap();
    load.acknowledged().await;
    world.settled_as(Kind::Events, [4_000, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, 4_000).await;
    worker.ready().await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn what_comes_while_it_is_away_for_long_is_stored_when_it_is_back() {
    let world = world().own_postgres().start().await;
    let worker = world.workers("all").await;
    for &kind in Kind::ALL {
        world.publish_records(kind, 0..20).await;
    }
    for &kind in Kind::ALL {
        world.settled(kind).await;
    }
    world.postgres().stop().await.unwrap();
    for &kind in Kind::ALL {
        world.publish_records(kind, 20..300).await;
    }
    // Every worker reports the outage, and has tried more than once.
    for &kind in Kind::ALL {
        worker.reports_ready(503, &format!("\"{kind}\":{{\"ready\":false,\"state\":\"failing\"")).await;
    }
    assert_eq!(worker.get("/healthz").await.status, 200, "the process lives, and restarting it would not help");
    world.postgres().restart().await.unwrap();
    for &kind in Kind::ALL {
        world.settled_as(kind, [300, 0, 0, 0]).await;
        world.holds_exactly(kind, 300).await;
    }
    worker.ready().await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_worker_that_starts_again_while_it_is_away_says_what_to_mend_and_loses_nothing() {
    let world = world().own_postgres().start().await;
    let mut first = world.workers("events").await;
    world.publish_records(Kind::Events, 0..100).await;
    world.settled(Kind::Events).await;
    world.postgres().stop().await.unwrap();
    world.publish_records(Kind::Events, 100..200).await;
    first.kill().await;
    world.run(&["run", "--workers", "events"]).await.ended_with(1).prints("is it running").prints("DATABASE_URL");
    world.postgres().restart().await.unwrap();
    let second = world.workers("events").await;
    world.settled_as(Kind::Events, [200, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, 200).await;
    world.finish([first, second]).await;
}

/// After a fail-over, an old address can lead to a read-only server. That is an outage (25006), not an error of a row.
#[tokio::test]
async fn a_fail_over_to_a_read_only_server_is_a_pause() {
    let world = world().own_postgres().start().await;
    let worker = world.workers("events").await;
    world.publish_records(Kind::Events, 0..50).await;
    world.settled(Kind::Events).await;
    world.execute("ALTER SYSTEM SET default_transaction_read_only = on").await;
    world.execute("SELECT pg_reload_conf()").await;
    let read_only = async || {
        let setting: (String,) = world.try_query_one("SHOW default_transaction_read_only").await?;
        if setting.0 == "on" { Ok(()) } else { Err(setting.0) }
    };
    eventually("the server only reads", read_only).await;
    world.publish_records(Kind::Events, 50..250).await;
    worker.reports_ready(503, "read-only transaction").await;
    let account = world.account(Kind::Events).await;
    assert_eq!((account.stored, account.dead_letters, account.letters), (50, 0, 0), "{account:?}");
    let mut administrator = sqlx::PgConnection::connect(world.database_url()).await.unwrap();
    for statement in [
        "SET default_transaction_read_only = off",
        "ALTER SYSTEM RESET default_transaction_read_only",
        "SELECT pg_reload_conf()",
    ] {
        sqlx::raw_sql(statement).execute(&mut administrator).await.unwrap();
    }
    world.settled_as(Kind::Events, [250, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, 250).await;
    worker.ready().await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_link_that_is_cut_again_and_again_is_a_pause() {
    let world = world().proxies().with("WATCHBOOK_WRITER__BATCH_ROWS", 50).start().await;
    let worker = world.workers("events").await;
    let load = world.load(Kind::Events, 0..3_000);
    for round in 1..=3_u64 {
        let enough = |account: &harness::Account| account.stored >= round * 300;
        world.account_where(Kind::Events, "the worker is under way", enough).await;
        world.postgres_link().cut();
        worker.reports_ready(503, "Postgres").await;
        world.postgres_link().restore();
    }
    load.acknowledged().await;
    world.settled_as(Kind::Events, [3_000, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, 3_000).await;
    worker.ready().await;
    world.readers_were_broken(3);
    world.finish([worker]).await;
}

/// A network that drops everything, and a server that has forgotten the sessions when it is back.
#[tokio::test]
async fn a_link_that_swallows_everything_does_not_hold_a_worker_for_ever() {
    let world = world().proxies().with("WATCHBOOK_WRITER__BATCH_ROWS", 50).start().await;
    let worker = world.workers("events").await;
    let load = world.load(Kind::Events, 0..2_000);
    world.account_where(Kind::Events, "the worker is under way", |account| account.stored > 300).await;
    world.postgres_link().freeze();
    world
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
              WHERE datname = current_database() AND application_name LIKE 'watchbook %'",
        )
        .await;
    // The other worker's link is not broken, and it takes over.
    let direct = world.database_url().to_owned();
    let other = world.spawn_with("events", &[("DATABASE_URL", &direct)]);
    other.writes(Kind::Events).await;
    load.acknowledged().await;
    world.settled_as(Kind::Events, [2_000, 0, 0, 0]).await;
    worker.reports_ready(503, "Postgres").await;
    world.postgres_link().restore();
    worker.reports_ready(200, "standby").await;
    world.readers_were_broken(1);
    world.holds_exactly(Kind::Events, 2_000).await;
    world.finish([worker, other]).await;
}

#[tokio::test]
async fn sessions_that_an_administrator_ends_are_a_pause() {
    let world = world().own_postgres().start().await;
    let worker = world.workers("events").await;
    world.publish_records(Kind::Events, 0..10).await;
    world.settled(Kind::Events).await;
    // While the workers are busy.
    let load = world.load(Kind::Events, 10..1_500);
    for _ in 0..5 {
        let before = world.account(Kind::Events).await.stored;
        world
            .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'watchbook % events'")
            .await;
        world.account_where(Kind::Events, "it goes on", |account| account.stored > before || account.is_quiet()).await;
    }
    load.acknowledged().await;
    world.settled_as(Kind::Events, [1_500, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, 1_500).await;
    world.finish([worker]).await;
}

/// Any error that is not known to be caused by a row is waited out, although Postgres accepts dead letters all the
/// time.
#[tokio::test]
async fn a_table_that_is_not_there_is_an_outage_and_no_dead_letter() {
    let world = world().start().await;
    let worker = world.workers("events").await;
    world.publish_records(Kind::Events, 0..10).await;
    world.settled(Kind::Events).await;
    world.execute("ALTER TABLE watchbook.event_logs RENAME TO hidden").await;
    world.publish_records(Kind::Events, 10..50).await;
    worker.reports_ready(503, "cannot commit batches to Postgres").await;
    let letters = world.count("SELECT count(*) FROM watchbook.dead_letters").await;
    world.execute("ALTER TABLE watchbook.hidden RENAME TO event_logs").await;
    assert_eq!(letters, 0);
    world.settled_as(Kind::Events, [50, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, 50).await;
    worker.ready().await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_worker_stops_in_time_although_postgres_is_away() {
    let world = world().proxies().start().await;
    let mut worker = world.workers("events").await;
    world.postgres_link().cut();
    world.publish_records(Kind::Events, 0..100).await;
    worker.reports_ready(503, "Postgres").await;
    worker.signal(Signal::Terminate).await;
    worker.ended().await;
    world.postgres_link().restore();
    let other = world.workers("events").await;
    world.settled_as(Kind::Events, [100, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, 100).await;
    world.finish([worker, other]).await;
}
