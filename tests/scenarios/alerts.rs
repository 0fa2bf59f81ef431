//! From records to notifications, with real processes and a real webhook, while processes are killed.

use chrono::{TimeDelta, Utc};
use harness::messages::time;
use harness::{Watchbook, Webhook, World, eventually};
use records::Kind;
use serde_json::{Value, json};

use crate::world;

/// The label that identifies the rule of an alert.
const RULE: &str = "alertname";

/// Executions of a strategy, of which `failed` failed. The successful ones come first, so that an evaluation in between
/// does not fire.
fn executions(strategy: &str, good: u64, failed: u64) -> impl Iterator<Item = Value> + use<'_> {
    (0..good + failed).map(move |n| {
        json!({ "user_id": "u-1", "strategy_id": strategy, "execution_type": "TERMINAL", "success": n < good,
                "execution_time_ms": 5 })
    })
}

/// The failure-rate rule of the contract, which recovers within a second, and a receiver for all alerts.
fn failure_rate(webhook: &Webhook) -> String {
    format!(
        r#"
[[rules]]
name = "execution-failure-rate"
source = "executions"
failed_when = "success == false"
window = "1h"
threshold = "30%"
min_samples = 10
recover_below = "25%"
keep_firing_for = "1s"
severity = "critical"
{}"#,
        receiver(webhook)
    )
}

fn receiver(webhook: &Webhook) -> String {
    format!(
        r#"
[[receivers]]
name = "ops"
webhook = {{ url = "{}" }}

[[routes]]
to = ["ops"]
"#,
        webhook.url()
    )
}

/// A rule that fires once `count` executions are evaluated. If another rule has not fired by then, it did not fire for
/// a reason.
fn witness(count: u64) -> String {
    format!(
        r#"
[[rules]]
name = "seen-{count}"
source = "executions"
window = "1h"
threshold = "{}"
severity = "info"
"#,
        count - 1
    )
}

