//! Partitions that Watchbook did not create: days are recognized by their bounds, and other partitions are reported and
//! left.

use ::retention::run::Step;
use chrono::{Days, NaiveDate, TimeDelta, Utc};
use harness::World;
use harness::messages::{event_with, time};
use records::Kind;
use serde_json::json;
use sqlx::Connection;
use store::partitions::State;

use super::concurrent_access::no_session_of_runs;
use super::fixtures::{
    audited, bare_world, content, dataset, day, fill, hold, item, make_day, midnight, month, outline, plan_of, release,
    rows, run_of, run_until, settings, state, world_with,
};

/// Creates a partition. `bounds` is the part of the statement after `PARTITION OF`.
async fn partition(world: &World, of: &str, name: &str, bounds: &str) {
    world.execute(&format!("CREATE TABLE {name} PARTITION OF {} {bounds}", dataset(of).table())).await;
}

fn bounds(from: NaiveDate, until: NaiveDate) -> String {
    format!("FOR VALUES FROM ('{from} 00:00:00+00') TO ('{until} 00:00:00+00')")
}

/// Creates a day whose name Watchbook would not use.
async fn foreign_day(world: &World, of: &str, name: &str, first: NaiveDate) {
    let until = if dataset(of).is_monthly() { first + chrono::Months::new(1) } else { first + Days::new(1) };
    partition(world, of, name, &bounds(first, until)).await;
}

async fn count(world: &World, table: &str) -> i64 {
    world.count(&format!("SELECT count(*) FROM {table}")).await
}

/// Returns whether there is a table of this name, quoted as in a statement.
async fn is_there(world: &World, table: &str) -> bool {
    world.count(&format!("SELECT count(*) FROM pg_class WHERE oid = to_regclass($q${table}$q$)")).await == 1
}

