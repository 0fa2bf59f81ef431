//! Tests the audit log: visibility, export, and the self-audit of reads.

use std::collections::BTreeSet;

use chrono::{DateTime, Days, TimeDelta, Utc};
use gateway::Settings;
use gateway::auth::Role;
use harness::World;
use records::Kind;
use serde_json::{Value, json};
use store::partitions::{Partition, Partitions};
use store::{Connection, Database};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::test_gateway::{TestGateway, settings};
use crate::tokens::{claims, of, sign};

/// Starts a gateway with partitions for audit events and dead letters. No writers run.
pub(crate) async fn gateway() -> TestGateway {
    gateway_with(settings()).await
}

/// The same with the given settings of the gateway.
pub(crate) async fn gateway_with(settings: Settings) -> TestGateway {
    let gateway = TestGateway::with(World::builder("no binary").without_setup().start().await, settings).await;
    gateway.world.rows_were_dropped();
    let mut connection = Database::new(gateway.world.database_url(), "tests").unwrap().connect("tests").await.unwrap();
    let partitions = Partitions::default();
    for ago in 0..60 {
        let day = Utc::now() - Days::new(ago);
        partitions.ensure(&mut connection, Partition::of(Kind::Audit, day).unwrap()).await.unwrap();
    }
    partitions.ensure(&mut connection, Partition::of_dead_letters(Utc::now())).await.unwrap();
    connection.close().await.unwrap();
    gateway
}

/// Inserts audit events of an organization, one second apart, the newest a minute old, of the actors `u-0` to `u-4` in
/// turn.
pub(crate) async fn audit_events(gateway: &TestGateway, organization: &str, count: u32) {
    gateway
        .world
        .execute(&format!(
            "INSERT INTO control_plane.audit_logs (actor_id, actor_type, action, target_type, target_id, status, reason,
                    metadata, ip_address, id, organization_id, created_at, received_at, attributes)
             SELECT 'u-' || n % 5, 'user', 'project.delete', 'project', '=HYPERLINK(' || n || ')', 'SUCCESS',
                    CASE n % 3 WHEN 0 THEN 'said \"so\", \n and more' WHEN 1 THEN '-' || n END,
                    jsonb_build_object('n', n), '192.0.2.7', gen_random_uuid(), nullif('{organization}', '_'),
                    now() - interval '1 minute' - n * interval '1 second', now(), '{{}}'
               FROM generate_series(1, {count}) AS n"
        ))
        .await;
}

async fn items(gateway: &TestGateway, path: &str, token: &str) -> Vec<Value> {
    let answer = gateway.get(path, token).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()["items"].as_array().unwrap().clone()
}

/// Returns Watchbook's own audit events, oldest first.
pub(crate) async fn internal_records(gateway: &TestGateway) -> Vec<(Option<String>, Value)> {
    gateway
        .world
        .query_all(
            "SELECT organization_id, record FROM watchbook.own_records WHERE kind = 'audit' ORDER BY created_at, id",
        )
        .await
}

