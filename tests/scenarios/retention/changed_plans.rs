//! Items of a plan are checked again when they are executed: plans that were edited, and days that changed meanwhile.

use std::sync::Mutex;

use ::retention::plan::{Action, Item};
use ::retention::run::{Step, no_observer};
use chrono::Utc;
use futures::future::BoxFuture;
use harness::World;
use records::Kind;
use serde_json::{Value, json};
use sqlx::Connection;
use store::log_volumes;
use store::partitions::Partition;

use super::fixtures::{
    audited, bare_world, connect, content, dataset, day, everything, execute, fill, hold, item, make_plan, midnight,
    outline, plan_of, rows, run_of, run_whole, settings, world_with,
};
use super::kills;

/// Returns an item of a plan with changed members.
fn changed(item: &Value, members: Value) -> Value {
    let mut item = item.clone();
    harness::messages::with(&mut item, members);
    item
}

/// Executes a plan, of which not every item succeeds. Returns how each item ended.
async fn problems_of(world: &World, plan: &Value) -> Vec<String> {
    let run = world.run_with(&["retention", "run", "--json", "--plan", "-"], &[], &plan.to_string()).await;
    let report = run.ended_with(1).json();
    assert_eq!(report["done"], false);
    let problem = |item: &Value| item["problem"].as_str().unwrap_or("done").to_owned();
    report["items"].as_array().unwrap().iter().map(problem).collect()
}

/// Checks that the runs were audited.
async fn are_told(world: World, runs: usize) {
    let worker = world.workers("audit,errors").await;
    audited(&world, "retention.run", runs).await;
    world.settled(Kind::Audit).await;
    world.settled(Kind::Errors).await;
    world.finish([worker]).await;
}

