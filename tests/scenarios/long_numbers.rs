//! Stored rows whose numbers print too long: 2,000 times `1e131000` are 18 KB of a message and 262 MB of text, and
//! 8,000 times are more than Postgres can print. They do not prevent reading anything else.

use async_nats::jetstream::stream;
use chrono::{TimeDelta, Utc};
use harness::messages::time;
use harness::{Watchbook, World};
use records::Kind;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use store::partitions::{Partition, Partitions};

use crate::exports::answer;
use crate::world;

const SECRET: (&str, &str) = ("WATCHBOOK_JWT_SECRET", "a secret of the tests, at least 32 bytes long");

/// Returns a SQL expression for an object with `count` numbers.
pub(super) fn numbers(number: &str, count: u32) -> String {
    format!("('{{\"n\": [' || rtrim(repeat('{number},', {count}), ',') || ']}}')::jsonb")
}

/// Values that a producer may have sent, and that cannot be printed.
pub(super) fn hostile() -> [String; 5] {
    [
        numbers("1e131000", 2_000),
        numbers("-1e131000", 8_000),
        numbers("1e-16000", 2_000),
        numbers("0e-16000", 2_000),
        // Few bytes, and not compressed.
        numbers("1e131000", 20),
    ]
}

/// A kind, its path, its columns with values, and the tested column.
const LISTS: [(Kind, &str, &str, &str, &str); 8] = [
    (Kind::Events, "/api/events?", "event_type, actor_type", "'x', 'system'", "payload"),
    (Kind::Events, "/api/events?event_type=y", "event_type, actor_type, payload", "'y', 'system', '{}'", "attributes"),
    (Kind::Errors, "/api/errors?", "trace_id, error_type, message, severity", "'t-1', 'x', 'x', 'error'", "detail"),
    (
        Kind::Errors,
        "/api/errors/t-2?",
        "trace_id, error_type, message, severity, fingerprint",
        "'t-2', 'x', 'x', 'error', gen_random_uuid()",
        "attributes",
    ),
    (
        Kind::Audit,
        "/api/audit?",
        "actor_id, actor_type, action, target_type, target_id, status",
        "'u', 'user', 'x', 'x', 'x', 'SUCCESS'",
        "metadata",
    ),
    (
        Kind::Executions,
        "/api/executions?",
        "user_id, strategy_id, execution_type, success, execution_time_ms, timed_out, error_count, warning_count",
        "'u', 's', 'TERMINAL', true, 1, false, 0, 0",
        "metadata",
    ),
    (Kind::Logs, "/api/logs?container_id=c", "container_id, stream, message", "'c', 'stdout', 'x'", "attributes"),
    (Kind::Metrics, "/api/metrics?container_id=c", "container_id, memory_usage_bytes", "'c', 1", "attributes"),
];

/// Inserts a row of today with this JSON in a column.
async fn insert(world: &World, kind: Kind, (columns, values): (&str, &str), column: &str, json: &str) {
    // Columns that must not be null and are not given.
    let rest = [("payload", Kind::Events), ("metadata", Kind::Audit)]
        .into_iter()
        .filter(|(name, of)| *of == kind && *name != column && !columns.contains(name))
        .map(|(name, _)| name)
        .chain((column != "attributes").then_some("attributes"));
    let (names, empty): (Vec<_>, Vec<_>) = rest.map(|name| (format!(", {name}"), ", '{}'")).unzip();
    world
        .execute(&format!(
            "INSERT INTO {} (id, organization_id, created_at, received_at, {columns}, {column}{})
             VALUES (gen_random_uuid(), 'acme', now() - interval '1 minute', now(), {values}, {json}{})",
            kind.spec().table,
            names.concat(),
            empty.concat()
        ))
        .await;
}

