//! Tests alerts, silences, holds and dead letters: which callers see them, and which may change them.

use bytesize::ByteSize;
use chrono::{TimeDelta, Utc};
use gateway::auth::Role;
use records::Kind;
use serde_json::{Value, json};

use crate::audit::{gateway, internal_records};
use crate::test_gateway::TestGateway;
use crate::tokens::{claims, of, sign};

/// The owners of the test objects, each with its number in [`id`]; `_` is no organization.
pub(crate) const OF: [&str; 3] = ["acme", "globex", "_"];

/// Creates one object of each type for two organizations and for none.
async fn fill(gateway: &TestGateway) {
    for (number, organization) in OF.into_iter().enumerate() {
        fill_one(gateway, number, organization).await;
    }
    gateway
        .world
        .execute(
            "INSERT INTO watchbook.retention_runs (id, cause, actor_id, process, outcome, planned, started_at)
             VALUES (gen_random_uuid(), 'command', 'x', 'p', 'done', '{}', now())",
        )
        .await;
}

/// Creates one object of each type for one of them.
pub(crate) async fn fill_one(gateway: &TestGateway, number: usize, organization: &str) {
    let matchers = if organization == "_" {
        r#"["severity=critical"]"#.to_owned()
    } else {
        format!(r#"["severity=critical","organization_id={organization}"]"#)
    };
    let id = id(number);
    gateway
            .world
            .execute(&format!(
                "INSERT INTO watchbook.alerts (id, rule, organization_id, labels, severity, version, condition, data, reason, state, changed_at)
                 VALUES ('{id}', 'rule', '{organization}', '{{}}', 'critical', 1, 'firing', 'ok', 'r', '{{}}', now());
                 INSERT INTO watchbook.alert_transitions (alert_id, version, from_condition, to_condition, data, reason, figures, at)
                 VALUES ('{id}', 1, 'inactive', 'firing', 'ok', 'r', '{{}}', now());
                 INSERT INTO watchbook.silences (id, matchers, starts_at, ends_at, created_by, reason, created_at)
                 VALUES ('{id}', '{matchers}', now(), now() + interval '1 hour', 'x', 'r', now());
                 INSERT INTO watchbook.holds (id, organization_id, reason, created_by, created_at)
                 VALUES ('{id}', '{organization}', 'r', 'x', now());
                 INSERT INTO watchbook.dead_letters (id, kind, subject, stream, stream_seq, reason, detail, payload, received_at, failed_at)
                 VALUES ('{id}', 'events', 'a.events.events.{organization}.x', 'A_EVENTS_EVENTS', {number}, 'invalid_json', 'd', 'nonsense', now(), now())"
            ))
            .await;
}

pub(crate) fn id(number: usize) -> String {
    format!("00000000-0000-0000-0000-00000000000{number}")
}

async fn finish(gateway: TestGateway) {
    gateway.world.execute("TRUNCATE watchbook.dead_letters").await;
    gateway.finish().await;
}

async fn post(gateway: &TestGateway, path: &str, token: &str, body: &Value) -> u16 {
    gateway.post(path, token, &[], &body.to_string()).await.status.as_u16()
}

#[tokio::test]
async fn everybody_sees_their_own() {
    let gateway = gateway().await;
    fill(&gateway).await;
    let (acme, all) = (of(Role::Viewer), sign(&claims("viewer", &["*"])));
    for path in ["/api/alerts", "/api/silences", "/api/dead-letters"] {
        for (query, token, count) in [
            ("", &acme, 1),
            ("", &all, 3),
            ("?organization_id=globex", &acme, 0),
            ("?organization_id=globex", &all, 1),
            ("?limit=2", &all, 2),
        ] {
            let answer = gateway.get(&format!("{path}{query}"), token).await.json();
            assert_eq!(answer["items"].as_array().unwrap().len(), count, "{path}{query}: {answer}");
            assert_eq!(answer["next_cursor"].is_string(), query == "?limit=2", "{path}{query}");
        }
    }
    for path in ["/api/alerts", "/api/dead-letters"] {
        assert_eq!(gateway.get(&format!("{path}/{}", id(0)), &acme).await.status, 200, "{path}");
        for foreign in [id(1), id(2), id(9)] {
            gateway.get(&format!("{path}/{foreign}"), &acme).await.problem(404);
        }
        gateway.get(&format!("{path}/x"), &acme).await.problem(400);
    }
    let alert = gateway.get(&format!("/api/alerts/{}", id(0)), &acme).await.json();
    assert_eq!((&alert["alert"]["rule"], alert["history"].as_array().unwrap().len()), (&json!("rule"), 1));
    let letter = gateway.get(&format!("/api/dead-letters/{}", id(0)), &acme).await.json();
    assert_eq!(letter["payload"], "nonsense");
    for (token, is_told) in [(&acme, false), (&all, true)] {
        let listed = gateway.get("/api/dead-letters?limit=1", token).await.json();
        let whole = gateway.get(&format!("/api/dead-letters/{}", id(0)), token).await.json();
        for letter in [&listed["items"][0], &whole] {
            assert_eq!(letter["stream_seq"].is_i64(), is_told, "{letter}");
        }
    }
    for (token, runs, holds) in [(&acme, 0, 1), (&all, 1, 3)] {
        let answer = gateway.get("/api/retention", token).await.json();
        let count = |member: &str| answer[member].as_array().unwrap().len();
        assert_eq!((count("runs"), count("holds")), (runs, holds), "{answer}");
    }
    assert_eq!(gateway.get("/api/alerts/rules", &acme).await.json()["rules"], json!([]));
    for (path, field) in [
        ("/api/alerts?severity=bad", "severity"),
        ("/api/alerts?condition=x", "condition"),
        ("/api/silences?all=maybe", "all"),
        ("/api/dead-letters?kind=x", "kind"),
        ("/api/dead-letters?reason=x", "reason"),
        ("/api/retention?limit=0", "limit"),
    ] {
        assert_eq!(gateway.get(path, &acme).await.problem(400)["errors"][0]["field"], field, "{path}");
    }
    finish(gateway).await;
}

#[tokio::test]
async fn operators_act_on_their_own_and_stand_in_the_log() {
    let gateway = gateway().await;
    fill(&gateway).await;
    let token = of(Role::Operator);
    let note = json!({ "reason": "on it" });
    for (path, body) in [("/api/alerts/{}/acknowledge", &note), ("/api/dead-letters/{}/discard", &json!({}))] {
        let path = |number| path.replace("{}", &id(number));
        for foreign in [1, 2, 9] {
            assert_eq!(post(&gateway, &path(foreign), &token, body).await, 404, "{}", path(foreign));
        }
        assert_eq!(post(&gateway, &path(0), &of(Role::Producer), body).await, 403);
        assert_eq!(internal_records(&gateway).await, []);
        assert_eq!(post(&gateway, &path(0), &token, body).await, 204, "{}", path(0));
        let (organization, record) = internal_records(&gateway).await.remove(0);
        assert_eq!((organization.as_deref(), &record["target_id"]), (Some("acme"), &json!(id(0))), "{record}");
        assert_eq!(record["actor_id"], "a operator");
        gateway.world.execute("DELETE FROM watchbook.own_records").await;
    }
    assert_eq!(post(&gateway, &format!("/api/dead-letters/{}/discard", id(0)), &token, &json!({})).await, 409);
    assert_eq!(
        post(&gateway, &format!("/api/alerts/{}/acknowledge", id(0)), &token, &json!({ "reason": " " })).await,
        400
    );
    let alert = gateway.get(&format!("/api/alerts/{}", id(0)), &token).await.json();
    assert_eq!(alert["alert"]["acknowledgement"]["by"], "a operator");
    gateway.world.execute("UPDATE watchbook.alerts SET condition = 'inactive'").await;
    assert_eq!(post(&gateway, &format!("/api/alerts/{}/acknowledge", id(0)), &token, &note).await, 409);
    assert_eq!(internal_records(&gateway).await, []);
    finish(gateway).await;
}

#[tokio::test]
async fn a_dead_letter_is_replayed_once() {
    let gateway = gateway().await;
    fill(&gateway).await;
    let token = of(Role::Operator);
    let replay = format!("/api/dead-letters/{}/replay", id(0));
    // No stream has its subject: nothing changes, and nothing is audited.
    assert_eq!(post(&gateway, &replay, &token, &json!({})).await, 409);
    gateway.stream(Kind::Events, ByteSize::mib(1)).await;
    let (subject, stream) = (gateway.world.subject(Kind::Events, "acme"), gateway.world.stream(Kind::Events));
    gateway
        .world
        .execute(&format!(
            "UPDATE watchbook.dead_letters SET subject = '{subject}.x', stream = '{stream}' WHERE id = '{}'",
            id(0)
        ))
        .await;
    assert_eq!(post(&gateway, &replay.replace(&id(0), &id(1)), &token, &json!({})).await, 404);
    assert_eq!(post(&gateway, &replay, &of(Role::Producer), &json!({})).await, 403);
    assert_eq!(internal_records(&gateway).await, []);
    assert_eq!(post(&gateway, &replay, &token, &json!({})).await, 204);
    assert_eq!(post(&gateway, &replay, &token, &json!({})).await, 409);
    let message = gateway.bus.message(Kind::Events, 1).await.unwrap().unwrap();
    assert_eq!(&message.body[..], b"nonsense");
    assert_eq!(gateway.messages(Kind::Events).await, 1);
    let records = internal_records(&gateway).await;
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!((records[0].0.as_deref(), &records[0].1["action"]), (Some("acme"), &json!("dead_letter.replay")));
    finish(gateway).await;
}

#[tokio::test]
async fn a_silence_is_about_the_callers_own() {
    let gateway = gateway().await;
    fill(&gateway).await;
    let (token, all) = (of(Role::Operator), sign(&claims("operator", &["*"])));
    let until = Utc::now() + TimeDelta::hours(1);
    let silence = |matchers: Value| json!({ "matchers": matchers, "ends_at": until, "reason": "backups" });
    for refused in [
        silence(json!([])),
        silence(json!(["severity=critical"])),
        silence(json!(["organization_id=globex"])),
        silence(json!(["organization_id=acme", "organization=globex"])),
        silence(json!(["organization_id=~acme"])),
        silence(json!(["organization_id!=globex"])),
        silence(json!(["nonsense"])),
        json!({ "matchers": ["organization_id=acme"], "ends_at": until, "reason": "" }),
        json!({ "matchers": ["organization_id=acme"], "ends_at": "2001-01-01T00:00:00Z", "reason": "x" }),
        json!({ "matchers": ["organization_id=acme"], "ends_at": until, "reason": "x", "every": "daily 01:00-02:00" }),
        json!({ "matchers": ["organization_id=acme"], "ends_at": until, "reason": "x", "more": 1 }),
    ] {
        assert_eq!(post(&gateway, "/api/silences", &token, &refused).await, 400, "{refused}");
    }
    assert_eq!(internal_records(&gateway).await, []);
    let made = gateway.post("/api/silences", &token, &[], &silence(json!(["organization=acme"])).to_string()).await;
    assert_eq!(made.status, 201, "{made:?}");
    // Silences about all organizations, and those that only look like one organization's.
    for matcher in ["severity=critical", "organizationXid=acme"] {
        assert_eq!(post(&gateway, "/api/silences", &all, &silence(json!([matcher]))).await, 201);
    }
    assert_eq!(gateway.get("/api/silences", &token).await.json()["items"].as_array().unwrap().len(), 2);
    let bearer = format!("Bearer {token}");
    let end = async |id: &str| {
        let answer =
            gateway.request("DELETE", &format!("/api/silences?id={id}"), &[("authorization", &bearer)], "").await;
        answer.status.as_u16()
    };
    let made = made.json()["id"].as_str().unwrap().to_owned();
    for (silence, status) in [(id(1), 404), (id(2), 404), (made.clone(), 204), (made, 409), ("x".to_owned(), 400)] {
        assert_eq!(end(&silence).await, status, "{silence}");
    }
    let records = internal_records(&gateway).await;
    let actions: Vec<_> =
        records.iter().map(|(of, record)| (of.as_deref(), record["action"].as_str().unwrap())).collect();
    let (made, ended) = ("silence.create", "silence.end");
    assert_eq!(actions, [(Some("acme"), made), (None, made), (None, made), (Some("acme"), ended)]);
    finish(gateway).await;
}
