//! The retention worker and its schedule: missed and failed runs, the lease, and what it reports about itself.

use chrono::{Datelike, TimeDelta, Utc};
use harness::{Watchbook, World, eventually};
use records::Kind;
use serde_json::Value;

use super::fixtures::{audited, day, fill, rows, run_until, settings, state, world_with};

/// Once a year, so that only the tests cause runs.
const YEARLY: (&str, &str) = ("WATCHBOOK_RETENTION__SCHEDULE", "0 0 1 1 *");

async fn gone(world: &World, ago: u64) {
    eventually("the day is gone", async || {
        let found = state(world, "events", day(ago)).await;
        if found.is_none() { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

/// Waits for `count` runs that have ended. Returns cause, outcome and rows, oldest first.
async fn runs(world: &World, count: usize) -> Vec<(String, String, i64)> {
    let sql = "SELECT cause, outcome, coalesce((SELECT sum(rows) FROM watchbook.retention_actions WHERE run_id = run.id), 0)::bigint
           FROM watchbook.retention_runs AS run WHERE ended_at IS NOT NULL ORDER BY started_at";
    eventually(&format!("{count} runs have ended"), async || {
        let found = world.query_all(sql).await;
        if found.len() == count { Ok(found) } else { Err(format!("{found:?}")) }
    })
    .await
}

fn run(cause: &str, outcome: &str, rows: i64) -> (String, String, i64) {
    (cause.to_owned(), outcome.to_owned(), rows)
}

/// Waits until one of these workers is active and all others are standbys. Returns its index.
async fn acting(workers: &[&Watchbook]) -> usize {
    eventually("one acts and the others stand by", async || {
        let mut states = Vec::new();
        for worker in workers {
            let report: Value = serde_json::from_str(&worker.get("/readyz").await.body).unwrap();
            states.push(report["parts"]["retention"]["state"].as_str().unwrap_or_default().to_owned());
        }
        let is_clear = states.iter().filter(|state| *state == "standby").count() == workers.len() - 1;
        states.iter().position(|state| state == "active").filter(|_| is_clear).ok_or(format!("{states:?}"))
    })
    .await
}

#[tokio::test]
async fn a_time_that_was_missed_is_made_up_for_by_one_of_two() {
    let world = world_with(&[YEARLY]).await;
    fill(&world, "events", day(40), 30).await;
    fill(&world, "events", day(20), 30).await;
    let mut workers = vec![world.spawn("retention,audit"), world.spawn("retention,audit")];
    gone(&world, 40).await;
    assert_eq!(rows(&world, "events", day(20)).await, 30);
    assert_eq!(runs(&world, 1).await, [run("missed", "done", 30)]);
    let (year,): (String,) = world
        .query_one("SELECT to_char(scheduled_for AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') FROM watchbook.retention_runs")
        .await;
    assert_eq!(year, format!("{}-01-01 00:00:00.000000", Utc::now().year()));
    let told = audited(&world, "retention.run", 1).await;
    assert_eq!((told[0].0.as_str(), told[0].2.as_str()), ("system", "SUCCESS"));
    let acts = acting(&[&workers[0], &workers[1]]).await;
    workers[acts].kill().await;
    assert_eq!(acting(&[&workers[1 - acts]]).await, 0);
    workers[1 - acts].stop().await;
    // The scheduled time is handled: the next worker only has to finish what another one left.
    fill(&world, "events", day(41), 10).await;
    world
        .execute(
            "INSERT INTO watchbook.retention_runs (id, cause, scheduled_for, actor_id, process, outcome, planned, started_at)
             VALUES (gen_random_uuid(), 'schedule', now(), 'system', 'gone', 'running', '[]', now())",
        )
        .await;
    let third = world.workers("retention").await;
    gone(&world, 41).await;
    assert_eq!(
        runs(&world, 3).await,
        [run("missed", "done", 30), run("schedule", "interrupted", 0), run("resume", "done", 10)]
    );
    let audit = world.workers("audit").await;
    let told = audited(&world, "retention.run", 3).await;
    assert_eq!(told.iter().filter(|(_, _, status)| status == "FAILURE").count(), 1, "{told:?}");
    workers.extend([third, audit]);
    world.finish(workers).await;
}

#[tokio::test]
async fn a_run_that_was_killed_is_told_of_and_gone_on_with() {
    let world = world_with(&[YEARLY]).await;
    fill(&world, "events", day(41), 10).await;
    fill(&world, "events", day(40), 30).await;
    // The first day is dropped, and the second one is detached.
    let out = std::sync::atomic::AtomicUsize::new(0);
    let second =
        |step| step == ::retention::run::Step::Detached && out.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 1;
    assert!(run_until(&world, &settings(|_| {}), Utc::now(), second).await.is_none());
    let worker = world.workers("retention,audit").await;
    gone(&world, 40).await;
    assert_eq!(runs(&world, 2).await, [run("schedule", "interrupted", 10), run("resume", "done", 30)]);
    let told = audited(&world, "retention.run", 2).await;
    assert_eq!([told[0].2.as_str(), told[1].2.as_str()], ["FAILURE", "SUCCESS"]);
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_run_that_failed_is_tried_again_after_a_while() {
    let world = world_with(&[YEARLY, ("WATCHBOOK_RETENTION__ARCHIVE", "archive")]).await;
    let folder = world.directory().join("archive");
    std::fs::write(&folder, "in the way").unwrap();
    fill(&world, "events", day(40), 30).await;
    let mut first = world.workers("retention,audit,errors").await;
    assert_eq!(runs(&world, 1).await, [run("missed", "failed", 0)]);
    first.logged("a run of retention failed; it is tried again").await;
    audited(&world, "retention.run", 1).await;
    first.stop().await;
    std::fs::remove_file(&folder).unwrap();
    world.execute("UPDATE watchbook.retention_runs SET ended_at = ended_at - interval '10 minutes'").await;
    // A worker checks the schedule when it starts, and every minute.
    let second = world.workers("retention,audit,errors").await;
    gone(&world, 40).await;
    assert_eq!(runs(&world, 2).await, [run("missed", "failed", 0), run("retry", "done", 30)]);
    audited(&world, "retention.run", 2).await;
    world.settled(Kind::Errors).await;
    world.finish([first, second]).await;
}

#[tokio::test]
async fn partitions_that_cannot_be_made_are_told_of() {
    let world = world_with(&[YEARLY]).await;
    let tomorrow = Utc::now().date_naive() + TimeDelta::days(1);
    world
        .execute(&format!(
            "DROP TABLE watchbook.event_logs_{};
             CREATE TABLE watchbook.somebodys PARTITION OF watchbook.event_logs
                FOR VALUES FROM ('{tomorrow} 00:00:00+00') TO ('{tomorrow} 06:00:00+00')",
            tomorrow.format("%Y%m%d")
        ))
        .await;
    let mut worker = world.workers("retention,errors").await;
    let sql = "SELECT severity, message FROM watchbook.error_logs WHERE error_type = 'watchbook.partitions'";
    let told = eventually("the error is stored", async || world.try_query_one::<(String, String)>(sql).await).await;
    let named = format!("watchbook.event_logs_{}: ", tomorrow.format("%Y%m%d"));
    assert!(told.0 == "critical" && told.1.starts_with(&named) && told.1.contains("somebodys"), "{told:?}");
    let metrics = worker.get("/metrics").await.body;
    assert!(metrics.lines().any(|line| line == "watchbook_partitions_missing 1"), "{metrics}");
    worker.stop().await;
    world.execute("DROP TABLE watchbook.somebodys").await;
    let again = world.workers("retention").await;
    eventually("tomorrow is there", async || {
        let metrics = again.get("/metrics").await.body;
        let is_whole = metrics.lines().any(|line| line == "watchbook_partitions_missing 0");
        if is_whole { Ok(()) } else { Err(metrics) }
    })
    .await;
    assert_eq!(state(&world, "events", tomorrow).await, Some(store::partitions::State::Attached));
    world.finish([worker, again]).await;
}

#[tokio::test]
async fn a_day_that_is_missing_for_dead_letters_is_told_of_as_well() {
    let world = world_with(&[YEARLY]).await;
    let tomorrow = Utc::now().date_naive() + TimeDelta::days(1);
    let name = format!("watchbook.dead_letters_{}", tomorrow.format("%Y%m%d"));
    world
        .execute(&format!(
            "DROP TABLE {name};
             CREATE TABLE watchbook.somebodys PARTITION OF watchbook.dead_letters
                FOR VALUES FROM ('{tomorrow} 00:00:00+00') TO ('{tomorrow} 06:00:00+00')"
        ))
        .await;
    let worker = world.workers("retention,errors,audit").await;
    let sql = "SELECT severity, message FROM watchbook.error_logs WHERE error_type = 'watchbook.partitions'";
    let told = eventually("the error is stored", async || world.try_query_one::<(String, String)>(sql).await).await;
    assert!(told.0 == "critical" && told.1.starts_with(&name) && told.1.contains("somebodys"), "{told:?}");
    let metrics = worker.get("/metrics").await.body;
    assert!(metrics.lines().any(|line| line == "watchbook_partitions_missing 1"), "{metrics}");
    world.finish([worker]).await;
}