#[tokio::test]
async fn deeds_are_listed_with_names_and_stay_apart() {
    let gateway = gateway().await;
    audit_events(&gateway, "acme", 10).await;
    audit_events(&gateway, "globex", 20).await;
    gateway
        .world
        .execute(
            "INSERT INTO watchbook.entities (entity, entity_id, name, email, deleted, id, organization_id, created_at, received_at, attributes)
             VALUES ('user', 'u-1', 'Ann', 'ann@example.org', false, gen_random_uuid(), 'acme', now(), now(), '{}')",
        )
        .await;
    let (acme, all) = (of(Role::Viewer), sign(&claims("viewer", &["*"])));
    for (path, token, count) in [
        ("/api/audit", &acme, 10),
        ("/api/audit", &all, 30),
        ("/api/audit?organization_id=globex", &all, 20),
        ("/api/audit?organization_id=globex", &acme, 0),
        ("/api/organizations/acme/audit", &acme, 10),
        ("/api/organizations/globex/audit", &acme, 0),
        ("/api/organizations/nobody/audit", &acme, 0),
        ("/api/organizations/globex/audit", &all, 20),
        ("/api/audit?actor_id=u-1", &acme, 2),
        ("/api/audit?actor_id=u-1&action=project.create", &acme, 0),
        ("/api/audit?target_type=project&target_id=%3DHYPERLINK(3)", &acme, 1),
        ("/api/audit?status=FAILURE", &acme, 0),
        ("/api/audit?ip_address=192.0.2.0/24&actor_type=user", &acme, 10),
        ("/api/audit?ip_address=192.0.3.7", &acme, 0),
        ("/api/audit?from=2019-01-01T00:00:00Z", &acme, 10),
    ] {
        assert_eq!(items(&gateway, path, token).await.len(), count, "{path}");
    }
    let of_ann = &items(&gateway, "/api/audit?actor_id=u-1", &acme).await[0];
    assert_eq!((&of_ann["actor_name"], &of_ann["actor_email"]), (&json!("Ann"), &json!("ann@example.org")));
    let of_globex = &items(&gateway, "/api/organizations/globex/audit?actor_id=u-1", &all).await[0];
    assert_eq!(of_globex["actor_name"], Value::Null, "what one organization calls a user is no news to another");
    gateway.finish().await;
}

#[tokio::test]
async fn a_cursor_goes_on_where_the_page_before_ended() {
    let gateway = gateway().await;
    audit_events(&gateway, "acme", 25).await;
    let token = of(Role::Viewer);
    let whole = items(&gateway, "/api/organizations/acme/audit", &token).await;
    let (mut read, mut cursor) = (Vec::new(), String::new());
    loop {
        let answer = gateway.get(&format!("/api/organizations/acme/audit?limit=10{cursor}"), &token).await.json();
        read.extend_from_slice(answer["items"].as_array().unwrap());
        let Some(next) = answer["next_cursor"].as_str() else { break };
        let elsewhere = gateway.get(&format!("/api/organizations/umbra/audit?limit=10&cursor={next}"), &token).await;
        assert_eq!(elsewhere.problem(400)["errors"][0]["field"], "cursor");
        cursor = format!("&cursor={next}");
    }
    assert_eq!(read, whole);
    gateway.finish().await;
}