#[tokio::test]
async fn days_of_other_names_go_and_are_held_archived_and_restored() {
    let world =
        world_with(&[("WATCHBOOK_RETENTION__KEEP__AUDIT", "100d"), ("WATCHBOOK_RETENTION__ARCHIVE", "archive")]).await;
    world.execute("CREATE SCHEMA \"Old Days\"").await;
    let days = [
        ("events", day(40), "\"Old Days\".\"Event's \"\"Logs\"\"; --\""),
        ("errors", day(100), "watchbook.\"Error_Logs_P2026\""),
        ("metrics", day(40), "watchbook.container_metrics_p2026_10_19"),
        // A name that Watchbook would use, for another day.
        ("logs", day(40), "watchbook.container_logs_20010101"),
        ("executions", day(100), "public.\"select\""),
        ("dead_letters", day(100), "watchbook.a_name_that_is_as_long_as_a_name_in_postgres_can_be_at_the_most_"),
        ("audit", month(200), "control_plane.audit_logs_p2026_05"),
    ];
    let mut before = Vec::new();
    for (kind, day, name) in days {
        foreign_day(&world, kind, name, day).await;
        fill(&world, kind, day, 60).await;
        before.push(content(&world, kind, day).await);
    }
    let held = hold(&world, &["--org", "acme"]).await;
    let plan = plan_of(&world).await;
    for (kind, day, _) in days {
        let item = item(&plan, kind, day);
        assert_eq!((&item["action"], &item["rows"], &item["kept_rows"]), (&json!("rewrite"), &json!(40), &json!(20)));
    }
    run_of(&world).await;
    for (kind, day, name) in days {
        assert_eq!(rows(&world, kind, day).await, 20, "{kind}");
        assert_eq!(state(&world, kind, day).await, Some(State::Attached), "{kind}");
        // Held rows stay where the day was.
        assert_eq!(count(&world, name).await, 20, "{kind}");
    }
    assert_eq!(world.count("SELECT count(*) FROM pg_class WHERE relname LIKE '%\\_held'").await, 0);
    release(&world, &held).await;
    run_of(&world).await;
    for (kind, day, name) in days {
        assert_eq!((rows(&world, kind, day).await, state(&world, kind, day).await), (0, None), "{kind}");
        assert!(!is_there(&world, name).await, "{kind}");
    }
    for ((kind, day, _), before) in days.into_iter().zip(before) {
        world.run(&["retention", "restore", kind, &day.to_string(), "--by", "ann"]).await.succeeded();
        assert_eq!(content(&world, kind, day).await, before, "{kind}");
    }
    world.execute("TRUNCATE watchbook.dead_letters").await;
    let worker = world.workers("audit").await;
    audited(&world, "retention.run", 2).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_day_of_another_name_that_a_killed_run_took_out_comes_back_and_goes() {
    let world = world_with(&[("WATCHBOOK_RETENTION__KEEP__EVENTS", "30d")]).await;
    const NAME: &str = "public.\"Events of a day\"";
    foreign_day(&world, "events", NAME, day(40)).await;
    fill(&world, "events", day(40), 30).await;
    let settings = settings(|_| {});
    for is_late in [true, false] {
        assert!(run_until(&world, &settings, Utc::now(), |step| step == Step::Detached).await.is_none());
        no_session_of_runs(&world).await;
        assert_eq!(state(&world, "events", day(40)).await, Some(State::Detached));
        assert_eq!((rows(&world, "events", day(40)).await, count(&world, NAME).await), (0, 30));
        if is_late {
            // A late record for the day: the partition is created as a writer does.
            let ours = make_day(&world, "events", day(40)).await;
            assert_eq!(rows(&world, "events", day(40)).await, 30);
            assert_eq!(state(&world, "events", day(40)).await, Some(State::Attached));
            assert!(!is_there(&world, &ours.name()).await, "the day has come back, and none is made beside it");
        }
    }
    let plan = plan_of(&world).await;
    assert_eq!(outline(&plan), [("events".to_owned(), day(40).to_string(), 30, "drop".to_owned())]);
    run_of(&world).await;
    assert!(!is_there(&world, NAME).await);
    let worker = world.workers("audit").await;
    audited(&world, "retention.run", 3).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn what_a_release_before_had_taken_out_is_known_by_its_name() {
    let world = bare_world().await;
    fill(&world, "events", day(40), 30).await;
    let name = make_day(&world, "events", day(40)).await.name();
    world.execute(&format!("ALTER TABLE watchbook.event_logs DETACH PARTITION {name}")).await;
    world.execute(&format!("COMMENT ON TABLE {name} IS 'taken out by retention'")).await;
    assert_eq!(state(&world, "events", day(40)).await, Some(State::Detached));
    make_day(&world, "events", day(40)).await;
    assert_eq!((rows(&world, "events", day(40)).await, count(&world, &name).await), (30, 30));
    world.finish([]).await;
}

/// Creates partitions that are not a day: a week, half a day, one that is partitioned itself, and a DEFAULT partition.
async fn strange_partitions(world: &World) -> [(&'static str, &'static str); 4] {
    let strange = [
        ("executions", "watchbook.\"Week\""),
        ("events", "watchbook.half_a_day"),
        ("metrics", "watchbook.halves"),
        ("errors", "watchbook.error_logs_default"),
    ];
    partition(world, strange[0].0, strange[0].1, &bounds(day(107), day(100))).await;
    let half = format!("FOR VALUES FROM ('{} 06:00:00+00') TO ('{} 18:00:00+00')", day(40), day(40));
    partition(world, strange[1].0, strange[1].1, &half).await;
    let by_half = format!("{} PARTITION BY RANGE (created_at)", bounds(day(40), day(39)));
    partition(world, strange[2].0, strange[2].1, &by_half).await;
    let noon = format!("'{} 12:00:00+00'", day(40));
    for (name, from, until) in [("watchbook.morning", "MINVALUE", &*noon), ("watchbook.evening", &*noon, "MAXVALUE")] {
        let bounds = format!("FOR VALUES FROM ({from}) TO ({until})");
        world.execute(&format!("CREATE TABLE {name} PARTITION OF {} {bounds}", strange[2].1)).await;
    }
    partition(world, strange[3].0, strange[3].1, "DEFAULT").await;
    strange
}

#[tokio::test]
async fn what_is_no_day_is_named_and_left() {
    let world = world_with(&[]).await;
    let strange = strange_partitions(&world).await;
    fill(&world, "executions", day(103), 60).await;
    fill(&world, "metrics", day(40), 60).await;
    fill(&world, "events", day(40), 60).await;
    // Rows of a day without a partition are in the DEFAULT partition, so that day cannot get one any more.
    let late = |n: u32| {
        format!(
            "INSERT INTO watchbook.error_logs (trace_id, error_type, message, severity, id, created_at, received_at, attributes)
             VALUES ('t-{n}', 'x', 'x', 'error', gen_random_uuid(), '{} 12:00:00+00', now(), '{{}}')",
            day(100)
        )
    };
    world.execute(&late(1)).await;
    make_day(&world, "errors", day(100)).await;
    world.execute(&late(2)).await;
    assert_eq!(count(&world, strange[3].1).await, 2);
    // Partitions around the half day hold the rest of the day.
    assert_eq!((rows(&world, "events", day(40)).await, count(&world, strange[1].1).await), (60, 30));
    let plan = plan_of(&world).await;
    for (kind, name) in strange {
        let left = plan.as_array().unwrap().iter().find(|item| item["why"].as_str().unwrap().contains(name));
        let left = left.unwrap_or_else(|| panic!("{name} in {plan}"));
        assert_eq!((&left["kind"], &left["action"], &left["rows"]), (&json!(kind), &json!("keep"), &json!(0)));
    }
    let report = run_of(&world).await;
    assert!(report["items"].as_array().unwrap().iter().all(|item| item["action"] == "keep"), "{report}");
    assert_eq!(rows(&world, "executions", day(103)).await, 60);
    assert_eq!(rows(&world, "metrics", day(40)).await, 60);
    assert_eq!(rows(&world, "errors", day(100)).await, 2);
    let findings = world.run(&["doctor", "--json"]).await.json();
    for (kind, name) in strange {
        let is_it = |finding: &&serde_json::Value| finding["detail"].as_str().unwrap().contains(name);
        let finding = findings.as_array().unwrap().iter().find(is_it);
        let finding = finding.unwrap_or_else(|| panic!("{name} in {findings}"));
        assert_eq!(
            (&finding["subject"], &finding["verdict"]),
            (&json!(format!("{kind} partitions")), &json!("warning"))
        );
        assert!(finding["mend"].as_str().unwrap().contains(&format!("DETACH PARTITION {name}")), "{finding}");
    }
    // An erasure works on rows, and finds them in any partition.
    world.run(&["erase", "user", "u-1", "--by", "ann"]).await.succeeded();
    assert_eq!(world.count("SELECT count(*) FROM watchbook.sandbox_execution_logs WHERE user_id = 'u-1'").await, 0);
    assert_eq!(rows(&world, "executions", day(103)).await, 45);
    let worker = world.workers("audit").await;
    audited(&world, "retention.run", 1).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn doctor_names_a_partition_that_readers_may_read_past_the_policies() {
    let world = world_with(&[]).await;
    foreign_day(&world, "events", "watchbook.theirs", day(40)).await;
    let sound = world.run(&["doctor"]).await;
    sound.does_not_print("watchbook.theirs");
    world.execute("GRANT SELECT ON watchbook.theirs TO watchbook_reader").await;
    let wrong = world.run(&["doctor"]).await;
    wrong.ended_with(1).prints("REVOKE SELECT ON watchbook.theirs");
    world.finish([]).await;
}

#[tokio::test]
async fn a_writer_stores_into_partitions_of_other_names_and_bounds() {
    let world = crate::world().without_setup().start().await;
    for table in ["event_logs", "dead_letters"] {
        let drop_all = format!(
            "DO $$ DECLARE child regclass; BEGIN
                 FOR child IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'watchbook.{table}'::regclass
                 LOOP EXECUTE format('DROP TABLE %s', child); END LOOP; END $$"
        );
        world.execute(&drop_all).await;
    }
    // From noon yesterday, so that yesterday is split, for more than a week.
    let today = Utc::now().date_naive();
    let yesterday = today - Days::new(1);
    let week = format!("FOR VALUES FROM ('{yesterday} 12:00:00+00') TO ('{} 00:00:00+00')", today + Days::new(8));
    partition(&world, "events", "watchbook.\"This Week\"", &week).await;
    foreign_day(&world, "dead_letters", "watchbook.\"Dead Today\"", today).await;
    world.run(&["setup"]).await.succeeded();
    let worker = world.workers("events").await;
    for (n, hours) in [(0, 0), (1, 6), (2, 18)] {
        let happened_at = if n == 0 { Utc::now() } else { midnight(yesterday) + TimeDelta::hours(hours) };
        world.publish(Kind::Events, &event_with(n, json!({ "created_at": time(happened_at) }))).await;
    }
    world.publish(Kind::Events, &json!({ "no": "event type" })).await;
    world.settled_as(Kind::Events, [3, 0, 1, 0]).await;
    assert_eq!(count(&world, "watchbook.\"This Week\"").await, 2);
    assert_eq!(rows(&world, "events", yesterday).await, 2);
    assert_eq!(count(&world, "watchbook.\"Dead Today\"").await, 1);
    world.finish([worker]).await;
}

#[tokio::test]
async fn rows_that_policies_of_a_partition_hide_are_no_reason_to_drop_it() {
    let world = bare_world().await;
    foreign_day(&world, "events", "watchbook.guarded", day(40)).await;
    fill(&world, "events", day(40), 30).await;
    world.execute("ALTER TABLE watchbook.guarded ENABLE ROW LEVEL SECURITY").await;
    let mut session = store::partition_removal::session(&super::fixtures::database(&world)).await.unwrap();
    let found = store::partition_removal::list(&mut session, dataset("events")).await.unwrap();
    // A user who may read the partition and does not own it.
    let reader = "BEGIN; GRANT SELECT ON watchbook.guarded TO watchbook_reader; SET LOCAL ROLE watchbook_reader";
    sqlx::raw_sql(reader).execute(&mut session).await.unwrap();
    let counted = store::partition_removal::count(&mut session, &found[0], &[], None).await;
    assert!(counted.unwrap_err().to_string().contains("row-level security"));
    session.close().await.unwrap();
    world.finish([]).await;
}
