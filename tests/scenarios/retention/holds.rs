//! Held rows are kept, one by one, and removed when the hold is released.

use harness::World;
use serde_json::{Value, json};
use store::partitions::State;

use super::fixtures::{
    audited, content, content_where, day, everything, fill, hold, item, outline, plan_of, release, rows, run_of, state,
    world_with,
};

async fn samples(world: &World) -> i64 {
    let hours = world.count("SELECT coalesce(sum(samples), 0)::bigint FROM watchbook.container_metric_hours").await;
    hours + world.count("SELECT count(*) FROM watchbook.container_metrics").await
}

/// Returns what a plan says about an item: action, rows that are removed, rows that are kept, and the rows of each
/// hold.
fn says(item: &Value) -> (String, u64, u64, Vec<(String, u64)>) {
    let held = item["held"].as_array().unwrap().iter();
    let held = held.map(|held| (held["hold"].as_str().unwrap().to_owned(), held["rows"].as_u64().unwrap())).collect();
    let number = |name: &str| item[name].as_u64().unwrap();
    (item["action"].as_str().unwrap().to_owned(), number("rows"), number("kept_rows"), held)
}

#[tokio::test]
async fn what_holds_name_stays_and_the_rest_goes() {
    let world = world_with(&[]).await;
    let (forty, hundred) = (day(40), day(100));
    for (kind, day) in [
        ("events", forty),
        ("errors", hundred),
        ("logs", forty),
        ("metrics", forty),
        ("dead_letters", hundred),
        ("executions", hundred),
    ] {
        fill(&world, kind, day, 24).await;
    }
    let (from, to) = (format!("{forty}T06:00:00Z"), format!("{forty}T12:00:00Z"));
    let acme = hold(&world, &["--org", "acme"]).await;
    let errors = hold(&world, &["--kind", "errors"]).await;
    let morning = hold(&world, &["--kind", "logs", "--from", &from, "--to", &to]).await;
    let nobody = hold(&world, &["--kind", "events", "--org", "_"]).await;
    let elsewhere = hold(&world, &["--kind", "executions", "--from", &to]).await;
    let id = |id: &String, rows| (id.clone(), rows);

    let plan = plan_of(&world).await;
    let expected = [
        ("events", forty, "rewrite", 8, 16, vec![id(&acme, 8), id(&nobody, 8)]),
        ("errors", hundred, "keep", 0, 24, vec![id(&acme, 8), id(&errors, 24)]),
        ("logs", forty, "rewrite", 12, 12, vec![id(&acme, 8), id(&morning, 6)]),
        ("metrics", forty, "rewrite", 16, 8, vec![id(&acme, 8)]),
        ("dead_letters", hundred, "rewrite", 16, 8, vec![id(&acme, 8)]),
        // The last hold begins after this day.
        ("executions", hundred, "rewrite", 16, 8, vec![id(&acme, 8)]),
    ];
    for (kind, day, action, gone, kept, held) in &expected {
        let found = says(item(&plan, kind, *day));
        assert_eq!(found, ((*action).to_owned(), *gone, *kept, held.clone()), "{kind}");
    }
    assert_eq!(item(&plan, "events", forty)["held"][0]["reason"], "case 17");
    world.run(&["retention", "plan"]).await.succeeded().prints(&format!("hold {acme} keeps 8: case 17"));

    let held = [
        ("events", forty, "organization_id = 'acme' OR organization_id IS NULL".to_owned()),
        ("errors", hundred, "true".to_owned()),
        ("logs", forty, format!("organization_id = 'acme' OR created_at >= '{from}' AND created_at < '{to}'")),
        ("metrics", forty, "organization_id = 'acme'".to_owned()),
        ("dead_letters", hundred, "subject LIKE '%.acme.%'".to_owned()),
        ("executions", hundred, "organization_id = 'acme'".to_owned()),
    ];
    let mut before = Vec::new();
    for (kind, day, condition) in &held {
        before.push(content_where(&world, kind, *day, condition).await);
    }
    run_of(&world).await;
    for ((kind, day, _), before) in held.iter().zip(&before) {
        assert_eq!(content(&world, kind, *day).await, *before, "{kind}");
        assert_eq!(state(&world, kind, *day).await, Some(State::Attached), "{kind}");
    }
    assert_eq!(samples(&world).await, 24);
    let of_acme = "SELECT count(*) FROM watchbook.container_metric_hours WHERE organization_id = 'acme'";
    assert_eq!(world.count(of_acme).await, 0, "its samples are still there");

    // Everything that is left is held.
    let plan = plan_of(&world).await;
    assert!(outline(&plan).iter().all(|(_, _, rows, action)| *rows == 0 && action == "keep"), "{plan}");
    let left = everything(&world).await;
    run_of(&world).await;
    assert_eq!(everything(&world).await, left);

    for id in [&acme, &errors, &morning, &nobody, &elsewhere] {
        release(&world, id).await;
    }
    world.run(&["retention", "release", &acme]).await.ended_with(1).prints("does not exist or is not in force");
    assert_eq!(world.run(&["retention", "holds", "--json"]).await.succeeded().json(), json!([]));
    let all = world.run(&["retention", "holds", "--all", "--json"]).await.succeeded().json();
    assert_eq!(all.as_array().unwrap().len(), 5);
    run_of(&world).await;
    for (kind, day, _) in &held {
        assert_eq!((rows(&world, kind, *day).await, state(&world, kind, *day).await), (0, None), "{kind}");
    }
    assert_eq!(samples(&world).await, 24);
    let worker = world.workers("audit").await;
    audited(&world, "retention.hold", 5).await;
    let released = audited(&world, "retention.release", 5).await;
    assert!(released.iter().all(|(actor, _, status)| actor == "ann" && status == "SUCCESS"), "{released:?}");
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_hold_that_names_nothing_keeps_everything_until_it_is_over() {
    let world = world_with(&[("WATCHBOOK_RETENTION__KEEP__AUDIT", "100d")]).await;
    for kind in ["events", "errors", "metrics", "logs", "executions", "dead_letters", "audit"] {
        let day = if kind == "audit" { super::fixtures::month(200) } else { day(100) };
        fill(&world, kind, day, 6).await;
    }
    // Expired hours belong to metrics: they are kept with them.
    world
        .execute(
            "CREATE TABLE watchbook.container_metric_hours_202001 PARTITION OF watchbook.container_metric_hours
                FOR VALUES FROM ('2020-01-01 00:00:00+00') TO ('2020-02-01 00:00:00+00');
             INSERT INTO watchbook.container_metric_hours
                    (container_id, hour, samples, cpu_usage_percent_samples, cpu_usage_percent_sum, memory_usage_bytes_samples,
                     memory_usage_bytes_sum, network_rx_bytes_samples, network_rx_bytes_sum, network_tx_bytes_samples,
                     network_tx_bytes_sum)
             VALUES ('c', '2020-01-05 12:00:00+00', 3, 0, 0, 0, 0, 0, 0, 0, 0)",
        )
        .await;
    let before = everything(&world).await;
    let all = hold(&world, &["--for", "1h"]).await;
    let plan = plan_of(&world).await;
    assert_eq!(plan.as_array().unwrap().len(), 8, "{plan}");
    assert!(
        plan.as_array().unwrap().iter().all(|item| item["action"] == "keep" && item["why"] == "all of it is held"),
        "{plan}"
    );
    run_of(&world).await;
    assert_eq!(everything(&world).await, before);
    world.execute(&format!("UPDATE watchbook.holds SET expires_at = now() WHERE id = '{all}'")).await;
    let report = run_of(&world).await;
    assert!(outline(&report["items"]).iter().all(|(_, _, _, action)| action == "drop"), "{report}");
    for kind in ["events", "errors", "logs", "executions", "dead_letters"] {
        assert_eq!(rows(&world, kind, day(100)).await, 0, "{kind}");
    }
    let worker = world.workers("audit").await;
    audited(&world, "retention.run", 2).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_hold_that_cannot_be_is_refused() {
    let world = world_with(&[]).await;
    let refused = async |of: &[&str], words: &str| {
        let arguments = [&["retention", "hold", "--reason", "case 17"], of].concat();
        world.run(&arguments).await.ended_with(1).prints(words);
    };
    refused(&["--from", "2026-02-01T00:00:00Z", "--to", "2026-01-01T00:00:00Z"], "before it begins").await;
    refused(&["--kind", "evnts"], "unknown kind `evnts`").await;
    refused(&["--org", "a b"], "is no organization").await;
    assert_eq!(world.count("SELECT count(*) FROM watchbook.holds").await, 0);
    world.finish([]).await;
}
