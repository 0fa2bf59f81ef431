//! `watchbook audit export`: the same as the API's, bounded, complete, and always audited.

use std::net::SocketAddr;
use std::process::Command;

use chrono::{DateTime, TimeDelta, Utc};
use export::{Export, Format, PART_BYTES};
use harness::messages::time;
use harness::{Signal, Watchbook, World};
use records::Kind;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use store::partitions::{Partition, Partitions};
use store::queries::Span;
use store::queries::audit::AuditFilter;
use store::scoped_read::{Reader, Scope};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world;

const SECRET: (&str, &str) = ("WATCHBOOK_JWT_SECRET", "a secret of the tests, at least 32 bytes long");
/// An address without a server.
const NOBODY: (&str, &str) = ("NATS_URL", "nats://127.0.0.1:1");

/// Returns a world whose audit log is written by SQL, with the months of the last `days` days.
async fn with_a_log(days: i64) -> World {
    let world = world().start().await;
    world.rows_were_dropped();
    let mut connection = PgConnection::connect(world.database_url()).await.unwrap();
    let partitions = Partitions::default();
    for ago in 0..=days {
        let day = Utc::now() - TimeDelta::days(ago);
        partitions.ensure(&mut connection, Partition::of(Kind::Audit, day).unwrap()).await.unwrap();
    }
    connection.close().await.unwrap();
    world
}

/// Inserts audit events of an organization: the newest one is a minute old, the others are `apart` from each other.
async fn audit_events(world: &World, organization: &str, count: u32, apart: &str) {
    world
        .execute(&format!(
            "INSERT INTO control_plane.audit_logs (actor_id, actor_type, action, target_type, target_id, status, reason,
                    metadata, ip_address, id, organization_id, created_at, received_at, attributes)
             SELECT 'u-' || n % 5, 'user', 'project.delete', 'project', '=HYPERLINK(' || n || ')',
                    CASE WHEN n % 100 = 7 THEN 'FAILURE' ELSE 'SUCCESS' END,
                    CASE n % 3 WHEN 0 THEN 'said \"so\", \n and more' WHEN 1 THEN '-' || n END,
                    jsonb_build_object('n', n), ('192.0.2.' || n % 9)::inet, gen_random_uuid(), '{organization}',
                    now() - interval '1 minute' - n / 3 * interval '{apart}', now(), '{{}}'
               FROM generate_series(1, {count}) AS n"
        ))
        .await;
}

/// Returns the complete response of the gateway. It uses HTTP/1.0, where a response ends with its connection.
pub(super) async fn answer(address: SocketAddr, path: &str, token: &str) -> String {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200"), "{path}: {answer}");
    body.to_owned()
}

/// Returns internal records that are not published yet.
async fn internal_records(world: &World) -> Vec<(Option<String>, Value)> {
    world.query_all("SELECT organization_id, record FROM watchbook.own_records ORDER BY created_at, id").await
}

/// Ends a world in which commands wrote audit events of their exports, which are stored as well.
async fn finish(world: World, running: Vec<Watchbook>) {
    let worker = world.workers("audit").await;
    world.settled(Kind::Audit).await;
    world.finish(running.into_iter().chain([worker])).await;
}