#[tokio::test]
async fn a_relative_time_is_the_same_moment_on_each_page() {
    let gateway = gateway().await;
    audit_events(&gateway, "acme", 25).await;
    let (token, all) = (of(Role::Viewer), sign(&claims("viewer", &["*"])));
    let whole = items(&gateway, "/api/audit", &token).await;
    let asked = "/api/audit?limit=10&from=-7d";
    let (mut read, mut cursor) = (Vec::new(), String::new());
    loop {
        let answer = gateway.get(&format!("{asked}{cursor}"), &token).await.json();
        read.extend_from_slice(answer["items"].as_array().unwrap());
        let Some(next) = answer["next_cursor"].as_str() else { break };
        let elsewhere = gateway.get(&format!("/api/audit?limit=10&from=-8d&cursor={next}"), &token).await;
        assert_eq!(elsewhere.problem(400)["errors"][0]["field"], "cursor", "as it is written it is a filter");
        cursor = format!("&cursor={next}");
    }
    assert_eq!(read, whole);
    // The audit event of each page has the range of that page.
    let time = |record: &Value, end: &str| record["metadata"][end].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    let records = internal_records(&gateway).await;
    let pages: Vec<_> = records.iter().filter(|(_, record)| record["metadata"]["how"]["limit"] == 10).collect();
    let spans: BTreeSet<_> = pages.iter().map(|(_, record)| (time(record, "from"), time(record, "to"))).collect();
    assert_eq!((pages.len(), spans.len()), (3, 1), "{pages:?}");
    assert!(spans.iter().all(|(from, to)| *to - *from == TimeDelta::days(7)));

    // Exactly the longest allowed range, and a date.
    assert_eq!(items(&gateway, "/api/audit?status=SUCCESS&from=-7d", &all).await.len(), 25);
    let tomorrow = (Utc::now() + Days::new(1)).format("%Y-%m-%d");
    for (query, rows) in [
        ("from=-24h".to_owned(), 25),
        ("to=-20h".to_owned(), 0),
        (format!("from=2020-01-01&to={tomorrow}"), 25),
        ("from=2020-01-01&to=2020-02-01".to_owned(), 0),
    ] {
        let exported = gateway.get(&format!("/api/audit/export?format=ndjson&{query}"), &token).await;
        assert_eq!((exported.status.as_u16(), exported.text.lines().count()), (200, rows), "{query}: {exported:?}");
    }
    for wrong in ["-7w", "24h", "2026-02-30", "-999999999d", "now"] {
        let refused = gateway.get(&format!("/api/audit?from={wrong}"), &token).await.problem(400);
        let reason = refused["errors"][0]["reason"].as_str().unwrap();
        assert!(refused["errors"][0]["field"] == "from" && reason.contains("-24h"), "{refused}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn what_cannot_be_asked_is_named_and_leaves_no_record() {
    let gateway = gateway().await;
    let (token, all) = (of(Role::Viewer), sign(&claims("viewer", &["*"])));
    for (path, token, field) in [
        ("/api/audit?ip_address=nowhere", &token, "ip_address"),
        ("/api/audit?status=success", &token, "status"),
        ("/api/audit?actor_type=robot", &token, "actor_type"),
        ("/api/audit?actor=u-1", &token, "actor"),
        ("/api/audit?cursor=AAAA", &token, "cursor"),
        ("/api/audit?limit=0", &token, "limit"),
        ("/api/audit?from=2001-01-01T00:00:00Z", &token, "from"),
        ("/api/audit?status=FAILURE&from=2020-01-01T00:00:00Z", &all, "from"),
        ("/api/organizations/a.b/audit", &token, "organization_id"),
        ("/api/organizations/acme/audit?organization_id=umbra", &token, "organization_id"),
        ("/api/audit/export?format=xls", &token, "format"),
        ("/api/audit/export?limit=5", &token, "limit"),
        ("/api/audit/export?from=2001-01-01T00:00:00Z", &token, "from"),
    ] {
        assert_eq!(gateway.get(path, token).await.problem(400)["errors"][0]["field"], field, "{path}");
    }
    assert_eq!(internal_records(&gateway).await, []);
    gateway.finish().await;
}

#[tokio::test]
async fn an_export_is_the_list_in_one_piece() {
    const AUDIT_EVENTS: u32 = 2_600;
    let gateway = gateway().await;
    audit_events(&gateway, "acme", AUDIT_EVENTS).await;
    audit_events(&gateway, "globex", 100).await;
    let token = of(Role::Viewer);
    let (mut listed, mut cursor) = (Vec::new(), String::new());
    loop {
        let answer = gateway.get(&format!("/api/audit?limit=1000{cursor}"), &token).await.json();
        listed.extend_from_slice(answer["items"].as_array().unwrap());
        let Some(next) = answer["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(listed.len(), AUDIT_EVENTS as usize);
    let lines = gateway.get("/api/audit/export?format=ndjson", &token).await;
    assert_eq!(lines.header("content-type"), "application/x-ndjson");
    assert_eq!(lines.header("content-disposition"), r#"attachment; filename="audit.ndjson""#);
    let exported: Vec<Value> = lines.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(exported == listed, "an export differs from the list");

    let table = gateway.get("/api/audit/export?format=csv", &token).await;
    assert!(table.header("content-type").starts_with("text/csv"));
    assert_eq!(table.header("content-disposition"), r#"attachment; filename="audit.csv""#);
    let mut reader = csv::Reader::from_reader(table.text.as_bytes());
    let columns = reader.headers().unwrap().clone();
    let members: BTreeSet<_> = listed[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(columns.iter().collect::<BTreeSet<_>>(), members);
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), listed.len());
    for (row, item) in rows.iter().zip(&listed) {
        for (column, cell) in columns.iter().zip(row) {
            assert!(!cell.starts_with(['=', '+', '@', '\t', '\r']), "{column}: {cell}");
            let said = match &item[column] {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                // As the database prints it.
                json => {
                    assert_eq!(*json, serde_json::from_str::<Value>(cell).unwrap(), "{column}");
                    cell.to_owned()
                }
            };
            let is_time = column.ends_with("_at");
            // A signed number is not a formula: it evaluates to itself.
            let is_formula = said.starts_with('=');
            assert!(is_time || cell == if is_formula { format!("'{said}") } else { said.clone() }, "{column}: {cell}");
        }
    }
    let of_one = gateway.get("/api/audit/export?actor_id=u-1", &token).await;
    assert_eq!(csv::Reader::from_reader(of_one.text.as_bytes()).records().count(), AUDIT_EVENTS as usize / 5);
    let foreign = gateway.get("/api/audit/export?format=ndjson&organization_id=globex", &token).await;
    assert_eq!(foreign.text, "");
    gateway.finish().await;
}

#[tokio::test]
async fn each_reading_leaves_one_record() {
    let gateway = gateway().await;
    audit_events(&gateway, "acme", 1_000).await;
    let (acme, all) = (of(Role::Viewer), sign(&claims("viewer", &["*"])));
    let two = sign(&claims("viewer", &["acme", "umbra"]));
    for (path, token, organization, action, target) in [
        ("/api/audit?actor_id=u-1", &acme, Some("acme"), "audit.read", "acme"),
        ("/api/organizations/acme/audit", &all, Some("acme"), "audit.read", "acme"),
        ("/api/organizations/globex/audit", &acme, None, "audit.read", "globex"),
        ("/api/audit", &all, None, "audit.read", "*"),
        ("/api/audit", &two, None, "audit.read", "*"),
        ("/api/audit/export?action=x", &acme, Some("acme"), "audit.export", "acme"),
    ] {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("user-agent", "a browser")];
        assert_eq!(gateway.request("GET", path, &headers, "").await.status, 200);
        let mut records = internal_records(&gateway).await;
        assert_eq!(records.len(), 1, "{path}");
        let (of, record) = records.remove(0);
        assert_eq!(of.as_deref(), organization, "{path}");
        let who = (&record["actor_id"], &record["actor_type"], &record["user_agent"], &record["ip_address"]);
        assert_eq!(who, (&json!("a viewer"), &json!("user"), &json!("a browser"), &json!("127.0.0.1/32")));
        let what = (&record["action"], &record["target_type"], &record["target_id"], &record["status"]);
        assert_eq!(what, (&json!(action), &json!("audit_log"), &json!(target), &json!("SUCCESS")), "{path}");
        assert!(record["metadata"]["route"].as_str().is_some_and(|route| route.starts_with("/api/")));
        gateway.world.execute("DELETE FROM watchbook.own_records").await;
    }
    let mut system = claims("viewer", &["acme"]);
    system["sub"] = json!("system");
    gateway.get("/api/audit?actor_id=u-1", &sign(&system)).await;
    let (_, record) = internal_records(&gateway).await.remove(0);
    assert_eq!(
        (&record["actor_type"], &record["metadata"]["filters"]),
        (&json!("user"), &json!({ "actor_id": "u-1" }))
    );
    gateway.finish().await;
}

#[tokio::test]
async fn who_hangs_up_stands_in_the_log_all_the_same() {
    let gateway = gateway().await;
    audit_events(&gateway, "acme", 5_000).await;
    let token = of(Role::Viewer);
    gateway.stream(Kind::Audit, bytesize::ByteSize::mib(1)).await;
    let ask = async |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
        let mut connection = TcpStream::connect(gateway.address).await.unwrap();
        connection.write_all(request.as_bytes()).await.unwrap();
        connection
    };
    let written = async |wanted: i64| {
        harness::eventually("it is written", async || {
            let stored = "SELECT (SELECT count(*) FROM watchbook.own_records) + $1";
            // Published internal records are in the stream.
            let told = i64::try_from(gateway.messages(Kind::Audit).await).unwrap();
            let found: i64 = sqlx::query_scalar(stored).bind(told).fetch_one(gateway.world.database()).await.unwrap();
            if found == wanted { Ok(()) } else { Err(format!("{found} records")) }
        })
        .await;
    };
    let mut wanted = 0;
    for path in ["/api/audit", "/api/audit/export", "/api/audit/export?format=ndjson", "/api/live/audit"] {
        // As soon as the audit event is about to be written, and not before the request has been parsed.
        let mut holding = gateway.world.database().begin().await.unwrap();
        sqlx::query("LOCK TABLE watchbook.own_records").execute(&mut *holding).await.unwrap();
        let connection = ask(path).await;
        harness::eventually("it is asked", async || {
            let waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'watchbook.own_records'::regclass
                              AND mode = 'RowExclusiveLock' AND NOT granted";
            let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&mut *holding).await.unwrap();
            if waiting == 1 { Ok(()) } else { Err(format!("{waiting} wait")) }
        })
        .await;
        drop(connection);
        holding.rollback().await.unwrap();
        wanted += 1;
        written(wanted).await;
    }
    // In the middle of the response.
    ask("/api/audit/export").await.read_exact(&mut [0; 100]).await.unwrap();
    written(wanted + 1).await;
    gateway.finish().await;
}

#[tokio::test]
async fn an_export_that_is_broken_off_does_not_look_complete() {
    let gateway = gateway().await;
    // More than fits into the buffers between the two ends.
    audit_events(&gateway, "acme", 60_000).await;
    let mut connection = TcpStream::connect(gateway.address).await.unwrap();
    let token = of(Role::Viewer);
    let request = format!("GET /api/audit/export HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    connection.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    gateway.stop.cancel();
    let mut rest = Vec::new();
    // Reset or closed: either way the last chunk is missing.
    let _ = connection.read_to_end(&mut rest).await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "{} bytes look complete", rest.len());
    gateway.finish().await;
}

#[tokio::test]
async fn nothing_is_told_where_it_cannot_be_written() {
    let gateway = gateway().await;
    audit_events(&gateway, "acme", 10).await;
    // The live stream needs a stream to read.
    gateway.stream(Kind::Audit, bytesize::ByteSize::mib(1)).await;
    gateway.world.execute("ALTER TABLE watchbook.own_records RENAME TO somewhere_else").await;
    for path in ["/api/audit", "/api/organizations/acme/audit", "/api/audit/export", "/api/live/audit"] {
        let answer = gateway.get(path, &of(Role::Viewer)).await;
        answer.problem(503);
        assert!(!answer.text.contains("u-1"), "{answer:?}");
    }
    gateway.world.execute("ALTER TABLE watchbook.somewhere_else RENAME TO own_records").await;
    gateway.finish().await;
}

#[tokio::test]
async fn what_was_looked_at_comes_into_the_stream() {
    let gateway = gateway().await;
    gateway.stream(Kind::Audit, bytesize::ByteSize::mib(1)).await;
    gateway.get("/api/audit", &of(Role::Viewer)).await;
    harness::eventually("the stream has it", async || match gateway.messages(Kind::Audit).await {
        1.. => Ok(()),
        _ => Err("not yet".to_owned()),
    })
    .await;
    let message = gateway.bus.message(Kind::Audit, 1).await.unwrap().unwrap();
    assert!(message.subject.ends_with(".acme.audit.read") || message.subject.contains(".acme."), "{}", message.subject);
    harness::eventually("it is not kept twice", async || match internal_records(&gateway).await.len() {
        0 => Ok(()),
        left => Err(format!("{left} are left")),
    })
    .await;
    gateway.finish().await;
}