async fn count_volumes(world: &World, of: chrono::NaiveDate) {
    let mut connection = connect(world).await;
    log_volumes::recount_day(&mut connection, Kind::Logs, "watchbook.container_logs", of).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_plan_that_was_changed_by_hand_removes_nothing_that_a_run_would_not() {
    let world = world_with(&[]).await;
    for (kind, ago, rows) in
        [("events", 40, 30), ("events", 5, 30), ("errors", 100, 12), ("executions", 100, 9), ("logs", 5, 6)]
    {
        fill(&world, kind, day(ago), rows).await;
    }
    count_volumes(&world, day(5)).await;
    let minute = format!("{} 12:00:00+00", day(5));
    world
        .execute(&format!("INSERT INTO watchbook.outcome_minutes VALUES ('executions', '{minute}', 'acme', 0, 7, 1)"))
        .await;
    hold(&world, &["--org", "acme", "--kind", "events"]).await;
    hold(&world, &["--kind", "errors"]).await;
    let plan = plan_of(&world).await;
    let (events, errors, executions) =
        (item(&plan, "events", day(40)), item(&plan, "errors", day(100)), item(&plan, "executions", day(100)));
    assert_eq!([&events["action"], &errors["action"], &executions["action"]], ["rewrite", "keep", "drop"]);
    let container = json!({ "organization_id": "acme", "container_id": "c-0" });
    let soon = Utc::now() + chrono::TimeDelta::days(400);
    let trim = changed(
        executions,
        json!({ "kind": "logs", "day": day(5), "action": "trim", "rows": u64::MAX, "bytes": u64::MAX, "container": container }),
    );
    let thin = changed(executions, json!({ "kind": "outcomes", "day": null, "action": "thin", "before": soon }));
    let cases = [
        (changed(events, json!({ "action": "drop" })), "10 of its 30 rows are held, and `drop` was planned"),
        (
            changed(events, json!({ "action": "drop", "rows": 30, "kept_rows": 0 })),
            "it has 10 rows that are held, and 0 were planned",
        ),
        (changed(events, json!({ "rows": 10, "kept_rows": 20 })), "it has 10 rows that are held, and 20 were planned"),
        (changed(events, json!({ "rows": u64::MAX })), "it has 30 rows, and 18446744073709551615 were planned"),
        (changed(events, json!({ "action": "delete", "before": soon })), "not expired by the settings"),
        (changed(events, json!({ "action": "delete", "before": midnight(day(35)) })), "not expired by the settings"),
        (
            changed(events, json!({ "day": day(5), "action": "drop", "rows": 30, "kept_rows": 0 })),
            "not expired by the settings",
        ),
        (
            changed(errors, json!({ "action": "drop", "rows": 12, "kept_rows": 0 })),
            "it has 12 rows that are held, and 0 were planned",
        ),
        (changed(errors, json!({ "action": "drop" })), "12 of its 12 rows are held, and `drop` was planned"),
        (changed(errors, json!({ "action": "rewrite" })), "12 of its 12 rows are held, and `rewrite` was planned"),
        (changed(executions, json!({ "action": "rewrite" })), "0 of its 9 rows are held, and `rewrite` was planned"),
        (
            changed(executions, json!({ "rows": u64::MAX, "kept_rows": u64::MAX, "bytes": u64::MAX })),
            "it has 9 rows, and 18446744073709551615 were planned",
        ),
        (changed(executions, json!({ "day": null })), "the plan names no day"),
        (changed(executions, json!({ "kind": "exections" })), "the plan names no day"),
        (changed(executions, json!({ "kind": "directory" })), "the plan names no day"),
        (trim.clone(), "the container has no more than it may"),
        (changed(&trim, json!({ "kind": "events" })), "the container has no more than it may"),
        (changed(&trim, json!({ "container": null })), "there is no such thing to remove"),
        (changed(&trim, json!({ "kind": "lgs" })), "the day is gone already"),
        (thin.clone(), "not expired by the settings"),
        (changed(&thin, json!({ "kind": "outcome_hours" })), "not expired by the settings"),
        (changed(&thin, json!({ "kind": "events" })), "there is no such thing to remove"),
        (changed(&thin, json!({ "before": null })), "not expired by the settings"),
        // An item to keep is kept, whether or not its day is expired.
        (changed(executions, json!({ "action": "keep" })), "done"),
    ];
    let before = everything(&world).await;
    let counts = world.count("SELECT count(*) FROM watchbook.outcome_minutes").await;
    let found = problems_of(&world, &cases.iter().map(|(item, _)| item.clone()).collect()).await;
    assert_eq!(found.len(), cases.len());
    for ((item, words), problem) in cases.iter().zip(&found) {
        assert!(problem.contains(words), "{problem}, and not {words}: {item}");
    }
    assert_eq!(everything(&world).await, before);
    assert_eq!(world.count("SELECT count(*) FROM watchbook.outcome_minutes").await, counts);
    assert_eq!(world.count("SELECT count(*) FROM watchbook.retention_actions").await, 0);

    for no_plan in [json!({ "action": "shred" }), json!({ "rows": -1 }), json!({ "rows": 1e30 }), json!({ "day": "x" })]
    {
        let plan = json!([changed(executions, no_plan)]).to_string();
        world.run_with(&["retention", "run", "--plan", "-"], &[], &plan).await.ended_with(1).prints("is not a plan");
    }
    assert_eq!(everything(&world).await, before);
    world.execute("DELETE FROM watchbook.outcome_minutes").await;
    are_told(world, 1).await;
}

#[tokio::test]
async fn what_a_changed_plan_drops_is_not_taken_out_while_something_of_it_is_held() {
    let world = bare_world().await;
    fill(&world, "events", day(40), 30).await;
    kills::hold(&world, Some("acme"), None).await;
    let settings = settings(|_| {});
    let mut plan = make_plan(&world, &settings, Utc::now()).await;
    plan.items[0].action = Action::Drop;
    let steps = Mutex::new(Vec::new());
    let observer = |step: Step, item: &Item| {
        steps.lock().unwrap().push(step);
        no_observer(step, item)
    };
    let report = execute(&world, &settings, &plan, &observer).await;
    assert!(!report.done && rows(&world, "events", day(40)).await == 30, "{report:?}");
    assert_eq!(*steps.lock().unwrap(), [Step::Begun]);
    world.finish([]).await;
}

#[tokio::test]
async fn a_plan_for_another_time_removes_nothing_before_it() {
    let world = world_with(&[]).await;
    fill(&world, "events", day(5), 30).await;
    fill(&world, "metrics", day(5), 24).await;
    let minute = format!("{} 12:00:00+00", day(5));
    world
        .execute(&format!("INSERT INTO watchbook.outcome_minutes VALUES ('events', '{minute}', 'acme', 0, 7, 1)"))
        .await;
    let later = (Utc::now() + chrono::TimeDelta::days(500)).to_rfc3339();
    let plan = world.run(&["retention", "plan", "--at", &later, "--json"]).await.succeeded().json();
    let actions: Vec<_> = outline(&plan).into_iter().map(|(kind, _, _, action)| (kind, action)).collect();
    for (kind, action) in [("events", "drop"), ("metrics", "drop"), ("outcomes", "thin")] {
        assert!(actions.contains(&(kind.to_owned(), action.to_owned())), "{plan}");
    }
    let before = everything(&world).await;
    let problems = problems_of(&world, &plan).await;
    assert!(problems.iter().all(|problem| problem.contains("not expired by the settings")), "{problems:?}");
    assert_eq!(everything(&world).await, before);
    assert_eq!(world.count("SELECT total FROM watchbook.outcome_minutes").await, 7);
    world.execute("DELETE FROM watchbook.outcome_minutes").await;
    are_told(world, 1).await;
}

#[tokio::test]
async fn a_plan_that_trims_is_executed_once() {
    let world = world_with(&[("WATCHBOOK_RETENTION__LOG_BYTES_PER_CONTAINER", "64KiB")]).await;
    // 20 lines of 80,000 bytes for each container and organization.
    fill(&world, "logs", day(5), 120).await;
    world.execute("UPDATE watchbook.container_logs SET message = repeat('x', 4000)").await;
    count_volumes(&world, day(5)).await;
    let plan = plan_of(&world).await;
    assert_eq!(plan.as_array().unwrap().len(), 6, "{plan}");
    let run = world.run_with(&["retention", "run", "--json", "--plan", "-"], &[], &plan.to_string()).await;
    assert_eq!(outline(&run.succeeded().json()["items"]), outline(&plan));
    let left = content(&world, "logs", day(5)).await;
    assert_eq!(left.0, 6 * 16);
    let problems = problems_of(&world, &plan).await;
    assert_eq!(problems.len(), 6);
    assert!(problems.iter().all(|problem| problem.contains("the container has no more than it may")), "{problems:?}");
    assert_eq!(content(&world, "logs", day(5)).await, left);
    // One line more than the limit allows: the plan removes no more than that.
    world
        .execute(
            "INSERT INTO watchbook.container_logs
             SELECT (json_populate_record(line, json_build_object('id', gen_random_uuid()))).* FROM watchbook.container_logs AS line
              WHERE container_id = 'c-0' AND organization_id = 'acme' LIMIT 1",
        )
        .await;
    count_volumes(&world, day(5)).await;
    let problems = problems_of(&world, &plan).await;
    assert_eq!(problems.iter().filter(|problem| *problem == "done").count(), 1, "{problems:?}");
    assert_eq!(content(&world, "logs", day(5)).await.0, left.0);
    are_told(world, 3).await;
}

#[tokio::test]
async fn a_dead_letter_that_is_replayed_meanwhile_keeps_its_day_and_its_mark() {
    let world = bare_world().await;
    let (whole, held) = (day(101), day(100));
    for day in [whole, held] {
        fill(&world, "dead_letters", day, 9).await;
    }
    kills::hold(&world, Some("acme"), Some("dead_letters")).await;
    // None of the first day's records is held.
    let name = |day| Partition::starting(dataset("dead_letters"), day).name();
    world.execute(&format!("DELETE FROM {} WHERE subject LIKE '%.acme.%'", name(whole))).await;
    let settings = kills::archived(&world);
    let plan = make_plan(&world, &settings, Utc::now()).await;
    let actions: Vec<_> = plan.items.iter().map(|item| (item.day, item.action)).collect();
    assert_eq!(actions, [(Some(whole), Action::Drop), (Some(held), Action::Rewrite)]);
    let observer = |step: Step, item: &Item| -> BoxFuture<'static, ()> {
        let whose = match (item.action, step) {
            (Action::Drop, Step::Archived) => "globex",
            (Action::Rewrite, Step::Copied) => "acme",
            _ => return no_observer(step, item),
        };
        let table = name(item.day.unwrap());
        let replay = format!(
            "UPDATE watchbook.dead_letters SET replayed_at = now()
              WHERE id = (SELECT id FROM {table} WHERE subject LIKE '%.{whose}.%' ORDER BY failed_at LIMIT 1)"
        );
        let database = world.database().clone();
        Box::pin(async move {
            assert_eq!(sqlx::raw_sql(&replay).execute(&database).await.unwrap().rows_affected(), 1);
        })
    };
    let report = execute(&world, &settings, &plan, &observer).await;
    for item in &report.items {
        let problem = item.problem.as_deref().unwrap_or("done");
        assert!(problem.contains("some of it was replayed or discarded meanwhile"), "{problem}");
    }
    assert_eq!((rows(&world, "dead_letters", whole).await, rows(&world, "dead_letters", held).await), (6, 9));
    let replayed = "SELECT count(*) FROM watchbook.dead_letters WHERE replayed_at IS NOT NULL";
    assert_eq!(world.count(replayed).await, 2);
    run_whole(&world, &settings, Utc::now()).await;
    assert_eq!((rows(&world, "dead_letters", whole).await, rows(&world, "dead_letters", held).await), (0, 3));
    assert_eq!(world.count(replayed).await, 1);
    world.finish([]).await;
}

#[tokio::test]
async fn a_dead_letter_of_which_nobody_can_tell_whose_it_is_is_kept_by_anybodys_hold() {
    let world = world_with(&[]).await;
    fill(&world, "dead_letters", day(100), 12).await;
    world
        .execute(
            "UPDATE watchbook.dead_letters SET subject = (ARRAY['t.events.globex.events.events', 'my.events.events.globex.x',
                 'events.events.globex.x', 't.events.globex.events', 't.events.globex.xevents.eventsx'])[stream_seq + 1]
              WHERE stream_seq < 5",
        )
        .await;
    hold(&world, &["--org", "initech"]).await;
    let plan = plan_of(&world).await;
    let found = item(&plan, "dead_letters", day(100));
    assert_eq!([&found["rows"], &found["kept_rows"], &found["action"]], [&json!(10), &json!(2), &json!("rewrite")]);
    run_of(&world).await;
    let left: Vec<(i64,)> = world.query_all("SELECT stream_seq::bigint FROM watchbook.dead_letters ORDER BY 1").await;
    assert_eq!(left, [(0,), (1,)]);
    are_told(world, 1).await;
}