async fn with_gateway() -> (World, Watchbook, String) {
    let world = world().start().await;
    world.rows_were_dropped();
    let mut connection = PgConnection::connect(world.database_url()).await.unwrap();
    for kind in LISTS.map(|(kind, ..)| kind) {
        for ago in [0, 1] {
            let partition = Partition::of(kind, Utc::now() - TimeDelta::days(ago)).unwrap();
            Partitions::default().ensure(&mut connection, partition).await.unwrap();
        }
    }
    connection.close().await.unwrap();
    let gateway = world.spawn_with("gateway", &[SECRET]);
    gateway.ready().await;
    let create = ["token", "create", "--sub", "me", "--org", "*", "--role", "viewer"];
    let token = world.run_with(&create, &[SECRET], "").await.succeeded().output.trim().to_owned();
    (world, gateway, token)
}

/// Ends a world in which commands wrote audit events of their actions, which are stored as well.
async fn finish(world: World, running: Vec<Watchbook>) {
    let worker = world.workers("audit").await;
    world.settled(Kind::Audit).await;
    world.finish(running.into_iter().chain([worker])).await;
}

fn omitted() -> Value {
    json!({ "watchbook_omitted": "numbers in this value print to more than 256 KiB" })
}

#[tokio::test]
async fn a_list_answers_with_a_note_in_their_place_and_with_all_others() {
    let (world, gateway, token) = with_gateway().await;
    let address = gateway.address().await;
    let ordinary = r#"'{"n": [1, 0, -2.50, 1e19], "text": "x"}'"#;
    for (kind, path, columns, values, column) in LISTS {
        insert(&world, kind, (columns, values), column, ordinary).await;
        for hostile in hostile() {
            insert(&world, kind, (columns, values), column, &hostile).await;
        }
        insert(&world, kind, (columns, values), column, ordinary).await;
        let from = time(Utc::now() - TimeDelta::hours(1));
        let path = format!("{path}&from={from}&organization_id=acme").replace("?&", "?");
        let answer: Value = serde_json::from_str(&answer(address, &path, &token).await).unwrap();
        let found: Vec<_> = answer["items"].as_array().unwrap().iter().map(|item| item[column].clone()).collect();
        let stored = json!({ "n": [1, 0, -2.50, 10_000_000_000_000_000_000_u64], "text": "x" });
        let (notes, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|json| *json == omitted());
        // Rows that were inserted for the other column of the kind are included.
        assert_eq!(notes.len(), hostile().len(), "{path}");
        assert_eq!(others.iter().filter(|json| **json == stored).count(), 2, "{path}: {others:?}");
    }
    finish(world, vec![gateway]).await;
}

#[tokio::test]
async fn an_export_of_the_audit_log_goes_past_them() {
    let world = world().start().await;
    world.rows_were_dropped();
    let (kind, _, columns, values, column) = LISTS[4];
    insert(&world, kind, (columns, values), column, r#"'{"n": 1}'"#).await;
    for hostile in hostile() {
        insert(&world, kind, (columns, values), column, &hostile).await;
    }
    insert(&world, kind, (columns, values), column, r#"'{"n": 2}'"#).await;
    let exported = world.run(&["audit", "export", "--format", "ndjson", "--org", "acme"]).await;
    let lines: Vec<Value> =
        exported.succeeded().output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), hostile().len() + 2);
    assert_eq!(lines.iter().filter(|line| line["metadata"] == omitted()).count(), hostile().len());
    assert_eq!(lines.iter().filter(|line| line["metadata"]["n"].is_number()).count(), 2);
    let exported = world.run(&["audit", "export", "--format", "csv", "--org", "acme"]).await;
    assert_eq!(exported.succeeded().output.matches("watchbook_omitted").count(), hostile().len());
    finish(world, Vec::new()).await;
}