#[tokio::test]
async fn the_command_writes_what_the_api_answers() {
    let world = with_a_log(40).await;
    audit_events(&world, "acme", 2_600, "1 hour").await;
    audit_events(&world, "globex", 300, "1 minute").await;
    let gateway = world.spawn_with("gateway", &[SECRET]);
    gateway.ready().await;
    let address = gateway.address().await;
    let create = ["token", "create", "--sub", "me", "--org", "*", "--role", "viewer"];
    let token = world.run_with(&create, &[SECRET], "").await.succeeded().output.trim().to_owned();
    let now = Utc::now();
    let (from, to) = (time(now - TimeDelta::days(40)), time(now));
    let week = time(now - TimeDelta::days(6));
    for (query, options, rows) in [
        ("", &[][..], 2_900),
        ("organization_id=acme", &["--org", "acme"], 2_600),
        ("organization_id=nobody", &["--org", "nobody"], 0),
        ("actor_id=u-1&action=project.delete", &["--actor-id", "u-1", "--action", "project.delete"], 580),
        (
            "target_type=project&target_id=%3DHYPERLINK(3)",
            &["--target-type", "project", "--target-id", "=HYPERLINK(3)"],
            2,
        ),
        (
            "organization_id=acme&status=FAILURE&actor_type=user",
            &["--org", "acme", "--status", "FAILURE", "--actor-type", "user"],
            26,
        ),
        ("organization_id=globex&ip_address=192.0.2.4/30", &["--org", "globex", "--ip-address", "192.0.2.4/30"], 132),
    ] {
        for format in ["csv", "ndjson"] {
            let path = format!("/api/audit/export?{query}&format={format}&from={from}&to={to}");
            let path = path.replace("?&", "?");
            let asked = ["audit", "export", "--format", format, "--from", &from, "--to", &to];
            let exported = world.run(&[&asked, options].concat()).await;
            exported.succeeded();
            let answer = answer(address, &path, &token).await;
            assert!(exported.output == answer, "{options:?} as {format}: {} and {answer}", exported.output);
            assert!(exported.errors.contains("audit records exported"), "{}", exported.errors);
            let lines = exported.output.lines().filter(|line| line.starts_with('{')).count();
            assert!(format == "csv" || lines == rows, "{options:?}: {lines} rows");
        }
    }
    // Without an index for the filter, the API refuses such a long time, and answers for a week.
    let path = format!("/api/audit/export?status=FAILURE&from={week}&to={to}");
    let exported = world.run(&["audit", "export", "--status", "FAILURE", "--from", &week, "--to", &to]).await;
    assert!(exported.succeeded().output == answer(address, &path, &token).await);
    finish(world, vec![gateway]).await;
}

#[tokio::test]
async fn all_of_the_log_is_found_however_far_back_and_by_whatever() {
    let world = with_a_log(100).await;
    audit_events(&world, "acme", 900, "8 hours").await;
    let ids = |condition: &str| {
        format!(
            "SELECT a.id::text FROM control_plane.audit_logs AS a WHERE {condition} ORDER BY a.created_at DESC, a.id DESC"
        )
    };
    for (options, condition) in [
        (&[][..], "true"),
        (&["--status", "FAILURE"], "status = 'FAILURE'"),
        (&["--ip-address", "192.0.2.3"], "ip_address = '192.0.2.3'"),
        (&["--org", "acme", "--status", "FAILURE"], "status = 'FAILURE'"),
        (&["--status", "FAILURE", "--to", "2001-01-01T00:00:00Z"], "false"),
        // The audit events are a minute away from these limits, and nothing here takes that long.
        (&["--from", "-7d"], "created_at >= now() - interval '7 days'"),
        (
            &["--from=-30d", "--to", "-168h"],
            "created_at BETWEEN now() - interval '30 days' AND now() - interval '7 days'",
        ),
        (&["--from", "2020-01-01", "--to", "2020-02-01"], "false"),
    ] {
        let exported = world.run(&[&["audit", "export", "--format", "ndjson"], options].concat()).await;
        let lines = exported.succeeded().output.lines();
        let found: Vec<_> = lines.map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone()).collect();
        let all: Vec<(String,)> = world.query_all(&ids(condition)).await;
        let all: Vec<_> = all.into_iter().map(|(id,)| json!(id)).collect();
        assert!(found == all, "{options:?}: {} of {}", found.len(), all.len());
    }
    finish(world, Vec::new()).await;
}

