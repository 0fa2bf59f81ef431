//! `up --demo`: seven days of history are stored once it is ready, and only once.

use std::collections::BTreeSet;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use harness::{Signal, Watchbook, World, eventually, http};
use serde_json::Value;
use sqlx::{Connection, PgConnection};

use crate::world;

/// Starts `watchbook up --demo` and waits until it is ready. Returns it with its URL, token and database.
async fn demo(world: &World, data: &Path) -> (Watchbook, String, String, PgConnection) {
    let up = world.spawn_bare(&["up", "--demo", "--data-dir", data.to_str().unwrap()]);
    let text = eventually("the demo is ready", async || {
        std::fs::read_to_string(data.join("env")).map_err(|error| format!("{error}\n{}", up.log()))
    })
    .await;
    let of = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap().to_owned()
    };
    let database = PgConnection::connect(&of("DATABASE_URL")).await.unwrap();
    (up, of("WATCHBOOK_URL"), of("WATCHBOOK_TOKEN"), database)
}

/// Returns the rows that were stored before the live traffic of the demo began, by kind.
async fn history(database: &mut PgConnection, until: DateTime<Utc>) -> Vec<(String, i64, i64)> {
    sqlx::query_as(
        "SELECT kind, count(*), count(DISTINCT id) FROM (
             SELECT 'events' AS kind, id, created_at FROM watchbook.event_logs
             UNION ALL SELECT 'errors', id, created_at FROM watchbook.error_logs
             UNION ALL SELECT 'metrics', id, created_at FROM watchbook.container_metrics
             UNION ALL SELECT 'logs', id, created_at FROM watchbook.container_logs
             UNION ALL SELECT 'audit', id, created_at FROM control_plane.audit_logs
             UNION ALL SELECT 'executions', id, created_at FROM watchbook.sandbox_execution_logs) AS records
          WHERE created_at < $1 GROUP BY kind ORDER BY kind",
    )
    .bind(until)
    .fetch_all(database)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_demo_has_seven_days_of_history_as_soon_as_it_is_ready_and_no_more_after_a_restart() {
    let world = world().without_setup().start().await;
    let data = world.directory().join("data");
    let (mut first, url, token, mut database) = demo(&world, &data).await;
    let ask = async |path: &str| -> Value {
        let address = url.strip_prefix("http://").unwrap().parse().unwrap();
        let answer = http::get_as(address, path, &token).await.unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    };
    // No waiting: the history is visible at once.
    let trends = ask("/api/executions/trends?days=7").await;
    let days = trends["items"].as_array().or_else(|| trends.as_array()).unwrap();
    assert!(days.len() >= 7 && days.iter().all(|day| day["total"].as_i64().unwrap() > 0), "{trends}");
    let groups = ask("/api/errors/groups").await;
    let groups = groups["items"].as_array().unwrap();
    assert!(groups.len() >= 8, "{groups:?}");
    // Both panics are in one file of one service, and are two groups of many errors each.
    let panics = groups.iter().filter(|group| group["error_type"] == "panic" && group["count"].as_i64() > Some(7));
    assert_eq!(panics.count(), 2, "{groups:?}");
    let started = ask("/api/events?event_type=run.started&limit=1000").await;
    let run = started["items"].as_array().unwrap().last().unwrap()["run_id"].as_str().unwrap().to_owned();
    let events = ask(&format!("/api/events?run_id={run}")).await;
    let types: BTreeSet<_> =
        events["items"].as_array().unwrap().iter().map(|event| event["event_type"].as_str().unwrap()).collect();
    assert!(types.contains("run.finished") || types.contains("run.failed"), "{events}");
    let audit = ask("/api/audit").await;
    assert!(audit["items"].as_array().unwrap().iter().any(|record| record["actor_name"] == "Ada Lovelace"), "{audit}");
    let metrics = ask("/api/metrics?container_id=acme-web-1&step=1h").await;
    assert!(!metrics["points"].as_array().unwrap().is_empty(), "{metrics}");

    // The hour before the demo is left out: its live records come close.
    let until = Utc::now() - TimeDelta::hours(1);
    let before = history(&mut database, until).await;
    assert_eq!(before.len(), 6, "{before:?}");
    assert!(before.iter().all(|(_, records, ids)| *records > 100 && records == ids), "{before:?}");
    // The errors, executions and metrics of the history are days old, so they fire no alert.
    let alerts = "SELECT count(*) FROM watchbook.alerts WHERE started_at IS NOT NULL";
    let (fired,): (i64,) = sqlx::query_as(alerts).fetch_one(&mut database).await.unwrap();
    assert_eq!(fired, 0);
    database.close().await.unwrap();
    first.signal(Signal::Interrupt).await;
    assert!(first.ended().await.success(), "{}", first.log());

    let (mut second, .., mut database) = demo(&world, &data).await;
    assert_eq!(history(&mut database, until).await, before);
    database.close().await.unwrap();
    second.signal(Signal::Interrupt).await;
    assert!(second.ended().await.success(), "{}", second.log());
    world.finish([first, second]).await;
}