fn write_settings(world: &World, text: &str) {
    let path = world.directory().join("watchbook.toml");
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// The workers on the path from a record to a notification.
const WORKERS: &str = "executions,alerts,notifier";

#[tokio::test]
async fn thirty_of_a_hundred_are_silent_and_the_next_one_fires_once_whatever_is_killed() {
    let (world, webhook) = (world().start().await, Webhook::start().await);
    write_settings(&world, &[failure_rate(&webhook), witness(100), witness(102)].concat());
    let mut first = world.workers(WORKERS).await;
    world.publish_all(Kind::Executions, executions("s-1", 70, 30)).await;
    webhook.delivers(RULE, &[("firing", "seen-100")]).await;
    world.publish_all(Kind::Executions, executions("s-1", 0, 1)).await;
    webhook.delivers(RULE, &[("firing", "seen-100"), ("firing", "execution-failure-rate")]).await;
    first.kill().await;
    let second = world.workers(WORKERS).await;
    world.publish_all(Kind::Executions, executions("s-1", 0, 1)).await;
    let told = [("firing", "seen-100"), ("firing", "execution-failure-rate"), ("firing", "seen-102")];
    webhook.delivers(RULE, &told).await;
    // 32 of 142 are 22.5 %: the alert recovers, and resolves a second later.
    world.publish_all(Kind::Executions, executions("s-1", 40, 0)).await;
    webhook.delivers(RULE, &[&told[..], &[("resolved", "execution-failure-rate")]].concat()).await;
    let listed = world.run(&["alerts", "list", "--rule", "execution-failure-rate"]).await;
    listed.succeeded().prints("32 of 142 failed").prints("22.5 %");
    world.finish([first, second]).await;
}

#[tokio::test]
async fn two_of_everything_tell_each_transition_once_and_take_over_from_each_other() {
    let (world, webhook) = (world().start().await, Webhook::start().await);
    write_settings(&world, &[failure_rate(&webhook), witness(40)].concat());
    let (mut first, second) = (world.workers(WORKERS).await, world.workers(WORKERS).await);
    world.publish_all(Kind::Executions, executions("s-1", 10, 10)).await;
    webhook.delivers(RULE, &[("firing", "execution-failure-rate")]).await;
    first.kill().await;
    world.publish_all(Kind::Executions, executions("s-1", 0, 20)).await;
    webhook.delivers(RULE, &[("firing", "execution-failure-rate"), ("firing", "seen-40")]).await;
    let transitions: Vec<(String, String)> = world
        .query_all("SELECT from_condition, to_condition FROM watchbook.alert_transitions WHERE alert_id = (SELECT id FROM watchbook.alerts WHERE rule = 'execution-failure-rate')")
        .await;
    assert_eq!(transitions, [("inactive".to_owned(), "firing".to_owned())]);
    world.finish([first, second]).await;
}

#[tokio::test]
async fn what_is_decided_while_nobody_delivers_is_delivered_later_in_its_order() {
    let (world, webhook) = (world().start().await, Webhook::start().await);
    write_settings(&world, &failure_rate(&webhook));
    let mut evaluates = world.workers("executions,alerts").await;
    world.publish_all(Kind::Executions, executions("s-1", 10, 10)).await;
    let waiting = async |count: i64| {
        eventually("the outbox holds what was decided", async || {
            let found = world.count("SELECT count(*) FROM watchbook.outbox WHERE delivered_at IS NULL").await;
            if found == count { Ok(()) } else { Err(found.to_string()) }
        })
        .await;
    };
    waiting(1).await;
    // The process dies after the decision and before the notification.
    evaluates.kill().await;
    let evaluates_again = world.workers("executions,alerts").await;
    world.publish_all(Kind::Executions, executions("s-1", 60, 0)).await;
    waiting(2).await;
    // The first notifier gets errors and dies. The next one starts with the notification that the first one tried.
    webhook.answer_with(503);
    let mut notifies = world.workers("notifier").await;
    eventually(
        "the webhook is tried",
        async || {
            if webhook.calls().is_empty() { Err("no call".to_owned()) } else { Ok(()) }
        },
    )
    .await;
    notifies.kill().await;
    webhook.answer_with(200);
    world.execute("UPDATE watchbook.outbox SET due_at = now(), claimed_until = NULL").await;
    let notifies_again = world.workers("notifier").await;
    webhook.delivers(RULE, &[("firing", "execution-failure-rate"), ("resolved", "execution-failure-rate")]).await;
    let calls = webhook.calls();
    let first_tries: Vec<_> =
        calls.iter().filter(|call| call.alerts(RULE)[0].0 == "firing").map(harness::webhook::Call::id).collect();
    assert!(first_tries.len() >= 2 && first_tries.iter().all(|id| *id == first_tries[0]), "{first_tries:?}");
    world.finish([evaluates, evaluates_again, notifies, notifies_again]).await;
}

#[tokio::test]
async fn a_silence_keeps_a_firing_quiet_and_never_a_resolved() {
    let (world, webhook) = (world().start().await, Webhook::start().await);
    let by_strategy = failure_rate(&webhook).replace("window =", "group_by = [\"strategy\"]\nwindow =");
    write_settings(&world, &[by_strategy, witness(40), witness(60)].concat());
    let silence = async |matcher: &str| {
        let added =
            world.run(&["alerts", "silence", "add", matcher, "--for", "1h", "--reason", "a test", "--by", "me"]).await;
        added.succeeded().output.trim().to_owned()
    };
    let quiet = silence("strategy_id=quiet").await;
    let worker = world.workers(WORKERS).await;
    world.publish_all(Kind::Executions, executions("quiet", 10, 10).chain(executions("loud", 10, 10))).await;
    let strategies = |webhook: &Webhook| {
        let mut told = webhook.delivered("strategy_id");
        told.retain(|(_, strategy)| !strategy.is_empty());
        told
    };
    let told = async |expected: &[(&str, &str)]| {
        let expected: Vec<_> = expected.iter().map(|(status, of)| ((*status).to_owned(), (*of).to_owned())).collect();
        eventually(&format!("the webhook is told {expected:?}"), async || {
            let told = strategies(&webhook);
            if told == expected { Ok(()) } else { Err(format!("{told:?}")) }
        })
        .await;
    };
    told(&[("firing", "loud")]).await;
    let by =
        "SELECT count(*) FROM watchbook.alert_transitions WHERE silenced_by IS NOT NULL AND to_condition = 'firing'";
    eventually("the silenced one fires unheard", async || {
        if world.count(by).await == 1 { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    world.run(&["alerts", "list", "--firing"]).await.succeeded().prints(&format!("silenced by {quiet}"));
    // The other alert fired and is silenced now. It resolves, and its `resolved` is sent.
    silence("strategy_id=~lou.").await;
    world.publish_all(Kind::Executions, executions("loud", 60, 0)).await;
    told(&[("firing", "loud"), ("resolved", "loud")]).await;
    // The silence ends while the alert fires, so it is sent now.
    world.run(&["alerts", "silence", "end", &quiet]).await.succeeded();
    told(&[("firing", "loud"), ("resolved", "loud"), ("firing", "quiet")]).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn an_acknowledged_alert_is_not_repeated_and_its_end_is_told() {
    let (world, webhook) = (world().start().await, Webhook::start().await);
    let by_strategy = failure_rate(&webhook).replace("window =", "group_by = [\"strategy\"]\nwindow =");
    let repeats =
        by_strategy.replace("to = [\"ops\"]", "to = [\"ops\"]\ngroup_by = [\"strategy_id\"]\nrepeat_interval = \"1s\"");
    write_settings(&world, &repeats);
    let worker = world.workers(WORKERS).await;
    let repeated = async |strategy: &str, times: usize| {
        eventually(&format!("{strategy} is told {times} times"), async || {
            let told = webhook.delivered("strategy_id").into_iter().filter(|(_, of)| of == strategy).count();
            if told >= times { Ok(told) } else { Err(format!("{told}")) }
        })
        .await
    };
    world.publish_all(Kind::Executions, executions("a", 10, 10).chain(executions("b", 10, 10))).await;
    repeated("a", 2).await;
    let (id,): (String,) =
        world.query_one("SELECT id::text FROM watchbook.alerts WHERE labels->>'strategy_id' = 'a'").await;
    world.run(&["alerts", "ack", &id, "--reason", "looking", "--by", "me"]).await.succeeded().prints("acknowledged");
    // A repetition that was decided before the acknowledgement was read may still arrive. The other alert shows that
    // time passes.
    let others = repeated("b", 0).await;
    repeated("b", others + 2).await;
    let before = repeated("a", 2).await;
    let others = repeated("b", 0).await;
    repeated("b", others + 3).await;
    assert_eq!(repeated("a", 2).await, before);
    world.run(&["alerts", "list", "--firing"]).await.succeeded().prints("acknowledged by me");
    world.publish_all(Kind::Executions, executions("a", 60, 0)).await;
    eventually("its end is told", async || {
        let told = webhook.delivered("strategy_id");
        if told.contains(&("resolved".to_owned(), "a".to_owned())) { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_changed_file_is_used_where_it_is_right_and_named_where_it_is_wrong() {
    let (world, webhook) = (world().start().await, Webhook::start().await);
    write_settings(&world, &failure_rate(&webhook));
    let worker = world.workers(WORKERS).await;
    world.publish_all(Kind::Executions, executions("s-1", 10, 10)).await;
    webhook.delivers(RULE, &[("firing", "execution-failure-rate")]).await;
    let rules = async |what: &str| {
        eventually(&format!("`alerts rules` says {what:?}"), async || {
            let said = world.run(&["alerts", "rules", "--json"]).await;
            // The command reports the invalid file as well.
            let (settings,): (Option<String>,) = world.query_one("SELECT problem FROM watchbook.alert_settings").await;
            let said = format!("{}{}{settings:?}", said.output, said.errors);
            if said.contains(what) { Ok(()) } else { Err(said) }
        })
        .await;
    };
    write_settings(&world, &failure_rate(&webhook).replace("success == false", "succes == false"));
    rules("succes").await;
    worker.logged("the old rules stay in force").await;
    // The old rules stay in force and still produce notifications.
    world.publish_all(Kind::Executions, executions("s-1", 60, 0)).await;
    let told = [("firing", "execution-failure-rate"), ("resolved", "execution-failure-rate")];
    webhook.delivers(RULE, &told).await;
    // A file that is removed, or recreated empty, does not change the rules.
    std::fs::remove_file(world.directory().join("watchbook.toml")).unwrap();
    rules("the file is missing or empty").await;
    write_settings(&world, "");
    rules("the file is missing or empty").await;
    // A valid file is used at once, and stored records count.
    write_settings(&world, &[failure_rate(&webhook), witness(80)].concat());
    webhook.delivers(RULE, &[&told[..], &[("firing", "seen-80")]].concat()).await;
    // An alert whose rule is removed resolves.
    write_settings(&world, &failure_rate(&webhook));
    webhook.delivers(RULE, &[&told[..], &[("firing", "seen-80"), ("resolved", "seen-80")]].concat()).await;
    worker.ready().await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_test_notification_goes_the_whole_way_and_says_that_it_is_one() {
    let (world, webhook) = (world().start().await, Webhook::start().await);
    write_settings(&world, &failure_rate(&webhook));
    let worker = world.workers("notifier").await;
    world.run(&["alerts", "test", "execution-failure-rate"]).await.succeeded().prints("ops: delivered");
    assert_eq!(webhook.delivered("test"), [("firing".to_owned(), "true".to_owned())]);
    webhook.answer_with(400);
    world.run(&["alerts", "test", "execution-failure-rate"]).await.ended_with(1).prints("NOT delivered").prints("400");
    world.run(&["alerts", "test", "no-such-rule"]).await.ended_with(1).prints("there is no rule `no-such-rule`");
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_rule_can_be_tried_on_the_past() {
    let (world, webhook) = (world().start().await, Webhook::start().await);
    let worker = world.workers("executions").await;
    let now = Utc::now();
    let at = |minutes: i64| time(now - TimeDelta::minutes(minutes));
    // Ten successful executions ten minutes ago, ten failed ones eight minutes ago.
    let bodies = executions("s-1", 10, 10).enumerate().map(|(n, mut body)| {
        body["created_at"] = json!(at(if n < 10 { 10 } else { 8 }));
        body
    });
    world.publish_all(Kind::Executions, bodies).await;
    world.settled(Kind::Executions).await;
    let file = world.directory().join("tried.toml");
    std::fs::write(&file, failure_rate(&webhook)).unwrap();
    let file = file.to_str().unwrap();
    let tried = world.run(&["alerts", "backtest", "--rule", file, "--from", &at(60), "--to", &at(1), "--json"]).await;
    let changes = tried.succeeded().json()["execution-failure-rate"].as_array().unwrap().clone();
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!(changes[0]["to"], "firing");
    assert!(changes[0]["reason"].as_str().unwrap().contains("10 of 20 failed"), "{changes:?}");
    let minute = &at(8)[..16];
    assert!(changes[0]["at"].as_str().unwrap().starts_with(minute), "{changes:?} at {minute}");
    world
        .run(&["alerts", "backtest", "--rule", file, "--from", &at(7), "--to", &at(1)])
        .await
        .succeeded()
        .prints("would have fired 1 times");
    world
        .run(&["alerts", "backtest", "--rule", file, "--from", &at(1), "--to", &at(7)])
        .await
        .ended_with(1)
        .prints("is not before");
    world.finish([worker]).await;
}

#[tokio::test]
async fn the_dead_mans_switch_is_pinged_while_everything_works_and_not_otherwise() {
    let (world, webhook) = (
        world()
            .with("WATCHBOOK_ALERTS__CANARY_EVERY", "200ms")
            .with("WATCHBOOK_ALERTS__CANARY_WITHIN", "10s")
            .start()
            .await,
        Webhook::start().await,
    );
    write_settings(
        &world,
        &format!("[[receivers]]\nname = \"pulse\"\nheartbeat = {{ url = \"{}\" }}\n", webhook.url()),
    );
    let pings = |webhook: &Webhook| webhook.calls().len();
    let pinged = async |more: usize| {
        let before = pings(&webhook);
        eventually("the switch is pinged", async || {
            if pings(&webhook) >= before + more { Ok(()) } else { Err(pings(&webhook).to_string()) }
        })
        .await;
    };
    let worker: Watchbook = world.workers("events,alerts,notifier").await;
    pinged(2).await;
    // A canary is stored like any record, but is not part of any figures.
    assert!(world.count("SELECT count(*) FROM watchbook.event_logs WHERE event_type = 'watchbook.canary'").await > 0);
    assert_eq!(world.count("SELECT count(*) FROM watchbook.outcome_minutes").await, 0);
    let mut worker = worker;
    worker.stop().await;
    let half = world.workers("alerts,notifier").await;
    let before = pings(&webhook);
    // Two canaries are published and none arrives, because no writer writes events.
    eventually("canaries go out", async || {
        let account = world.try_account(Kind::Events).await?;
        if account.last_sequence > account.stored { Ok(()) } else { Err(format!("{account:?}")) }
    })
    .await;
    assert_eq!(pings(&webhook), before);
    let writer = world.workers("events").await;
    pinged(1).await;
    world.finish([worker, half, writer]).await;
}

#[tokio::test]
async fn health_is_told_on_its_subject_when_it_changes() {
    let world = world().start().await;
    let mut told = world.client().subscribe(format!("{}.health.acme.strategy", world.name())).await.unwrap();
    let worker = world.workers("executions,alerts").await;
    let mut next = async || -> Value {
        use futures::StreamExt;
        let message = tokio::time::timeout(harness::BOUND, told.next()).await.expect("health is told").unwrap();
        serde_json::from_slice(&message.payload).unwrap()
    };
    world.publish_all(Kind::Executions, executions("s-1", 20, 0)).await;
    let healthy = next().await;
    assert_eq!((healthy["entity_id"].as_str(), healthy["state"].as_str()), (Some("s-1"), Some("healthy")));
    world.publish_all(Kind::Executions, executions("s-1", 0, 20)).await;
    let failing = next().await;
    assert_eq!((failing["entity_id"].as_str(), failing["state"].as_str()), (Some("s-1"), Some("failing")));
    assert!(failing["reason"].as_str().unwrap().contains("20 of 40 failed"), "{failing}");
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_clock_that_is_behind_makes_nobody_silent_and_doctor_names_it() {
    let (world, webhook) = (world().start().await, Webhook::start().await);
    // Shorter than 12 minutes, so that a container counts as absent by its own clock.
    let rules = r#"
[health]
silent_after = "10m"
[[rules]]
name = "silent"
source = "metrics"
silent_for = "10m"
group_by = ["container"]
"#;
    write_settings(&world, &[rules, &witness(5), &receiver(&webhook)].concat());
    let worker = world.workers("metrics,executions,alerts,notifier").await;
    let sample = |container: &str, minutes: i64| {
        let created_at = time(Utc::now() - TimeDelta::minutes(minutes));
        json!({ "container_id": container, "cpu_usage_percent": 5.0, "source": "agent", "created_at": created_at })
    };
    // Clocks that are right, minutes behind (within what counts at the record's own minute), hours behind, and ahead.
    let clocks = [("right", 0), ("minutes-behind", 12), ("hours-behind", 180), ("ahead", -30)];
    world.publish_all(Kind::Metrics, clocks.map(|(container, minutes)| sample(container, minutes))).await;
    world.settled(Kind::Metrics).await;
    let healthy = eventually("every container is judged", async || {
        let rows: Vec<(String, String)> = world
            .query_all("SELECT entity_id, state FROM watchbook.health WHERE entity = 'container' ORDER BY entity_id")
            .await;
        if rows.len() == clocks.len() { Ok(rows) } else { Err(format!("{rows:?}")) }
    })
    .await;
    assert!(healthy.iter().all(|(_, state)| state == "healthy"), "{healthy:?}");
    // Another rule fires after these counts were evaluated. Absent containers would have fired by then.
    world.publish_all(Kind::Executions, executions("s-1", 5, 0)).await;
    webhook.delivers(RULE, &[("firing", "seen-5")]).await;

    let doctor = world.run(&["doctor"]).await;
    doctor
        .prints("clock of container minutes-behind, source agent, organization acme: 12m")
        .prints("clock of container hours-behind, source agent, organization acme: 3h")
        .prints("behind the stream's")
        .prints("clock of container ahead, source agent, organization acme: 29m 5")
        .prints("ahead of the stream's")
        .prints("NTP")
        .does_not_print("container right");
    world.finish([worker]).await;
}

#[tokio::test]
async fn what_needs_no_new_records_goes_on_while_nats_hangs() {
    let (world, webhook) = (world().proxies().start().await, Webhook::start().await);
    let repeats = failure_rate(&webhook).replace("to = [\"ops\"]", "to = [\"ops\"]\nrepeat_interval = \"1s\"");
    write_settings(&world, &repeats);
    let worker = world.workers(WORKERS).await;
    world.publish_all(Kind::Executions, executions("s-1", 10, 10)).await;
    let told = async |times: usize| {
        eventually(&format!("it is told {times} times"), async || {
            let told = webhook.delivered(RULE).len();
            if told >= times { Ok(told) } else { Err(told.to_string()) }
        })
        .await
    };
    told(1).await;
    world.nats_link().freeze();
    let before = told(1).await;
    told(before + 3).await;
    world.nats_link().restore();
    world.publish_all(Kind::Executions, executions("s-1", 60, 0)).await;
    eventually("its end is told", async || {
        let told = webhook.delivered(RULE);
        if told.last().is_some_and(|(status, _)| status == "resolved") { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
    // A reader behind a frozen link cannot delete its consumer.
    world.readers_were_broken(1);
    world.finish([worker]).await;
}

#[tokio::test]
async fn alerts_go_on_after_postgres_was_away() {
    let (world, webhook) = (world().proxies().start().await, Webhook::start().await);
    write_settings(&world, &failure_rate(&webhook));
    let worker = world.workers(WORKERS).await;
    world.publish_all(Kind::Executions, executions("s-1", 70, 30)).await;
    world.settled(Kind::Executions).await;
    world.postgres_link().cut();
    world.publish_all(Kind::Executions, executions("s-1", 0, 10)).await;
    worker.reports_ready(503, "Postgres").await;
    world.postgres_link().restore();
    webhook.delivers(RULE, &[("firing", "execution-failure-rate")]).await;
    worker.ready().await;
    world.finish([worker]).await;
}