#[tokio::test]
async fn an_export_never_holds_more_than_a_part_and_a_row() {
    const ROWS: u32 = 300;
    /// The maximum size of a row in CSV: two JSON columns whose quotes are doubled, and the texts.
    const ROW_BYTES: usize = 3 * 512 * 1024;
    let world = with_a_log(2).await;
    // First small rows, so that an export that adapts to the size is surprised, then large ones, then both.
    world
        .execute(&format!(
            "INSERT INTO control_plane.audit_logs (actor_id, actor_type, action, target_type, target_id, status, metadata,
                    id, organization_id, created_at, received_at, attributes)
             SELECT 'u', 'user', 'a', 't', n::text, 'SUCCESS',
                    CASE WHEN n BETWEEN 150 AND 250 OR n % 50 = 0 THEN jsonb_build_object('fat', repeat('\"x', 80000)) ELSE '{{}}' END,
                    gen_random_uuid(), 'acme', now() - n * interval '1 second', now(), '{{}}'
               FROM generate_series(1, {ROWS}) AS n"
        ))
        .await;
    let reader = Reader::new(world.database().clone());
    let span = Span { from: DateTime::UNIX_EPOCH, to: Utc::now() };
    for format in [Format::Csv, Format::Ndjson] {
        let mut export = Export::of(Scope::All, AuditFilter::default(), span, format);
        let (mut text, mut rows, mut parts) = (Vec::new(), 0, 0);
        while let Some(part) = export.part(&reader).await.unwrap() {
            assert!(part.text.len() <= PART_BYTES + ROW_BYTES, "a part of {} bytes", part.text.len());
            (rows, parts) = (rows + part.rows, parts + 1);
            text.extend(part.text);
        }
        assert_eq!(rows, u64::from(ROWS));
        assert!(parts > 10, "{parts} parts of {} bytes", text.len());
        let text = String::from_utf8(text).unwrap();
        let numbers: Vec<u32> = match format {
            Format::Ndjson => {
                let target = |line| serde_json::from_str::<Value>(line).unwrap()["target_id"].as_str().unwrap().parse();
                text.lines().map(|line| target(line).unwrap()).collect()
            }
            Format::Csv => text.lines().skip(1).map(|line| line.split(',').nth(11).unwrap().parse().unwrap()).collect(),
        };
        assert_eq!(numbers, (1..=ROWS).collect::<Vec<_>>(), "each row once, in order");
    }
    world.finish([]).await;
}

