//! Days that are archived before they are dropped, and restored.

use std::path::{Path, PathBuf};

use ::retention::restore::{self, RestoreRequest};
use archive::{Archive, Manifest};
use chrono::{NaiveDate, TimeDelta, Utc};
use harness::{Webhook, World, eventually};
use records::Kind;
use serde_json::{Value, json};
use store::partitions::State;
use tokio::sync::Notify;

use super::fixtures::{
    Content, audited, content, day, everything, fill, hold, item, month, outline, plan_of, release, rows, run_of,
    state, world_with,
};

const KEEP_AUDIT: (&str, &str) = ("WATCHBOOK_RETENTION__KEEP__AUDIT", "100d");

/// Returns a world with an archive below its directory, and the path of the archive.
async fn world_with_archive() -> (World, PathBuf) {
    // Each process of a world starts in its directory.
    let world = world_with(&[KEEP_AUDIT, ("WATCHBOOK_RETENTION__ARCHIVE", "archive")]).await;
    let folder = world.directory().join("archive");
    (world, folder)
}

fn days() -> [(&'static str, NaiveDate); 7] {
    [
        ("events", day(40)),
        ("errors", day(100)),
        ("metrics", day(40)),
        ("logs", day(40)),
        ("executions", day(100)),
        ("dead_letters", day(100)),
        ("audit", month(200)),
    ]
}

async fn fill_all(world: &World) -> Vec<Content> {
    let mut contents = Vec::new();
    for (kind, day) in days() {
        fill(world, kind, day, 60).await;
        contents.push(content(world, kind, day).await);
    }
    contents
}

async fn parts(folder: &Path, kind: &str, day: NaiveDate) -> Vec<Manifest> {
    let archive = Archive::open(folder.to_str().unwrap()).unwrap();
    let parts = archive.parts(kind, day).await.unwrap();
    for part in &parts {
        archive.verify(part).await.unwrap();
    }
    parts
}

/// Restores a day. Returns how many records the archive has, and how many were inserted.
async fn bring_back(world: &World, kind: &str, day: NaiveDate) -> (u64, u64) {
    let command = ["retention", "restore", kind, &day.to_string(), "--by", "ann", "--json"];
    let restored = world.run(&command).await.succeeded().json();
    assert_eq!((&restored["hold"]["kind"], &restored["hold"]["created_by"]), (&json!(kind), &json!("ann")));
    (restored["archived"].as_u64().unwrap(), restored["added"].as_u64().unwrap())
}

async fn release_all(world: &World) {
    for held in world.run(&["retention", "holds", "--json"]).await.succeeded().json().as_array().unwrap() {
        release(world, held["id"].as_str().unwrap()).await;
    }
}

async fn hours(world: &World) -> (i64, String) {
    world
        .query_one("SELECT count(*), md5(coalesce(string_agg(hour::text, ',' ORDER BY hour::text), '')) FROM watchbook.container_metric_hours AS hour")
        .await
}

#[tokio::test]
async fn days_are_archived_and_come_back_as_they_were() {
    let (world, folder) = world_with_archive().await;
    let before = fill_all(&world).await;
    let report = run_of(&world).await;
    assert_eq!(report["items"].as_array().unwrap().len(), 7, "{report}");
    let history = ["retention", "history", report["run"].as_str().unwrap(), "--json"];
    let actions = world.run(&history).await.succeeded().json()["actions"].clone();
    for (kind, day) in days() {
        assert_eq!(state(&world, kind, day).await, None, "{kind}");
        let parts = parts(&folder, kind, day).await;
        assert_eq!(parts.iter().map(|part| (part.part, part.rows)).collect::<Vec<_>>(), [(1, 60)], "{kind}");
        assert_eq!(item(&actions, kind, day)["archived"], serde_json::to_value(&parts[0]).unwrap(), "{kind}");
    }
    let measured = hours(&world).await;
    assert!(measured.0 > 0);

    for ((kind, day), before) in days().into_iter().zip(&before) {
        assert_eq!(bring_back(&world, kind, day).await, (60, 60), "{kind}");
        assert_eq!(content(&world, kind, day).await, *before, "{kind}");
        assert_eq!(bring_back(&world, kind, day).await, (60, 0), "{kind}");
        assert_eq!(content(&world, kind, day).await, *before, "{kind}");
    }
    assert_eq!(hours(&world).await.0, 0, "the samples are back");
    // Restored records are held.
    let plan = plan_of(&world).await;
    assert!(outline(&plan).iter().all(|(_, _, _, action)| action == "keep"), "{plan}");
    run_of(&world).await;
    release_all(&world).await;
    let report = run_of(&world).await;
    assert!(
        outline(&report["items"]).iter().all(|(_, _, rows, action)| (*rows, action.as_str()) == (60, "drop")),
        "{report}"
    );
    for (kind, day) in days() {
        assert_eq!(state(&world, kind, day).await, None, "{kind}");
        assert_eq!(parts(&folder, kind, day).await.len(), 1, "{kind}: the same content is not written twice");
    }
    assert_eq!(hours(&world).await, measured);
    world
        .run(&["retention", "restore", "events", "2020-01-01"])
        .await
        .ended_with(1)
        .prints("has no events of 2020-01-01");
    let worker = world.workers("audit").await;
    audited(&world, "retention.restore", 14).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn what_a_hold_kept_and_what_came_later_is_a_part_of_its_own() {
    let (world, folder) = world_with_archive().await;
    fill(&world, "events", day(40), 30).await;
    let before = content(&world, "events", day(40)).await;
    let acme = hold(&world, &["--org", "acme"]).await;
    run_of(&world).await;
    assert_eq!(rows(&world, "events", day(40)).await, 10);
    release(&world, &acme).await;
    run_of(&world).await;
    let written = parts(&folder, "events", day(40)).await;
    assert_eq!(written.iter().map(|part| part.rows).collect::<Vec<_>>(), [30, 10]);
    assert_eq!(bring_back(&world, "events", day(40)).await, (40, 30));
    assert_eq!(content(&world, "events", day(40)).await, before);
    let worker = world.workers("audit").await;
    audited(&world, "retention.run", 2).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn what_was_erased_does_not_come_back() {
    let (world, _) = world_with_archive().await;
    fill(&world, "executions", day(100), 60).await;
    fill(&world, "events", day(40), 60).await;
    let others = "user_id IS DISTINCT FROM 'u-1'";
    let left = super::fixtures::content_where(&world, "executions", day(100), others).await;
    let untouched = super::fixtures::content_where(&world, "events", day(40), others).await;
    run_of(&world).await;
    world.run(&["erase", "user", "u-1", "--by", "ann"]).await.succeeded().prints("0 execution records removed");
    assert_eq!(bring_back(&world, "executions", day(100)).await.0, 60);
    assert_eq!(content(&world, "executions", day(100)).await, left);
    bring_back(&world, "events", day(40)).await;
    assert_eq!(
        world.count("SELECT count(*) FROM watchbook.event_logs WHERE user_id = 'u-1' OR actor_id = 'u-1'").await,
        0
    );
    assert_eq!(world.count("SELECT count(*) FROM watchbook.event_logs WHERE attributes->>'erased' = 'true'").await, 15);
    let erased = "attributes->>'erased' IS NULL";
    assert_eq!(super::fixtures::content_where(&world, "events", day(40), erased).await, untouched);
    let worker = world.workers("audit").await;
    audited(&world, "retention.erase", 1).await;
    world.finish([worker]).await;
}

/// An alert on the error record of a failed run.
fn alert_on_failure(webhook: &Webhook) -> String {
    format!(
        r#"
[[rules]]
name = "retention-failed"
source = "errors"
where = {{ error_type = "watchbook.retention" }}
window = "1h"
threshold = "0"
severity = "critical"

[[receivers]]
name = "ops"
webhook = {{ url = "{}" }}

[[routes]]
to = ["ops"]
"#,
        webhook.url()
    )
}

#[tokio::test]
async fn without_its_archive_nothing_goes_and_somebody_is_told() {
    let ((world, folder), webhook) = (world_with_archive().await, Webhook::start().await);
    std::fs::write(world.directory().join("watchbook.toml"), alert_on_failure(&webhook)).unwrap();
    fill_all(&world).await;
    std::fs::write(&folder, "in the way").unwrap();
    let before = everything(&world).await;
    let failed = world.run(&["retention", "run", "--json"]).await.ended_with(1).json();
    assert_eq!(everything(&world).await, before);
    let problems: Vec<_> =
        failed["items"].as_array().unwrap().iter().map(|item| item["problem"].as_str().unwrap()).collect();
    assert_eq!(problems.len(), 7);
    assert!(
        problems.iter().all(|problem| problem.contains("it is not in the archive, so nothing of it was removed")),
        "{problems:?}"
    );
    for (kind, day) in days() {
        assert_eq!(state(&world, kind, day).await, Some(State::Attached), "{kind}");
    }

    let worker = world.workers("errors,audit,alerts,notifier").await;
    let sql = "SELECT severity, message FROM watchbook.error_logs WHERE error_type = 'watchbook.retention'";
    let told = eventually("the error is stored", async || world.try_query_one::<(String, String)>(sql).await).await;
    assert!(told.0 == "critical" && told.1.contains("archive") && told.1.contains("and 6 more"), "{told:?}");
    webhook.delivers("alertname", &[("firing", "retention-failed")]).await;
    let audited = audited(&world, "retention.run", 1).await;
    assert_eq!(audited[0].2, "FAILURE");

    // Once the folder is fixed, the run continues. A day that was reported was left unchanged until then.
    std::fs::remove_file(&folder).unwrap();
    run_of(&world).await;
    for (kind, day) in days() {
        assert_eq!((state(&world, kind, day).await, parts(&folder, kind, day).await.len()), (None, 1), "{kind}");
    }
    super::fixtures::audited(&world, "retention.run", 2).await;
    world.settled(Kind::Errors).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn an_archive_that_was_damaged_brings_nothing_back() {
    let (world, folder) = world_with_archive().await;
    fill(&world, "events", day(40), 60).await;
    run_of(&world).await;
    let part = parts(&folder, "events", day(40)).await.remove(0);
    let path = folder.join(&part.object);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let command = ["retention", "restore", "events", &day(40).to_string()];
    world.run(&command).await.ended_with(1).prints(&part.object);
    assert_eq!((rows(&world, "events", day(40)).await, state(&world, "events", day(40)).await), (0, None));
    let holds: Value = world.run(&["retention", "holds", "--json"]).await.succeeded().json();
    assert_eq!(holds, json!([]));
    let worker = world.workers("audit").await;
    audited(&world, "retention.run", 1).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_restore_that_is_killed_leaves_nothing_of_the_day() {
    let (world, folder) = world_with_archive().await;
    for (kind, day) in [("metrics", day(40)), ("executions", day(100))] {
        fill(&world, kind, day, 3_500).await;
    }
    let others = super::fixtures::content_where(&world, "executions", day(100), "user_id <> 'u-1'").await;
    run_of(&world).await;
    world.run(&["erase", "user", "u-1"]).await.succeeded();
    let archive = Archive::open(folder.to_str().unwrap()).unwrap();
    for (kind, day) in [("metrics", day(40)), ("executions", day(100))] {
        let before = hours(&world).await;
        let request = RestoreRequest {
            dataset: super::fixtures::dataset(kind),
            day,
            until: Utc::now() + TimeDelta::days(7),
            by: "ann".to_owned(),
            reason: "a test".to_owned(),
        };
        let mut connection = store::partition_removal::session(&super::fixtures::database(&world)).await.unwrap();
        let begun = Notify::new();
        let work = Box::pin(restore::restore(&mut connection, &archive, &request, Utc::now(), |_| begun.notify_one()));
        tokio::select! {
            biased;
            () = begun.notified() => {}
            ended = work => panic!("it was not killed: {ended:?}"),
        }
        drop(connection);
        assert_eq!(rows(&world, kind, day).await, 0, "{kind}");
        assert_eq!(hours(&world).await, before);
        assert_eq!(bring_back(&world, kind, day).await.1, 3_500, "{kind}");
    }
    assert_eq!(content(&world, "executions", day(100)).await, others);
    assert_eq!((hours(&world).await.0, rows(&world, "metrics", day(40)).await), (0, 3_500));
    let worker = world.workers("audit").await;
    audited(&world, "retention.restore", 2).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_day_that_comes_back_keeps_what_somebody_elses_hold_keeps() {
    let (world, _) = world_with_archive().await;
    fill(&world, "executions", day(100), 60).await;
    fill(&world, "events", day(40), 60).await;
    let acme = hold(&world, &["--org", "acme"]).await;
    let erased = world.run(&["erase", "user", "u-1", "--by", "ann", "--json"]).await.succeeded().json();
    assert_eq!([&erased["state"], &erased["executions"], &erased["blanked"]], [&json!("held"), &json!(10), &json!(10)]);
    let days = [("executions", day(100)), ("events", day(40))];
    let of_acme = "organization_id = 'acme'";
    let mut before = Vec::new();
    for (kind, day) in days {
        before
            .push((super::fixtures::content_where(&world, kind, day, of_acme).await, content(&world, kind, day).await));
    }
    run_of(&world).await;
    for ((kind, day), (held, all)) in days.into_iter().zip(&before) {
        assert_eq!(content(&world, kind, day).await, *held, "{kind}");
        bring_back(&world, kind, day).await;
        assert_eq!(content(&world, kind, day).await, *all, "{kind}");
    }
    // The held records of the user are deleted when that hold is released, whatever else holds the day.
    release(&world, &acme).await;
    let worker = world.workers("audit").await;
    audited(&world, "retention.restore", 2).await;
    world.settled(Kind::Audit).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn samples_do_not_come_back_where_their_hours_know_of_more() {
    let (world, _) = world_with_archive().await;
    fill(&world, "metrics", day(40), 24).await;
    run_of(&world).await;
    // Samples that are in no archive.
    world.execute("UPDATE watchbook.container_metric_hours SET samples = samples + 1 WHERE container_id = 'c-1'").await;
    let records = async || {
        let mut all = everything(&world).await;
        // An empty partition may remain.
        all.remove("tables");
        all
    };
    let before = records().await;
    let command = ["retention", "restore", "metrics", &day(40).to_string()];
    world.run(&command).await.ended_with(1).prints("samples of that day became hours").prints("brings back 24");
    assert_eq!(records().await, before);
    assert_eq!(world.run(&["retention", "holds", "--all", "--json"]).await.succeeded().json(), json!([]));
    assert_eq!(world.count("SELECT count(*) FROM watchbook.own_records").await, 0);
    let worker = world.workers("audit").await;
    audited(&world, "retention.run", 1).await;
    world.settled(Kind::Audit).await;
    audited(&world, "retention.restore", 0).await;
    world.finish([worker]).await;
}
