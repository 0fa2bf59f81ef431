//! Tests bodies as services send them: CloudEvents, NDJSON with other media types, compressed, with a byte order mark.

use std::io::Write;

use async_compression::tokio::bufread::GzipEncoder;
use bytesize::ByteSize;
use chrono::Utc;
use gateway::auth::Role;
use harness::World;
use harness::messages::event;
use records::{Headers, Kind, Message};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use uuid::Uuid;

use crate::test_gateway::{Answer, TestGateway, settings};
use crate::tokens::of;

const ROOM: ByteSize = ByteSize::mib(64);

async fn gateway() -> TestGateway {
    let gateway = TestGateway::start().await;
    gateway.stream(Kind::Events, ROOM).await;
    gateway
}

async fn post(gateway: &TestGateway, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Answer {
    gateway.post_bytes("/api/events", &of(Role::Producer), headers, body.into()).await
}

/// Returns the last message of the stream. It has no headers except those of its batch.
async fn last(gateway: &TestGateway) -> Value {
    let sequence = gateway.messages(Kind::Events).await;
    let message = gateway.bus.message(Kind::Events, sequence).await.unwrap().unwrap();
    let headers = message.headers();
    assert!(headers.iter().all(|(name, _)| name.starts_with("Nats-")), "a request's headers: {headers:?}");
    serde_json::from_slice(&message.body).unwrap()
}

async fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    GzipEncoder::new(bytes).read_to_end(&mut packed).await.unwrap();
    packed
}

/// Returns a complete CloudEvent with this id.
fn cloudevent(id: &str, data: Value) -> Value {
    json!({ "specversion": "1.0", "id": id, "source": "/ci", "type": "build.finished", "time": "2026-06-15T12:00:00.5Z",
            "subject": "main", "data": data })
}

#[tokio::test]
async fn cloudevents_come_in_three_modes() {
    const STRUCTURED: (&str, &str) = ("content-type", "application/cloudevents+json; charset=utf-8");
    const BATCH: (&str, &str) = ("Content-Type", "application/CloudEvents-batch+json");
    const BINARY: [(&str, &str); 7] = [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("CE-Id", "one"),
        ("ce-source", "/ci"),
        ("ce-type", "\"build.finished\""),
        ("ce-time", "2026-06-15T12:00:00.5Z"),
        ("ce-subject", "ma%69n"),
    ];
    let gateway = gateway().await;
    let data = json!({ "run_id": "run-7", "payload": { "n": 1 } });
    // Whichever way it is sent, the same record is stored.
    let is_it = |record: &Value, id: &str| {
        for (member, value) in [
            ("id", json!(id)),
            ("event_type", json!("build.finished")),
            ("created_at", json!("2026-06-15T12:00:00.5Z")),
            ("source", json!("/ci")),
            ("run_id", json!("run-7")),
            ("payload", json!({ "n": 1 })),
        ] {
            assert_eq!(record[member], value, "{member} of {record}");
        }
        assert_eq!(record["cloudevent"]["subject"], "main", "{record}");
    };
    let one = post(&gateway, &[STRUCTURED], cloudevent("one", data.clone()).to_string()).await;
    assert_eq!(one.status, 202, "{one:?}");
    is_it(&last(&gateway).await, "one");
    let binary = post(&gateway, &BINARY, data.to_string()).await;
    assert_eq!(binary.json(), one.json(), "the same event is the same record");
    is_it(&last(&gateway).await, "one");
    let batch = json!([cloudevent("two", data.clone()), cloudevent("three", data.clone())]);
    // In a batch sent with the headers of an event, the attributes in the body count.
    let batch = post(&gateway, &[BATCH, ("ce-specversion", "1.0"), ("ce-id", "x")], batch.to_string()).await;
    assert_eq!(batch.json()["accepted"], 2, "{batch:?}");
    is_it(&last(&gateway).await, "three");

    // Data may be absent, base64-encoded, or of a type whose name says that it is JSON.
    let nothing: Vec<_> = BINARY.into_iter().filter(|(name, _)| *name != "content-type").collect();
    assert_eq!(post(&gateway, &nothing, "").await.status, 202);
    assert_eq!(last(&gateway).await["event_type"], "build.finished");
    let named: Vec<_> = nothing.iter().copied().chain([("content-type", "application/vnd.ci+json")]).collect();
    assert_eq!(post(&gateway, &named, data.to_string()).await.status, 202);
    assert_eq!(last(&gateway).await["cloudevent"]["datacontenttype"], "application/vnd.ci+json");
    let mut encoded = cloudevent("four", json!(null));
    // {"run_id":"r\xff"}
    encoded["data_base64"] = json!("eyJydW5faWQiOiJy/yJ9");
    assert_eq!(post(&gateway, &[STRUCTURED], encoded.to_string()).await.status, 202);
    assert_eq!(last(&gateway).await["run_id"], "r\u{fffd}");
    assert_eq!(last(&gateway).await["sanitized"], true, "what was replaced is said");

    let taken = gateway.messages(Kind::Events).await;
    for (headers, body, status, field) in [
        (vec![STRUCTURED], json!([cloudevent("x", data.clone())]).to_string(), 400, ""),
        (vec![STRUCTURED], String::new(), 400, "body"),
        (vec![BATCH], cloudevent("x", data.clone()).to_string(), 400, "body"),
        (vec![BATCH], "[]".to_owned(), 400, "body"),
        (vec![BATCH], json!([cloudevent("x", data.clone()), { "id": "y" }]).to_string(), 400, "specversion"),
        (vec![BINARY[0], ("ce-specversion", "0.3")], data.to_string(), 400, "specversion"),
        (vec![BINARY[0], BINARY[2], BINARY[4]], data.to_string(), 400, "ce-specversion"),
        ([&BINARY[..], &[("ce-id", "two")]].concat(), data.to_string(), 400, "ce-id"),
        (BINARY.to_vec(), "[{}]".to_owned(), 400, ""),
        (vec![("content-type", "text/plain"), BINARY[1]], data.to_string(), 415, "Content-Type"),
        (vec![("content-type", "application/x-ndjson"), BINARY[1]], data.to_string(), 415, "Content-Type"),
        (vec![("content-type", "application/cloudevents+xml")], "<event/>".to_owned(), 415, "Content-Type"),
    ] {
        let refused = post(&gateway, &headers, body).await.problem(status);
        assert_eq!(refused["errors"][0]["field"], field, "{headers:?}: {refused}");
    }
    assert_eq!(gateway.messages(Kind::Events).await, taken);
    gateway.finish().await;
}

