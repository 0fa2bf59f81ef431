//! The commands, as users and scripts call them.

use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use harness::messages::{MARKER, event};
use harness::{Signal, Watchbook, World, eventually, http};
use records::Kind;
use serde_json::{Value, json};

use crate::world;

#[tokio::test]
async fn every_process_answers_its_probes() {
    let world = world().start().await;
    let first = world.workers("events,logs").await;
    let second = world.workers("audit").await;
    world.publish_records(Kind::Events, 0..20).await;
    world.publish_records(Kind::Audit, 0..10).await;
    world.settled(Kind::Events).await;
    world.settled(Kind::Audit).await;
    for (worker, kind, stored, parts) in
        [(&first, "events", 20, &["events", "logs"][..]), (&second, "audit", 10, &["audit"])]
    {
        assert_eq!(worker.get("/healthz").await.status, 200);
        let ready = worker.get("/readyz").await;
        assert_eq!(ready.status, 200, "{ready:?}");
        let report: Value = serde_json::from_str(&ready.body).unwrap();
        let named: Vec<_> = report["parts"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(named, parts, "{report}");
        let metrics = worker.get("/metrics").await;
        assert_eq!(metrics.status, 200);
        let line = format!("watchbook_messages_total{{kind=\"{kind}\",outcome=\"stored\"}} {stored}");
        assert!(metrics.body.contains(&line), "{line} is not in\n{}", metrics.body);
        assert_eq!(worker.get("/nothing").await.status, 404);
    }
    world.finish([first, second]).await;
}

#[tokio::test]
async fn a_process_without_an_address_serves_nothing_and_works() {
    let world = world().with("WATCHBOOK_HTTP_ADDR", "off").start().await;
    let worker = world.spawn("events");
    world.publish_records(Kind::Events, 0..5).await;
    world.settled_as(Kind::Events, [5, 0, 0, 0]).await;
    assert!(!worker.log().contains("http://"), "{}", worker.log());
    world.finish([worker]).await;
}

#[tokio::test]
async fn setup_makes_what_is_missing_and_may_be_repeated() {
    let world = world().without_setup().start().await;
    for kind in Kind::ALL {
        assert!(world.jetstream().get_stream(world.stream(*kind)).await.is_err(), "{kind} is there already");
    }
    let made = world.run(&["setup"]).await;
    made.succeeded();
    for _ in 0..3 {
        let again = world.run(&["setup"]).await;
        again.succeeded().prints("0 migrations applied").does_not_print("created");
        for kind in Kind::ALL {
            made.prints(&format!("stream {}: created", world.stream(*kind)));
            again.prints(&format!("stream {}: as it should be", world.stream(*kind)));
        }
    }
    let migrations = world.run(&["migrate", "status", "--json"]).await.succeeded().json();
    assert!(migrations.as_array().unwrap().iter().all(|migration| migration["state"] == "applied"), "{migrations}");
    world.run(&["migrate", "run"]).await.succeeded();
    world.finish([]).await;
}

#[tokio::test]
async fn an_empty_database_is_migrated_once_however_many_do_it() {
    let world = world().own_postgres().start().await;
    world
        .execute("DROP SCHEMA watchbook CASCADE; DROP SCHEMA control_plane CASCADE; DROP TABLE _sqlx_migrations")
        .await;
    let pending = world.run(&["migrate", "status", "--json"]).await.succeeded().json();
    assert!(pending.as_array().unwrap().iter().all(|migration| migration["state"] == "pending"), "{pending}");
    world.run(&["run", "--workers", "events"]).await.ended_with(1).prints("pending").prints("watchbook setup");
    let (one, two, three) = tokio::join!(world.run(&["setup"]), world.run(&["setup"]), world.run(&["migrate", "run"]));
    one.succeeded();
    two.succeeded();
    three.succeeded();
    let worker = world.workers("all").await;
    world.publish_records(Kind::Events, 0..5).await;
    world.settled_as(Kind::Events, [5, 0, 0, 0]).await;

    world.execute("UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 2").await;
    let changed = world.run(&["migrate", "status", "--json"]).await;
    changed.ended_with(1);
    assert_eq!(changed.json()[1]["state"], "changed");
    world.run(&["run", "--workers", "events"]).await.ended_with(1).prints("changed after");
    world.finish([worker]).await;
}

#[tokio::test]
async fn publish_takes_good_lines_and_names_the_others() {
    let world = world().start().await;
    let worker = world.workers("events").await;
    let lines = format!("{}\n\n{{\"payload\":{{}}}}\nno JSON\n{}\n", event(0), event(1));
    let published = world.run_with(&["publish", "events", "--org", "acme"], &[], &lines).await;
    published.ended_with(1).prints("2 accepted, 2 refused").prints("line 3").prints("event_type").prints("line 4");
    world.settled_as(Kind::Events, [2, 0, 0, 0]).await;

    let file = world.directory().join("records.ndjson");
    std::fs::write(&file, (2..2_500).map(|n| format!("{}\n", event(n))).collect::<String>()).unwrap();
    let published = world.run(&["publish", "events", "--org", "acme", file.to_str().unwrap()]).await;
    published.succeeded().prints("2498 accepted, 0 refused");
    world.settled_as(Kind::Events, [2_500, 0, 0, 0]).await;
    world.holds_exactly(Kind::Events, 2_500).await;
    world.run(&["publish", "nonsense"]).await.ended_with(2).prints("events");
    world.finish([worker]).await;
}

#[tokio::test]
async fn tail_follows_one_organization() {
    let world = world().start().await;
    let mut tail = world.spawn_command(&["tail", "events", "--org", "acme"], &[("WATCHBOOK_LOG__FILTER", "info")]);
    tail.logged("following").await;
    let other = world.subject(Kind::Events, "globex");
    world.try_publish_bytes(&other, Default::default(), json!({ "event_type": "hidden" }).to_string()).await.unwrap();
    world.publish(Kind::Events, &event(0)).await;
    tail.printed(&event(0).to_string()).await;
    assert!(!tail.output().contains("hidden"), "{}", tail.output());
    tail.signal(Signal::Interrupt).await;
    assert!(tail.ended().await.success());
    let worker = world.workers("events").await;
    world.settled(Kind::Events).await;
    world.finish([tail, worker]).await;
}

#[tokio::test]
async fn status_tells_where_each_kind_stands() {
    let world = world().start().await;
    let mut worker = world.workers("events").await;
    world.publish_records(Kind::Events, 0..10).await;
    world.publish_all(Kind::Events, [event(0)]).await;
    world.publish_bytes(Kind::Events, "no JSON").await;
    world.settled(Kind::Events).await;
    worker.stop().await;
    world.publish_records(Kind::Events, 10..13).await;
    let status = world.run(&["status", "--json"]).await.succeeded().json();
    assert_eq!(status.as_array().unwrap().len(), Kind::ALL.len());
    let events = status.as_array().unwrap().iter().find(|kind| kind["kind"] == "events").unwrap();
    for (name, value) in [
        ("stream", json!(world.stream(Kind::Events))),
        ("last_sequence", json!(15)),
        ("settled", json!(12)),
        ("pending", json!(3)),
        ("stored", json!(10)),
        ("duplicates", json!(1)),
        ("dead_letters", json!(1)),
        ("deleted", json!(0)),
        ("writer", json!(null)),
    ] {
        assert_eq!(events[name], value, "{name} of {events}");
    }
    assert!(events["rate"].as_f64().unwrap() > 0.0, "{events}");
    assert!(events["oldest_unsettled_seconds"].as_f64().unwrap() >= 0.0, "{events}");
    world.run(&["status"]).await.succeeded().prints("events").prints("adds up");
    let second = world.workers("events").await;
    world.settled(Kind::Events).await;
    world.finish([worker, second]).await;
}

#[tokio::test]
async fn doctor_finds_nothing_wrong_here_and_says_what_is_wrong_there() {
    let world = world().start().await;
    let worker = world.workers("all").await;
    for &kind in Kind::ALL {
        worker.writes(kind).await;
    }
    let sound = world.run(&["doctor"]).await;
    sound.succeeded().does_not_print("WRONG");
    let partial = world.workers("all").await;
    world.jetstream().delete_stream(world.stream(Kind::Logs)).await.unwrap();
    let wrong = world.run(&["doctor"]).await;
    wrong.ended_with(1).prints(&world.stream(Kind::Logs)).prints("watchbook setup");
    world.run(&["setup"]).await.succeeded();
    world.finish([worker, partial]).await;
}

#[tokio::test]
async fn config_is_checked_and_shown_without_secrets() {
    let world = world().without_setup().start().await;
    let file = world.directory().join("watchbook.toml");
    std::fs::write(&file, "[writer]\nlanes = 2\n\nlames = 3\n").unwrap();
    let path = file.to_str().unwrap();
    for command in [&["config", "check"][..], &["run"], &["setup"], &["status"]] {
        let refused = world.run(&[&["--config", path], command].concat()).await;
        refused.ended_with(1).prints("watchbook.toml:4").prints("lames");
    }
    std::fs::remove_file(&file).unwrap();
    let refused = world.run_with(&["config", "check"], &[("WATCHBOOK_WRITER__LAMES", "3")], "").await;
    refused.ended_with(1).prints("WATCHBOOK_WRITER__LAMES").prints("lames");
    world.run(&["--config", "/nowhere.toml", "run"]).await.ended_with(1).prints("/nowhere.toml");

    std::fs::write(&file, "[writer]\nlanes = 3\n").unwrap();
    world.run(&["--config", path, "config", "check"]).await.succeeded().prints("no problems");
    let secret = "a-secret-that-nobody-may-see-on-a-screen";
    let shown = world.run_with(&["config", "show"], &[("WATCHBOOK_JWT_SECRET", secret)], "").await;
    // The file in the working directory is found without an option.
    shown.succeeded().prints("lanes = 3").prints(world.name()).does_not_print(secret);
    let password = world.database_url().split([':', '@']).nth(2).unwrap();
    shown.does_not_print(password);
    std::fs::remove_file(&file).unwrap();
    world.finish([]).await;
}

#[tokio::test]
async fn help_and_wrong_usage_have_their_exit_codes() {
    let world = world().without_setup().start().await;
    world.run(&["--help"]).await.succeeded().prints("Exit codes");
    for command in ["up", "run", "setup", "migrate", "publish", "tail", "status", "dead", "config", "doctor"] {
        world.run(&[command, "--help"]).await.succeeded().prints("Usage");
    }
    for command in [["audit", "export"], ["replay", "events"]] {
        let help = world.run(&[&command[..], &["--help"]].concat()).await;
        help.succeeded().prints("Examples:").prints(&format!("watchbook {}", command.join(" ")));
    }
    world.run(&[]).await.ended_with(2);
    world.run(&["nonsense"]).await.ended_with(2);
    world.run(&["run", "--workers", "nonsense"]).await.ended_with(2).prints("events");
    world.run(&["run", "--nonsense"]).await.ended_with(2);
    world.finish([]).await;
}

#[tokio::test]
async fn times_are_taken_as_people_type_them() {
    let world = world().start().await;
    let hold = ["retention", "hold", "--kind", "audit", "--reason", "case 17", "--json"];
    let hold = world.run(&[&hold[..], &["--from", "2026-01-01", "--to", "-24h"]].concat()).await.succeeded().json();
    assert_eq!(hold["starts_at"], "2026-01-01T00:00:00Z", "{hold}");
    let time = |member: &str| hold[member].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    assert_eq!(time("created_at") - time("ends_at"), TimeDelta::hours(24), "{hold}");
    let replay =
        ["replay", "events", "--to", "rebuild.search", "--dry-run", "--json", "--from", "-7d", "--to-time", "-1h"];
    let replay = world.run(&replay).await.succeeded().json();
    assert_eq!(replay["events"], 0, "{replay}");
    world.run(&["retention", "plan", "--at", "2026-01-01", "--json"]).await.succeeded();
    for wrong in [
        &["audit", "export", "--from", "yesterday"][..],
        &["audit", "export", "--from", "-7w"],
        &["retention", "hold", "--reason", "x", "--to", "2026-02-30"],
        &["replay", "events", "--to", "a.b", "--to-time", "24h"],
        &["alerts", "silence", "add", "a=b", "--reason", "x", "--until", "tomorrow"],
    ] {
        world.run(wrong).await.ended_with(2).prints("2026-06-15").prints("-24h");
    }
    let worker = world.workers("audit").await;
    world.settled(Kind::Audit).await;
    world.finish([worker]).await;
}

/// `watchbook up` without options: it starts its own servers.
fn up(world: &World, data: &Path) -> Watchbook {
    world.spawn_bare(&["up", "--data-dir", data.to_str().unwrap()])
}

/// The lines of `DIR/env`, once the file exists.
async fn environment(data: &Path, up: &Watchbook) -> Vec<(String, String)> {
    let text = eventually("`up` is ready", async || {
        std::fs::read_to_string(data.join("env")).map_err(|error| format!("{error}\n{}", up.log()))
    })
    .await;
    text.lines().map(|line| line.split_once('=').unwrap()).map(|(name, value)| (name.into(), value.into())).collect()
}

#[tokio::test]
async fn up_brings_everything_runs_once_and_keeps_its_data() {
    let world = world().without_setup().start().await;
    let data = world.directory().join("data");
    let mut first = up(&world, &data);
    let variables = environment(&data, &first).await;
    let names: Vec<_> = variables.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["NATS_URL", "DATABASE_URL", "WATCHBOOK_URL", "WATCHBOOK_TOKEN"]);
    let settings: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let address = variables[2].1.strip_prefix("http://").unwrap().parse().unwrap();
    assert_eq!(http::get(address, "/healthz").await.unwrap().status, 200);
    eventually("all workers are ready", async || {
        let answer = http::get(address, "/readyz").await?;
        if answer.status == 200 { Ok(()) } else { Err(answer.body) }
    })
    .await;

    let second = world.run_bare(&["up", "--data-dir", data.to_str().unwrap()]).await;
    second.ended_with(1).prints("already running").prints(&first.pid().to_string());
    assert!(data.join("env").exists(), "the second one leaves the first one's files alone");

    let lines: String = (0..100).map(|n| format!("{}\n", event(n))).collect();
    world.run_with(&["publish", "events", "--org", "acme"], &with_prefix(&settings), &lines).await.succeeded();
    let stored = async |settings: &[(&str, &str)]| {
        let settings = with_prefix(settings);
        eventually("all of it is stored", async || {
            let status = world.run_with(&["status", "--json"], &settings, "").await;
            let events =
                status.json().as_array().unwrap().iter().find(|kind| kind["kind"] == "events").unwrap().clone();
            let done =
                (&events["stored"], &events["pending"], &events["adds_up"]) == (&json!(100), &json!(0), &json!(true));
            if done { Ok(()) } else { Err(events.to_string()) }
        })
        .await;
    };
    stored(&settings).await;
    first.signal(Signal::Interrupt).await;
    assert!(first.ended().await.success(), "{}", first.log());
    // Its own nats-server was stopped too, and no connection logged a warning.
    first.stopped_quietly();
    assert!(!data.join("env").exists(), "nobody is led to servers that have gone");
    assert!(http::get(address, "/healthz").await.is_err());

    let mut third = up(&world, &data);
    let variables = environment(&data, &third).await;
    let settings: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    stored(&settings).await;
    third.signal(Signal::Terminate).await;
    assert!(third.ended().await.success(), "{}", third.log());
    third.stopped_quietly();
    assert!(!third.log().contains(MARKER) && !first.log().contains(MARKER));
    world.finish([first, third]).await;
}

/// `up` uses the default prefix, not the one of this world.
fn with_prefix<'s>(settings: &[(&'s str, &'s str)]) -> Vec<(&'s str, &'s str)> {
    settings.iter().copied().chain([("WATCHBOOK_NATS__PREFIX", "watchbook")]).collect()
}