#[tokio::test]
async fn a_replay_publishes_them_as_they_may_have_come_and_passes_by_what_it_cannot() {
    let world = world().start().await;
    world.rows_were_dropped();
    let (kind, _, columns, values, column) = LISTS[0];
    insert(&world, kind, (columns, values), column, r#"'{"n": 1.50}'"#).await;
    for hostile in hostile() {
        insert(&world, kind, (columns, values), column, &hostile).await;
    }
    // Too deeply nested for its numbers to be rewritten with exponents.
    let deep =
        r#"('{"n": ' || repeat('[', 400) || rtrim(repeat('1e131000,', 40), ',') || repeat(']', 400) || '}')::jsonb"#;
    insert(&world, kind, (columns, values), column, deep).await;
    insert(&world, kind, (columns, values), column, r#"'{"n": 2.50}'"#).await;
    let (name, subject) = (format!("ELSEWHERE_{}", world.name()), format!("elsewhere.{}", world.name()));
    let config = stream::Config { name: name.clone(), subjects: vec![subject.clone()], ..Default::default() };
    world.jetstream().create_stream(config).await.unwrap();
    let replayed = world.run(&["replay", "events", "--to", &subject, "--json"]).await;
    let (skipped,): (String,) = world
        .query_one("SELECT id::text FROM watchbook.event_logs WHERE jsonb_path_exists(payload, 'strict $.**{300}')")
        .await;
    replayed.ended_with(1).prints(&format!("the event {skipped} of")).prints("7 events published, 1 skipped");
    let summary = replayed.json();
    assert_eq!((&summary["published"], &summary["skipped"]), (&json!(7), &json!(1)));
    assert_eq!(summary["skipped_events"][0]["id"], json!(skipped));
    let stream = world.jetstream().get_stream(&name).await.unwrap();
    for sequence in 1..=7 {
        let message = stream.get_raw_message(sequence).await.unwrap();
        assert!(message.payload.len() < 100_000, "{}", message.payload.len());
        // Compared in Postgres, where numbers keep every digit.
        let body = String::from_utf8(message.payload.to_vec()).unwrap();
        let same = format!(
            "SELECT count(*) FROM watchbook.event_logs AS e, (SELECT $body${body}$body$::jsonb AS record) AS published
              WHERE e.id = (record->>'id')::uuid AND e.payload = record->'payload'
                AND watchbook.digits_printed(e.payload) = watchbook.digits_printed(record->'payload')"
        );
        assert_eq!(world.count(&same).await, 1, "{}", &body[..body.len().min(300)]);
    }
    world.jetstream().delete_stream(&name).await.unwrap();
    finish(world, Vec::new()).await;
}

#[tokio::test]
async fn a_number_keeps_its_value_and_its_scale_with_an_exponent() {
    let world = world().without_setup().start().await;
    for number in [
        "0",
        "0.00",
        "-0.5",
        "1.50",
        "12345678901234567890.12345",
        "1e20",
        "-1e131071",
        "123.456e1000",
        "9999e70",
        "100001000e100",
        "1e-16383",
        "-5e-300",
        "0e-16000",
        "100000e-70",
        "0.0001e-80",
        "1.0e-300",
        "1.2300e-200",
        "1e61",
        "1e64",
        "12345e-61",
        "-98765432109876543210e-100",
    ] {
        let (text, is_same): (String, bool) = world
            .query_one(&format!(
                "SELECT watchbook.number_as_text({number}), watchbook.number_as_text({number})::numeric::text = ({number})::numeric::text"
            ))
            .await;
        assert!(is_same, "{number} is written as {text}");
        assert!(text.len() < 70, "{number} is written as {text}");
    }
    let (object,): (String,) = world
        .query_one(r#"SELECT watchbook.abbreviated('{"a": {"\"\u00fc\\": [null, true, "1e5", [], {}]}, "b": -1e131000, "c": 1.50}')"#)
        .await;
    assert_eq!(object, r#"{"a": {"\"ü\\": [null, true, "1e5", [], {}]}, "b": -1e131000, "c": 1.50}"#);
    world.finish([]).await;
}
