//! Tests queries: results, pagination and visibility.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::sample_rows::{ROWS, gateway_with_rows, viewer};
use crate::test_gateway::TestGateway;
use crate::tokens::{claims, sign};

/// Every list, with parameters for which it returns all rows of a caller.
const LISTS: [&str; 7] = [
    "/api/events?project_id=p",
    "/api/errors?run_id=r",
    "/api/errors/trace%2F1?",
    "/api/errors/groups?trace_id=trace%2F1",
    "/api/metrics?container_id=c",
    "/api/logs?container_id=c",
    "/api/executions?strategy_id=s%2B1",
];
/// Every other query.
const OTHERS: [&str; 5] = [
    "/api/metrics?step=1h&container_id=c",
    "/api/executions/stats?strategy_id=s%2B1",
    "/api/executions/trends?days=7",
    "/api/users/u/executions/stats?",
    "/api/strategies/s+1/health?",
];

/// Returns the key of an item.
fn id_of(item: &Value) -> String {
    let id = if item["id"].is_null() { &item["fingerprint"] } else { &item["id"] };
    id.as_str().unwrap_or_else(|| panic!("{item}")).to_owned()
}

#[tokio::test]
async fn lists_go_on_where_they_ended() {
    let gateway = gateway_with_rows().await;
    let token = viewer(&["acme"]);
    for list in LISTS {
        let whole: Vec<_> = gateway.items(list, &token).await.iter().map(id_of).collect();
        assert_eq!(whole.len(), ROWS, "{list}");
        let (mut paged, mut path) = (Vec::new(), format!("{list}&limit=2"));
        for page in 1..=ROWS / 2 {
            let answer = gateway.answer(&path, &token).await;
            let items = answer["items"].as_array().unwrap();
            assert_eq!(items.len(), 2, "page {page} of {list}");
            paged.extend(items.iter().map(id_of));
            let is_last = page == ROWS / 2;
            assert_eq!(answer["next_cursor"].is_null(), is_last, "page {page} of {list}");
            if !is_last {
                path = format!("{list}&limit=2&cursor={}", answer["next_cursor"].as_str().unwrap());
            }
        }
        assert_eq!(paged, whole, "{list}");
        assert_eq!(paged.iter().collect::<BTreeSet<_>>().len(), ROWS);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn what_comes_between_two_pages_takes_nothing_out_of_them() {
    let (gateway, token) = (gateway_with_rows().await, viewer(&["acme"]));
    let whole: Vec<_> = gateway.items("/api/errors/groups", &token).await.iter().map(id_of).collect();
    let first = gateway.answer("/api/errors/groups?limit=1", &token).await;
    // The group that is now last becomes the first.
    gateway
        .world
        .execute(&format!(
            "INSERT INTO watchbook.error_logs (trace_id, error_type, message, fingerprint, severity, id, organization_id,
                                               created_at, received_at, attributes)
             SELECT trace_id, error_type, message, fingerprint, severity, gen_random_uuid(), organization_id, now(), now(), '{{}}'
               FROM watchbook.error_logs WHERE fingerprint = '{}'",
            whole[ROWS - 1]
        ))
        .await;
    let rest = format!("/api/errors/groups?cursor={}", first["next_cursor"].as_str().unwrap());
    let rest = gateway.items(&rest, &token).await;
    assert_eq!(rest.iter().map(id_of).collect::<Vec<_>>(), whole[1..]);
    assert!(rest.iter().all(|group| group["count"] == 1), "{rest:?}");
    assert_eq!(id_of(&gateway.items("/api/errors/groups", &token).await[0]), whole[ROWS - 1]);
    gateway.finish().await;
}

#[tokio::test]
async fn a_page_of_large_records_is_a_short_one() {
    const LARGE: usize = 1 << 20;
    const MOST: usize = 9 * LARGE;
    let (gateway, token) = (gateway_with_rows().await, viewer(&["globex"]));
    gateway
        .world
        .execute(&format!(
            "UPDATE watchbook.event_logs SET payload = jsonb_build_object('large', repeat('x', {LARGE}));
             INSERT INTO watchbook.event_logs (event_type, payload, actor_type, run_id, id, organization_id, created_at,
                                               received_at, attributes)
             SELECT event_type, payload, actor_type, run_id, gen_random_uuid(), organization_id, created_at, received_at,
                    attributes
               FROM watchbook.event_logs, generate_series(1, 4) WHERE organization_id = 'globex'"
        ))
        .await;
    let (mut ids, mut pages, mut more) = (BTreeSet::new(), 0, String::new());
    loop {
        let page = gateway.get(&format!("/api/events?run_id=r&limit=1000{more}"), &token).await;
        assert!(page.text.len() < MOST, "{} bytes", page.text.len());
        let page = page.json();
        for item in page["items"].as_array().unwrap() {
            assert!(ids.insert(id_of(item)), "twice: {}", id_of(item));
        }
        pages += 1;
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        more = format!("&cursor={cursor}");
    }
    assert_eq!((ids.len(), pages), (4 * 5, 3));
    gateway.finish().await;
}

#[tokio::test]
async fn a_cursor_is_good_for_its_list_and_caller() {
    let gateway = gateway_with_rows().await;
    let token = viewer(&["acme"]);
    let mut stranger = claims("viewer", &["acme"]);
    stranger["sub"] = json!("somebody else");
    let strangers = [sign(&stranger), viewer(&["acme", "globex"]), viewer(&["*"])];
    for list in LISTS {
        let first = gateway.answer(&format!("{list}&limit=2"), &token).await;
        let cursor = first["next_cursor"].as_str().unwrap();
        assert_eq!(gateway.items(&format!("{list}&cursor={cursor}"), &token).await.len(), ROWS - 2, "{list}");
        for stranger in &strangers {
            assert_eq!(gateway.faults(&format!("{list}&cursor={cursor}"), stranger).await, ["cursor"], "{list}");
        }
        for other in LISTS.into_iter().filter(|other| *other != list) {
            assert_eq!(
                gateway.faults(&format!("{other}&cursor={cursor}"), &token).await,
                ["cursor"],
                "{list} on {other}"
            );
        }
        let narrower = format!("{list}&organization_id=acme&cursor={cursor}");
        assert_eq!(gateway.faults(&narrower, &token).await, ["cursor"], "{list}");
        assert_eq!(gateway.faults(&format!("{list}&cursor=A{cursor}"), &token).await, ["cursor"], "{list}");
    }
    let of_one = gateway.answer("/api/errors/trace%2F1?limit=2", &token).await;
    let of_another = format!("/api/errors/another?cursor={}", of_one["next_cursor"].as_str().unwrap());
    assert_eq!(gateway.faults(&of_another, &token).await, ["cursor"]);
    gateway.finish().await;
}

/// Returns the number of records from which a query's result is computed.
fn counted(answer: &Value) -> u64 {
    let items = answer["items"].as_array().or(answer["points"].as_array());
    let Some(items) = items else { return answer["count"].as_u64().or(answer["total"].as_u64()).unwrap() };
    let of = |item: &Value| item["samples"].as_u64().or(item["total"].as_u64()).unwrap_or(1);
    items.iter().map(of).sum()
}

#[tokio::test]
async fn nobody_learns_of_anybody_elses() {
    let gateway = gateway_with_rows().await;
    let (own, several, none) = (viewer(&["acme"]), viewer(&["acme", "globex"]), viewer(&[]));
    for path in LISTS.into_iter().chain(OTHERS) {
        let count = async |token: &str, more: &str| {
            let answer = gateway.answer(&format!("{path}{more}"), token).await;
            let tells = |name: &str| answer.to_string().contains(name);
            (counted(&answer), tells("globex"), tells("nobody"))
        };
        assert_eq!(count(&own, "").await, (6, false, false), "{path}");
        assert_eq!(count(&own, "&organization_id=acme").await, (6, false, false), "{path}");
        for foreign in ["globex", "_", "nobody", "no-such-one"] {
            let more = format!("&organization_id={foreign}");
            assert_eq!(count(&own, &more).await, (0, false, false), "{path}{more}");
            assert_eq!(count(&none, &more).await, (0, false, false), "{path}{more}");
        }
        assert_eq!(count(&none, "").await, (0, false, false), "{path}");
        assert_eq!(count(&several, "").await.0, 10, "{path}");
        assert_eq!(count(&several, "&organization_id=globex").await.0, 4, "{path}");
        assert_eq!(count(&viewer(&["*"]), "").await.0, 13, "{path}");
        assert_eq!(count(&viewer(&["*"]), "&organization_id=globex").await.0, 4, "{path}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn filters_narrow_down() {
    let gateway = gateway_with_rows().await;
    let token = viewer(&["acme"]);
    for (path, rows) in [
        ("/api/events", 6),
        ("/api/events?project_id=p&run_id=r&user_id=u", 6),
        ("/api/events?event_type=type+1", 3),
        ("/api/events?run_id=x", 0),
        ("/api/events?run_id=r'%20OR%201=1--", 0),
        ("/api/events?to=2020-01-01T00:00:00Z", 0),
        ("/api/events?to=0000-01-01T00:00:00%2B23:59", 0),
        ("/api/events?from=9999-12-30T00:00:00Z&to=9999-12-31T23:59:60.999999999Z", 0),
        ("/api/errors/groups?to=0000-01-01T00:00:00Z&from=0000-01-01T00:00:00.000000001%2B00:01", 0),
        ("/api/errors", 6),
        ("/api/errors?trace_id=trace/1&project_id=p&run_id=r", 6),
        ("/api/errors?error_type=type%201&severity=error", 2),
        ("/api/errors?severity=critical", 1),
        ("/api/errors?endpoint=/run", 6),
        ("/api/errors/trace%2F2", 0),
        ("/api/errors/groups?severity=critical", 1),
        ("/api/metrics?container_id=d", 0),
        ("/api/logs", 6),
        ("/api/logs?stream=stderr", 1),
        ("/api/logs?contains=line%203", 1),
        ("/api/logs?container_id=x", 0),
        ("/api/logs?container_id=c&stream=stderr", 1),
        ("/api/logs?container_id=c&contains=line%203", 1),
        ("/api/logs?container_id=c&contains=%25", 0),
        ("/api/executions?user_id=u&execution_type=VALIDATION", 5),
        ("/api/executions?success=false", 3),
        ("/api/executions?success=true&strategy_id=s%2B1", 3),
    ] {
        assert_eq!(gateway.items(path, &token).await.len(), rows, "{path}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn what_is_summed_up_adds_up() {
    let gateway = gateway_with_rows().await;
    let token = viewer(&["acme"]);
    let execution = &gateway.items("/api/executions?execution_type=TERMINAL", &token).await[0];
    assert_eq!(execution["user_email"], "acme@example.org", "{execution}");
    assert_eq!(execution["strategy_name"], "strategy of acme");
    let stats = gateway.answer("/api/executions/stats?strategy_id=s%2B1", &token).await;
    assert_eq!(
        stats,
        json!({ "count": 6, "avg_execution_time_ms": 3.5, "avg_memory_used_mb": null,
        "avg_cpu_usage_percent": null, "total_errors": 21, "total_warnings": 0 })
    );
    let nothing = gateway.answer("/api/executions/stats?strategy_id=x", &token).await;
    assert_eq!((&nothing["count"], &nothing["avg_execution_time_ms"]), (&json!(0), &Value::Null));
    let days = gateway.answer("/api/executions/trends", &token).await;
    assert_eq!(days["items"].as_array().unwrap().len(), 7);
    let user = gateway.answer("/api/users/u/executions/stats", &token).await;
    assert_eq!(user, json!({ "total": 6, "successful": 3, "success_rate": 0.5, "avg_execution_time_ms": 3.5 }));
    let health = gateway.answer("/api/strategies/s+1/health", &token).await;
    assert_eq!((&health["total"], &health["avg_errors"]), (&json!(6), &json!(3.5)), "{health}");
    assert!(health["last_validated"].is_string());
    let series = gateway.answer("/api/metrics?container_id=c&step=1d", &token).await;
    let points = series["points"].as_array().unwrap();
    let peak = |point: &Value| point["cpu_usage_percent"]["max"].as_f64().unwrap();
    assert!((points.iter().map(peak).fold(0.0, f64::max) - 6.0).abs() < f64::EPSILON, "{series}");
    assert_eq!(series["step_seconds"], 86_400);
    assert_eq!(points[0]["memory_usage_bytes"], Value::Null);
    let groups = gateway.items("/api/errors/groups?sparks=5", &token).await;
    assert_eq!(groups[0]["sparkline"], json!([0, 0, 0, 0, 1]));
    gateway.finish().await;
}

#[tokio::test]
async fn what_cannot_be_asked_is_named() {
    let gateway = TestGateway::start().await;
    let long = "x".repeat(257);
    let (own, all) = (viewer(&["acme"]), viewer(&["*"]));
    for (path, field) in [
        ("/api/events?userid=u", "userid"),
        ("/api/events?limit=1001", "limit"),
        ("/api/events?limit=0", "limit"),
        ("/api/events?cursor=x", "cursor"),
        ("/api/events?from=yesterday", "from"),
        ("/api/events?from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
        ("/api/events?organization_id=a.b", "organization_id"),
        ("/api/events?from=2020-01-01T00:00:00Z", "from"),
        // No index leads to an organization's events.
        ("/api/events?from=2026-01-01T00:00:00Z&to=2026-01-31T00:00:00Z", "from"),
        ("/api/errors?trace_id=", "trace_id"),
        ("/api/errors?trace_id=a&trace_id=a", "trace_id"),
        ("/api/errors?severity=bad", "severity"),
        ("/api/errors?endpoint=%00", "endpoint"),
        ("/api/errors/%00", "trace_id"),
        ("/api/errors/%ff", "trace_id"),
        (&format!("/api/errors/{long}"), "trace_id"),
        ("/api/errors/t?trace_id=t", "trace_id"),
        ("/api/errors/groups?sparks=201", "sparks"),
        ("/api/errors/groups?from=2026-01-01T00:00:00Z&to=2026-01-09T00:00:00Z&project_id=p", "from"),
        ("/api/metrics", "container_id"),
        ("/api/metrics?container_id=", "container_id"),
        ("/api/metrics?container_id=c&step=60", "step"),
        ("/api/metrics?container_id=c&step=0s", "step"),
        ("/api/metrics?container_id=c&step=7m", "step"),
        ("/api/metrics?container_id=c&step=999999999d", "step"),
        ("/api/metrics?container_id=c&step=32d", "step"),
        ("/api/metrics?container_id=c&step=1s&from=2026-01-01T00:00:00Z&to=2026-01-09T00:00:00Z", "step"),
        ("/api/metrics?container_id=c&step=1h&limit=5", "limit"),
        ("/api/logs?stream=stderr&from=2026-01-01T00:00:00Z&to=2026-01-09T00:00:00Z", "from"),
        ("/api/logs?container_id=c&stream=out", "stream"),
        ("/api/logs?container_id=c&contains=", "contains"),
        ("/api/logs?container_id=c&contains=x&from=2026-01-01T00:00:00Z&to=2026-01-09T00:00:00Z", "from"),
        ("/api/executions?success=yes", "success"),
        ("/api/executions?execution_type=validation", "execution_type"),
        ("/api/executions/stats?strategy_id=", "strategy_id"),
        ("/api/executions/stats?limit=5", "limit"),
        ("/api/executions/trends?days=0", "days"),
        ("/api/executions/trends?days=91", "days"),
        ("/api/executions/trends?days=7&from=2026-01-01T00:00:00Z", "from"),
        ("/api/users/%00/executions/stats", "id"),
        ("/api/users/u/executions/stats?cursor=x", "cursor"),
        (&format!("/api/strategies/{long}/health"), "id"),
        ("/api/strategies/s/health?to=now", "to"),
    ] {
        assert!(gateway.faults(path, &own).await.contains(&field.to_owned()), "{path}");
    }
    // A caller that sees everything cannot use an index by organization.
    for path in [
        "/api/errors?severity=error&from=2026-01-01T00:00:00Z&to=2026-01-09T00:00:00Z",
        "/api/executions?execution_type=TERMINAL&from=2026-01-01T00:00:00Z&to=2026-01-09T00:00:00Z",
    ] {
        assert_eq!(gateway.faults(path, &all).await, ["from"], "{path}");
        assert_eq!(gateway.get(path, &own).await.status, 200, "{path}");
    }
    // Aggregates cover the same number of days for all organizations as for one.
    for token in [&own, &all] {
        assert_eq!(gateway.get("/api/executions/trends?days=90", token).await.status, 200);
        assert_eq!(gateway.get("/api/executions/stats", token).await.status, 200);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_question_that_takes_too_long_is_told_to_ask_for_less() {
    let gateway = gateway_with_rows().await;
    let mut locking = gateway.world.database().begin().await.unwrap();
    sqlx::query("LOCK TABLE watchbook.event_logs").execute(&mut *locking).await.unwrap();
    let answer = gateway.get("/api/events", &viewer(&["acme"])).await;
    locking.rollback().await.unwrap();
    let problem = answer.problem(503);
    assert_eq!(problem["type"], "urn:watchbook:problem:asks-too-much");
    assert!(problem["detail"].as_str().unwrap().contains("ask for a shorter time"), "{problem}");
    gateway.finish().await;
}

#[tokio::test]
async fn numbers_come_back_as_they_were_stored() {
    let gateway = gateway_with_rows().await;
    // More than any f64, and more digits than one keeps.
    let numbers = r#"{"large": 1e400, "exact": 0.1234567890123456789}"#;
    for (table, columns) in [
        ("event_logs", &["payload", "attributes"][..]),
        ("error_logs", &["detail", "attributes"]),
        ("container_metrics", &["attributes"]),
        ("container_logs", &["attributes"]),
        ("sandbox_execution_logs", &["metadata", "attributes"]),
    ] {
        for column in columns {
            gateway.world.execute(&format!("UPDATE watchbook.{table} SET {column} = '{numbers}'")).await;
        }
    }
    let large = format!("1{}", "0".repeat(400));
    for list in LISTS.iter().filter(|list| !list.contains("/groups")) {
        let answer = gateway.get(list, &viewer(&["acme"])).await;
        assert_eq!(answer.status, 200, "{list}: {answer:?}");
        assert!(answer.text.contains(&large) && answer.text.contains("0.1234567890123456789"), "{list}");
    }
    gateway.finish().await;
}
