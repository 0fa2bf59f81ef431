//! A run does what its plan says, and nothing else.

use std::path::PathBuf;

use harness::World;
use records::Kind;
use serde_json::{Value, json};
use store::partitions::State;

use super::fixtures::{
    audited, content, day, everything, fill, hold, item, make_day, month, outline, plan_of, rows, run_of, state,
    world_with,
};

#[tokio::test]
async fn a_run_does_what_its_plan_says_and_leaves_the_rest() {
    let world = world_with(&[]).await;
    let worker = world.workers("audit").await;
    make_day(&world, "events", day(50)).await;
    let expired = [
        ("events", day(40), 30),
        ("events", day(35), 20),
        ("errors", day(100), 12),
        ("metrics", day(40), 48),
        ("logs", day(40), 24),
        ("executions", day(100), 9),
        ("dead_letters", day(100), 7),
    ];
    let young = [
        ("events", day(5)),
        ("errors", day(80)),
        ("metrics", day(20)),
        ("executions", day(89)),
        ("dead_letters", day(3)),
    ];
    for (kind, day, rows) in expired {
        fill(&world, kind, day, rows).await;
    }
    for (kind, day) in young {
        fill(&world, kind, day, 10).await;
    }
    fill(&world, "audit", month(200), 15).await;
    let mut kept = Vec::new();
    for (kind, day) in young.into_iter().chain([("audit", month(200))]) {
        kept.push((kind, day, content(&world, kind, day).await));
    }

    let before = everything(&world).await;
    let plan = plan_of(&world).await;
    let mut planned = outline(&plan);
    planned.sort();
    let goes = |kind: &str, day: chrono::NaiveDate, rows| (kind.to_owned(), day.to_string(), rows, "drop".to_owned());
    let mut expected: Vec<_> = expired.iter().map(|(kind, day, rows)| goes(kind, *day, u64::from(*rows))).collect();
    expected.push(goes("events", day(50), 0));
    expected.sort();
    assert_eq!(planned, expected);
    for item in plan.as_array().unwrap() {
        assert!(
            item["bytes"].as_u64().unwrap() > 0 && item["why"].as_str().unwrap().starts_with("older than"),
            "{item}"
        );
    }
    world.run(&["retention", "plan"]).await.succeeded().prints("150 rows (").prints("would be removed");
    assert_eq!(everything(&world).await, before, "a plan changes nothing");
    assert_eq!(world.count("SELECT count(*) FROM watchbook.retention_runs").await, 0);

    let report = run_of(&world).await;
    assert_eq!(outline(&report["items"]), outline(&plan));
    for (kind, day, _) in expired.into_iter().chain([("events", day(50), 0)]) {
        assert_eq!((rows(&world, kind, day).await, state(&world, kind, day).await), (0, None), "{kind} {day}");
    }
    for (kind, day, before) in &kept {
        assert_eq!(content(&world, kind, *day).await, *before, "{kind} {day}");
    }
    assert_eq!(world.count("SELECT sum(samples)::bigint FROM watchbook.container_metric_hours").await, 48);

    assert_eq!(plan_of(&world).await, json!([]));
    let nothing = run_of(&world).await;
    assert_eq!(nothing["items"], json!([]));
    let runs = world.run(&["retention", "history", "--json"]).await.succeeded().json();
    assert_eq!((&runs[0]["id"], &runs[0]["rows"], &runs[0]["items"]), (&nothing["run"], &json!(0), &json!(0)));
    let (first, id) = (&runs[1], report["run"].as_str().unwrap());
    assert_eq!((first["id"].as_str(), &first["rows"], &first["items"]), (Some(id), &json!(150), &json!(8)));
    assert_eq!([&first["outcome"], &first["actor_id"], &first["cause"]], ["done", "ann", "command"]);
    let one = world.run(&["retention", "history", id, "--json"]).await.succeeded().json();
    assert_eq!(outline(&one["actions"]), outline(&plan));
    world.run(&["retention", "history", id]).await.succeeded().prints("dead_letters").prints(id);
    world
        .run(&["retention", "history", "00000000-0000-0000-0000-000000000000"])
        .await
        .ended_with(1)
        .prints("does not exist");

    let told = audited(&world, "retention.run", 2).await;
    assert_eq!(told[0], ("ann".to_owned(), id.to_owned(), "SUCCESS".to_owned()));
    let (metadata,): (Value,) =
        world.query_one(&format!("SELECT metadata FROM control_plane.audit_logs WHERE target_id = '{id}'")).await;
    assert_eq!((&metadata["rows"], &metadata["outcome"]), (&json!(150), &json!("done")));
    world.settled(Kind::Audit).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn the_audit_log_goes_by_the_month_where_a_period_is_set() {
    let world = world_with(&[("WATCHBOOK_RETENTION__KEEP__AUDIT", "100d")]).await;
    fill(&world, "audit", month(200), 15).await;
    fill(&world, "audit", month(60), 5).await;
    let young = content(&world, "audit", month(60)).await;
    let plan = plan_of(&world).await;
    assert_eq!(outline(&plan), [("audit".to_owned(), month(200).to_string(), 15, "drop".to_owned())]);
    run_of(&world).await;
    assert_eq!(state(&world, "audit", month(200)).await, None);
    assert_eq!(content(&world, "audit", month(60)).await, young);
    let worker = world.workers("audit").await;
    audited(&world, "retention.run", 1).await;
    world.finish([worker]).await;
}

// Plans that are reviewed before they are executed, while records change.

async fn plan_in_a_file(world: &World) -> PathBuf {
    let path = world.directory().join("plan.json");
    std::fs::write(&path, plan_of(world).await.to_string()).unwrap();
    path
}

/// Checks that a plan is refused, and that no row of the day is removed or hidden.
async fn is_refused(world: &World, plan: &std::path::Path, settings: &[(&str, &str)], words: &str) {
    let before = content(world, "events", day(40)).await;
    let run = world.run_with(&["retention", "run", "--json", "--plan", plan.to_str().unwrap()], settings, "").await;
    let report = run.ended_with(1).json();
    let problem = item(&report["items"], "events", day(40))["problem"].as_str().unwrap().to_owned();
    assert!(problem.contains(words) && problem.contains("nothing of it was removed, make a new plan"), "{problem}");
    assert_eq!(report["done"], false);
    assert_eq!(state(world, "events", day(40)).await, Some(State::Attached));
    assert_eq!(content(world, "events", day(40)).await, before);
}

#[tokio::test]
async fn a_plan_that_the_world_has_left_behind_removes_nothing_of_the_day() {
    let world = world_with(&[]).await;
    fill(&world, "events", day(40), 30).await;
    let plan = plan_in_a_file(&world).await;
    let longer = [("WATCHBOOK_RETENTION__KEEP__EVENTS", "60d")];
    is_refused(&world, &plan, &longer, "not expired by the settings that are in force").await;

    world
        .execute(&format!(
            "INSERT INTO watchbook.event_logs (event_type, payload, actor_type, id, created_at, received_at, attributes)
             VALUES ('late', '{{}}', 'user', gen_random_uuid(), '{} 12:00:00+00', now(), '{{}}')",
            day(40)
        ))
        .await;
    is_refused(&world, &plan, &[], "it has 31 rows, and 30 were planned").await;

    let plan = plan_in_a_file(&world).await;
    let held = hold(&world, &["--org", "acme"]).await;
    is_refused(&world, &plan, &[], "it has 10 rows that are held, and 0 were planned").await;

    let plan = plan_in_a_file(&world).await;
    super::fixtures::release(&world, &held).await;
    is_refused(&world, &plan, &[], "it has 0 rows that are held, and 10 were planned").await;

    let plan = plan_in_a_file(&world).await;
    run_of(&world).await;
    let run = world.run(&["retention", "run", "--plan", plan.to_str().unwrap()]).await;
    run.ended_with(1).prints("it is gone already");
    std::fs::write(&plan, "{}").unwrap();
    world.run(&["retention", "run", "--plan", plan.to_str().unwrap()]).await.ended_with(1).prints("is not a plan");

    let failed = world.count("SELECT count(*) FROM watchbook.retention_runs WHERE outcome = 'failed'").await;
    assert_eq!(failed, 5);
    let worker = world.workers("audit,errors").await;
    audited(&world, "retention.run", 6).await;
    world.settled(Kind::Errors).await;
    let told = world.count("SELECT count(*) FROM watchbook.error_logs WHERE error_type = 'watchbook.retention'").await;
    assert_eq!(told, 5);
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_plan_that_waits_is_executed_as_it_was_looked_at() {
    let world = world_with(&[]).await;
    fill(&world, "events", day(40), 30).await;
    let plan = plan_in_a_file(&world).await;
    // Records that expired since are not in the plan.
    fill(&world, "events", day(41), 30).await;
    let plan_path = plan.to_str().unwrap();
    world.run(&["retention", "run", "--plan", plan_path]).await.succeeded().prints("done");
    assert_eq!((rows(&world, "events", day(40)).await, rows(&world, "events", day(41)).await), (0, 30));
    // From standard input, as from a pipe.
    let plan = plan_of(&world).await.to_string();
    world.run_with(&["retention", "run", "--plan", "-"], &[], &plan).await.succeeded();
    assert_eq!(rows(&world, "events", day(41)).await, 0);
    let worker = world.workers("audit").await;
    audited(&world, "retention.run", 2).await;
    world.finish([worker]).await;
}