#[tokio::test]
async fn a_key_stands_for_the_whole_event() {
    let gateway = gateway().await;
    let event =
        |id| [("content-type", "application/json"), ("ce-specversion", "1.0"), ("ce-id", id), ("ce-type", "x"), KEY];
    const KEY: (&str, &str) = ("idempotency-key", "one");
    let first = post(&gateway, &event("a name"), r#"{"n":1}"#).await;
    assert_eq!(first.status, 202, "{first:?}");
    assert_eq!(post(&gateway, &event("a name"), r#"{"n":1}"#).await.json(), first.json());
    // The headers of another event make it another body.
    post(&gateway, &event("another"), r#"{"n":1}"#).await.problem(422);
    post(&gateway, &[KEY], r#"{"n":1}"#).await.problem(422);
    // The same records are the same body, compressed or not.
    let plain = [("idempotency-key", "two")];
    let packed = [("idempotency-key", "two"), ("content-encoding", "gzip")];
    let body = r#"[{"event_type":"x"},{"event_type":"y"}]"#;
    let first = post(&gateway, &plain, body).await;
    assert_eq!(post(&gateway, &packed, gzip(body.as_bytes()).await).await.json(), first.json());
    assert_eq!(post(&gateway, &plain, format!("\u{feff}{body}")).await.json(), first.json());
    gateway.finish().await;
}

#[tokio::test]
async fn lines_have_many_names_and_any_body_may_begin_with_a_mark() {
    let gateway = gateway().await;
    for (index, name) in ["x-ndjson", "ndjson", "jsonl", "x-jsonl", "jsonlines", "x-jsonlines", "JSONL; charset=utf-8"]
        .iter()
        .enumerate()
    {
        let n = index as u64 * 2;
        let name = format!("application/{name}");
        for mark in ["", "\u{feff}"] {
            let lines = format!("{mark}{}\n{}\n", event(n), event(n + 1));
            let answer = post(&gateway, &[("content-type", &name)], lines).await;
            assert_eq!(answer.json(), json!({ "accepted": 2, "ids": [event(n)["id"], event(n + 1)["id"]] }), "{name}");
        }
    }
    for body in [event(1).to_string(), json!([event(1)]).to_string(), format!("\r\n{}", event(1))] {
        let answer = post(&gateway, &[], format!("\u{feff}{body}")).await;
        assert_eq!(answer.json()["accepted"], 1, "{answer:?}");
        assert_eq!(last(&gateway).await["id"], event(1)["id"]);
    }
    // A byte order mark is ignored, but only at the beginning.
    for (headers, body) in
        [(vec![], "\u{feff}"), (vec![("content-type", "application/jsonl")], "{\"event_type\":\"x\"}\n\u{feff}nothing")]
    {
        post(&gateway, &headers, body).await.problem(400);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn compressed_bodies_are_those_that_they_unpack_to() {
    let mut settings = settings();
    settings.gateway.max_body_bytes = ByteSize::mib(2);
    settings.gateway.memory = ByteSize::mib(2);
    let gateway = TestGateway::with(World::builder("no binary").without_setup().start().await, settings).await;
    gateway.stream(Kind::Events, ROOM).await;
    let lines: String = (0..2_000).map(|n| format!("{}\n", event(n))).collect();
    let lines = lines.as_bytes();
    let (first, rest) = lines.split_at(lines.len() / 3);
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
    const JSONL: (&str, &str) = ("content-type", "application/jsonl");
    for (coding, body) in [
        ("gzip", gzip(lines).await),
        ("x-gzip", gzip(lines).await),
        ("GZIP", [gzip(first).await, gzip(rest).await].concat()),
        ("identity, gzip", gzip(lines).await),
        ("zstd", zstd(lines)),
        ("zstd", [zstd(first), zstd(rest)].concat()),
        ("identity", lines.to_vec()),
    ] {
        let answer = post(&gateway, &[JSONL, ("content-encoding", coding)], body).await;
        assert_eq!(answer.json()["accepted"], 2_000, "{coding}: {answer:?}");
        assert_eq!(last(&gateway).await, event(1_999));
    }
    let taken = gateway.messages(Kind::Events).await;

    // A body of exactly the maximum size, and of one byte more, with the whole memory budget.
    let limit = 2 << 20;
    let blanks = |len: usize| format!("{{\"event_type\":\"x\"}}{}", " ".repeat(len - 18)).into_bytes();
    // No record may be this large: the decoder rejects it, not the gateway.
    for (body, status) in [(blanks(limit), 400), (blanks(limit + 1), 413)] {
        for (coding, packed) in [("gzip", gzip(&body).await), ("zstd", zstd(&body))] {
            let refused = post(&gateway, &[("content-encoding", coding)], packed).await.problem(status);
            assert_eq!(refused["errors"][0]["code"] == "too_large", status == 400, "{refused}");
        }
    }
    // A decompression bomb is rejected like any body that is too large, however small it is.
    let bomb = gzip(&vec![b' '; 256 << 20]).await;
    assert!(bomb.len() < 1 << 20, "{} bytes", bomb.len());
    post(&gateway, &[("content-encoding", "gzip")], bomb).await.problem(413);

    let whole = gzip(lines).await;
    let mut window = zstd::Encoder::new(Vec::new(), 3).unwrap();
    window.set_parameter(zstd::zstd_safe::CParameter::WindowLog(27)).unwrap();
    window.write_all(b"{}").unwrap();
    for (coding, body) in [
        ("gzip", whole[..whole.len() - 1].to_vec()),
        ("gzip", [&whole[..], b"x"].concat()),
        ("gzip", lines.to_vec()),
        ("gzip", Vec::new()),
        ("zstd", zstd(lines)[..1_000].to_vec()),
        ("zstd", whole.clone()),
        ("zstd", window.finish().unwrap()),
    ] {
        let refused = post(&gateway, &[JSONL, ("content-encoding", coding)], body).await.problem(400);
        let reason = refused["errors"][0]["reason"].as_str().unwrap();
        assert!(refused["errors"][0]["field"] == "body" && reason.contains(coding), "{refused}");
    }
    for coding in ["br", "deflate", "gzip, gzip", "zstd, gzip", "snappy"] {
        let refused = post(&gateway, &[JSONL, ("content-encoding", coding)], whole.clone()).await;
        assert_eq!(refused.problem(415)["errors"][0]["field"], "Content-Encoding", "{coding}");
        assert_eq!(refused.header("accept-encoding"), "gzip, zstd");
    }
    assert_eq!(gateway.messages(Kind::Events).await, taken);
    gateway.finish().await;
}

#[tokio::test]
async fn a_415_names_the_header_that_is_wrong() {
    let gateway = gateway().await;
    let record = event(1).to_string();
    let refused = post(&gateway, &[("content-type", "text/plain")], record.clone()).await;
    let problem = refused.problem(415);
    assert_eq!(problem["errors"][0]["field"], "Content-Type", "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("Content-Type"), "{problem}");
    assert!(refused.header("accept").contains("application/json"));
    assert!(!refused.headers.contains_key("accept-encoding"));
    // Routes that accept only uncompressed JSON.
    let operator = of(Role::Operator);
    for (header, value, field) in
        [("content-type", "text/plain", "Content-Type"), ("content-encoding", "gzip", "Content-Encoding")]
    {
        for path in ["/api/silences", "/api/session"] {
            let refused = gateway.post(path, &operator, &[(header, value)], "{}").await;
            assert_eq!(refused.problem(415)["errors"][0]["field"], field, "{path}");
            assert_eq!(refused.headers.contains_key("accept-encoding"), field == "Content-Encoding", "{path}");
        }
    }
    gateway.finish().await;
}

/// Returns whether the writers would store it, or the field and reason of the dead letter: the gateway has to agree.
fn decoded(body: &str) -> Result<(), (String, &'static str)> {
    let text = format!("{},\"id\":\"{}\"}}", body.strip_suffix('}').unwrap(), Uuid::now_v7());
    let message = Message {
        kind: Kind::Events,
        prefix: "watchbook",
        subject: "watchbook.events.acme.x",
        stream: "",
        sequence: 0,
        published_at: Utc::now(),
        headers: &Headers::default(),
        body: text.as_bytes(),
    };
    let decoded = records::encode(&message, None, &mut Vec::new());
    decoded.map(|_| ()).map_err(|reject| (reject.field.unwrap_or_default().into_owned(), reject.reason.name()))
}

#[tokio::test]
async fn the_decoder_decides_what_is_a_record_however_it_comes() {
    const LEVELS: usize = 100_000;
    let gateway = gateway().await;
    let deep = format!("{}{}", "[".repeat(LEVELS), "]".repeat(LEVELS));
    let deep_objects = format!("{}1{}", r#"{"a":"#.repeat(LEVELS), "}".repeat(LEVELS));
    let long = "9".repeat(200_000);
    let values = ["1e200000", "-1e200000", &long, &deep, &deep_objects, "1"];
    for value in values {
        // A member for a type, one for a JSON object, and members for any value.
        for member in ["event_type", "payload", "run_id", "anything", "created_at", "attributes"] {
            let other = if member == "event_type" { String::new() } else { r#""event_type":"x","#.to_owned() };
            let value = if member == "payload" { format!("{{\"n\":{value}}}") } else { value.to_owned() };
            let record = format!("{{{other}\"{member}\":{value}}}");
            let expected = decoded(&record);
            let shown = format!("{member}: {}…", &value[..value.len().min(20)]);
            let jsonl = [("content-type", "application/jsonl")];
            for (headers, body, index) in [
                (&[][..], record.clone(), 0),
                (&[], format!("[{},{record}]", event(1)), 1),
                (&jsonl, format!("{}\n{record}\n", event(1)), 1),
            ] {
                let answer = post(&gateway, headers, body).await;
                match &expected {
                    Ok(()) => assert_eq!(answer.status, 202, "{shown}: {answer:?}"),
                    Err((field, code)) => {
                        let fault = &answer.problem(400)["errors"][0];
                        let said = (&fault["index"], &fault["field"], &fault["code"]);
                        assert_eq!(said, (&json!(index), &json!(field), &json!(code)), "{shown}");
                        assert!(!fault["reason"].as_str().unwrap().is_empty(), "{shown}");
                        assert!(answer.text.len() < 4_096, "{shown}: an answer of {} bytes", answer.text.len());
                    }
                }
            }
            // The same data in a CloudEvent is the same record.
            let headers = [("content-type", "application/json"), ("ce-specversion", "1.0"), ("ce-id", "x")];
            if !matches!(member, "created_at") {
                let answer = post(&gateway, &headers, record.clone()).await;
                assert_eq!(answer.status == 202, expected.is_ok(), "{shown}: {answer:?}");
                assert!(matches!(answer.status.as_u16(), 202 | 400), "{shown}: {answer:?}");
            }
        }
    }
    // Input that is not a record, and input that never ends.
    for (body, code) in [
        (deep.as_str(), json!("invalid_json")),
        (&deep_objects, json!("missing_field")),
        (&long, json!("invalid_json")),
        (&"[".repeat(LEVELS), json!(null)),
        (&r#"{"a":"#.repeat(LEVELS), json!("invalid_json")),
    ] {
        let problem = post(&gateway, &[], body).await.problem(400);
        assert_eq!(problem["errors"][0]["code"], code, "{}…", &body[..20]);
    }
    gateway.finish().await;
}