#[tokio::test]
async fn whoever_exports_stands_in_the_log_before_the_first_row() {
    let world = with_a_log(1).await;
    audit_events(&world, "acme", 10, "1 second").await;
    for (options, organization, target, filters) in [
        (&["--by", "ann"][..], None, "*", json!({})),
        (
            &["--by", "ann", "--org", "acme", "--ip-address", "192.0.2.0/24"],
            Some("acme"),
            "acme",
            json!({ "ip_address": "192.0.2.0/24" }),
        ),
    ] {
        let exported = world.run_with(&[&["audit", "export"], options].concat(), &[NOBODY], "").await;
        // Without NATS the audit event waits, and the export succeeds.
        exported.succeeded().prints("is stored but not published yet").prints("10 audit records exported");
        let mut records = internal_records(&world).await;
        assert_eq!(records.len(), 1);
        let (of, record) = records.remove(0);
        assert_eq!(of.as_deref(), organization);
        let who = (&record["actor_id"], &record["actor_type"], &record["action"], &record["target_id"]);
        assert_eq!(who, (&json!("ann"), &json!("user"), &json!("audit.export"), &json!(target)));
        let what = &record["metadata"];
        assert_eq!((&what["command"], &what["filters"]), (&json!("watchbook audit export"), &filters));
        world.execute("DELETE FROM watchbook.own_records").await;
    }
    world.run(&["audit", "export"]).await.succeeded().does_not_print("is stored but not published yet");
    assert_eq!(internal_records(&world).await, [], "where NATS is there, the stream has it");
    let worker = world.workers("audit").await;
    world.settled(Kind::Audit).await;
    assert_eq!(world.count("SELECT count(*) FROM control_plane.audit_logs WHERE action = 'audit.export'").await, 1);

    world.execute("ALTER TABLE watchbook.own_records RENAME TO somewhere_else").await;
    let file = world.directory().join("none.csv");
    let refused = world.run(&["audit", "export", "--output", file.to_str().unwrap()]).await;
    refused.ended_with(1).prints("record the export in the audit log").does_not_print("u-1");
    let refused = world.run(&["audit", "export"]).await;
    assert_eq!(refused.ended_with(1).output, "");
    assert!(!file.exists());
    world.execute("ALTER TABLE watchbook.somewhere_else RENAME TO own_records").await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_file_is_whole_and_a_reader_may_leave() {
    let world = with_a_log(1).await;
    audit_events(&world, "acme", 20_000, "1 second").await;
    let file = world.directory().join("log.ndjson");
    let path = file.to_str().unwrap();
    let to_file = ["audit", "export", "--output", path];
    let exported = world.run(&to_file).await;
    assert_eq!(exported.succeeded().prints("20,000 audit records exported").output, "");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.lines().count() == 20_000 && text.starts_with('{'), "NDJSON, by its name");
    world.run(&to_file).await.ended_with(1).prints("--force");
    world.run(&[&to_file[..], &["--force", "--format", "csv", "--actor-id", "u-1"]].concat()).await.succeeded();
    assert_eq!(std::fs::read_to_string(&file).unwrap().matches("HYPERLINK").count(), 4_000);
    world.run(&["audit", "export", "--force"]).await.ended_with(2);
    world.run(&["audit", "export", "--org", "a b"]).await.ended_with(2).prints("organization");
    let backwards = ["audit", "export", "--from", "2026-02-01T00:00:00Z", "--to", "2026-01-01T00:00:00Z"];
    world.run(&backwards).await.ended_with(1).prints("--from");
    let beside =
        std::fs::read_dir(world.directory()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(beside.filter(|name| name.ends_with(".part")).count(), 0);

    let script = format!("set -o pipefail; {} audit export | head -n 1", env!("CARGO_BIN_EXE_watchbook"));
    let mut shell = Command::new("bash");
    shell.args(["-c", &script]).current_dir(world.directory()).env("DATABASE_URL", world.database_url());
    shell.env("NATS_URL", world.nats_url()).env("WATCHBOOK_NATS__PREFIX", world.name());
    let piped = tokio::task::spawn_blocking(move || shell.output()).await.unwrap().unwrap();
    assert!(piped.status.success() && piped.stderr.is_empty(), "{piped:?}");
    assert!(piped.stdout.starts_with(b"id,organization_id,"));
    finish(world, Vec::new()).await;
}

#[tokio::test]
async fn who_stops_it_finds_nothing_of_a_file() {
    let world = with_a_log(1).await;
    audit_events(&world, "acme", 10, "1 second").await;
    let parts = || {
        let names = std::fs::read_dir(world.directory()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".part")).count()
    };
    // The export has to wait while another session locks the table exclusively.
    let mut somebody = PgConnection::connect(world.database_url()).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE control_plane.audit_logs IN ACCESS EXCLUSIVE MODE")
        .execute(&mut somebody)
        .await
        .unwrap();
    let file = world.directory().join("log.csv");
    let mut exporting = world.spawn_command(&["audit", "export", "--output", file.to_str().unwrap()], &[]);
    harness::eventually("it has begun", async || match (parts(), internal_records(&world).await.len()) {
        (1, 1) => Ok(()),
        begun => Err(format!("{begun:?}")),
    })
    .await;
    exporting.signal(Signal::Interrupt).await;
    assert_eq!(exporting.ended().await.code(), Some(1), "{}", exporting.log());
    exporting.logged("no file was written").await;
    assert!(parts() == 0 && !file.exists());
    somebody.close().await.unwrap();
    finish(world, vec![exporting]).await;
}
