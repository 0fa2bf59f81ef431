//! Messages that cannot become a row: each becomes a dead letter with its reason, is stored whole, and affects nothing
//! else.

use async_nats::HeaderMap;
use chrono::{TimeDelta, Utc};
use futures::StreamExt;
use harness::messages::{MARKER, event, event_with, poison, record, time};
use harness::{BOUND, World};
use records::Kind;
use serde_json::{Value, json};

use crate::world;

/// Numbers and nesting that Postgres cannot hold.
fn too_large_a_number(n: u64) -> String {
    event(n).to_string().replacen(&format!("\"n\":{n}"), "\"n\":1e200000", 1)
}

fn too_deep(n: u64) -> String {
    let deep = format!("{{\"deep\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    event_with(n, json!({ "payload": "HERE" })).to_string().replacen("\"HERE\"", &deep, 1)
}

/// The reason and the field of a rejected message.
type Refusal = Option<(&'static str, Option<&'static str>)>;

async fn letters(world: &World) -> Vec<(i64, String, Option<String>)> {
    world.query_all("SELECT stream_seq, reason, field FROM watchbook.dead_letters ORDER BY stream_seq").await
}

#[tokio::test]
async fn every_reason_is_found_and_the_records_around_it_are_stored() {
    let world = world().start().await;
    world.refuse_poison(Kind::Events).await;
    let name = world.name();
    // A stream may have more subjects than Watchbook's. Messages of another kind are recognized.
    let mut config =
        world.jetstream().get_stream(world.stream(Kind::Events)).await.unwrap().cached_info().config.clone();
    config.subjects.push(format!("{name}.strange.>"));
    world.jetstream().update_stream(&config).await.unwrap();

    let acme = format!("{name}.events.acme.test");
    let long = "x".repeat(300);
    let messages: Vec<(&str, Vec<u8>, Refusal)> = vec![
        (&acme, event(0).to_string().into(), None),
        (&acme, b"{\"event_type\": \"cut off".to_vec(), Some(("invalid_json", None))),
        (&acme, b"[1, 2]".to_vec(), Some(("invalid_json", None))),
        (&acme, b"\xff\xfe\x00 no JSON at all".to_vec(), Some(("invalid_json", None))),
        (&acme, b"".to_vec(), Some(("invalid_json", None))),
        (&acme, br#"{"payload":{}}"#.to_vec(), Some(("missing_field", Some("event_type")))),
        (
            &acme,
            event_with(1, json!({ "event_type": null })).to_string().into(),
            Some(("missing_field", Some("event_type"))),
        ),
        (
            &acme,
            event_with(1, json!({ "actor_type": "robot" })).to_string().into(),
            Some(("invalid_field", Some("actor_type"))),
        ),
        (
            &acme,
            event_with(1, json!({ "created_at": "yesterday" })).to_string().into(),
            Some(("invalid_field", Some("created_at"))),
        ),
        (
            &acme,
            event_with(1, json!({ "event_type": long })).to_string().into(),
            Some(("too_large", Some("event_type"))),
        ),
        (
            &acme,
            event_with(1, json!({ "payload": { "x": "y".repeat(300_000) } })).to_string().into(),
            Some(("too_large", Some("payload"))),
        ),
        (
            &acme,
            event_with(1, json!({ "organization_id": "globex" })).to_string().into(),
            Some(("organization_mismatch", Some("organization_id"))),
        ),
        (
            &acme,
            event_with(1, json!({ "created_at": time(Utc::now() - TimeDelta::days(31)) })).to_string().into(),
            Some(("created_at_out_of_range", Some("created_at"))),
        ),
        (
            &acme,
            event_with(1, json!({ "created_at": time(Utc::now() + TimeDelta::hours(25)) })).to_string().into(),
            Some(("created_at_out_of_range", Some("created_at"))),
        ),
        (&acme, too_large_a_number(1).into(), Some(("invalid_field", Some("attributes")))),
        (&acme, too_deep(1).into(), Some(("too_large", Some("payload")))),
        (&acme, poison(Kind::Events, 1).to_string().into(), Some(("rejected_by_database", None))),
        (&acme, event(1).to_string().into(), None),
    ];
    let strange = format!("{name}.strange.acme.test");
    let nobody = format!("{name}.events._.test");
    let mut expected = Vec::new();
    let mut bodies = Vec::new();
    for (subject, body, refusal) in &messages {
        let sequence = world.try_publish_bytes(subject, HeaderMap::new(), body.clone()).await.unwrap();
        if let Some((reason, field)) = refusal {
            expected.push((sequence as i64, (*reason).to_owned(), field.map(str::to_owned)));
            bodies.push(body.clone());
        }
    }
    for (subject, body, reason, field) in [
        (&strange, event(2), "unknown_kind", None),
        (
            &nobody,
            event_with(2, json!({ "organization_id": "acme" })),
            "organization_mismatch",
            Some("organization_id"),
        ),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert("Trace", "first");
        headers.append("Trace", "second");
        let body = body.to_string();
        let sequence = world.try_publish_bytes(subject, headers, body.clone()).await.unwrap();
        expected.push((sequence as i64, reason.to_owned(), field.map(str::to_owned)));
        bodies.push(body.into());
    }

    let worker = world.workers("events").await;
    world.settled_as(Kind::Events, [2, 0, expected.len() as u64, 0]).await;
    world.holds_exactly(Kind::Events, 2).await;
    assert_eq!(letters(&world).await, expected);

    let kept: Vec<(Vec<u8>, String, String)> =
        world.query_all("SELECT payload, subject, detail FROM watchbook.dead_letters ORDER BY stream_seq").await;
    assert_eq!(kept.iter().map(|(payload, ..)| payload.clone()).collect::<Vec<_>>(), bodies, "each body is kept whole");
    assert!(kept.iter().all(|(_, _, detail)| !detail.is_empty()), "each says why in words: {kept:?}");
    assert_eq!(kept.last().unwrap().1, nobody);
    let headers: (Value,) =
        world.query_one("SELECT headers FROM watchbook.dead_letters WHERE reason = 'unknown_kind'").await;
    assert_eq!(headers.0, json!({ "Trace": ["first", "second"] }));
    let codes: Vec<(String,)> = world
        .query_all(
            "SELECT detail FROM watchbook.dead_letters WHERE reason = 'rejected_by_database' ORDER BY stream_seq",
        )
        .await;
    assert!(codes.len() == 1 && codes[0].0.contains("23514"), "it names its SQLSTATE: {codes:?}");
    world.finish([worker]).await;
}

/// Only Postgres rejects these records, so the batch has to be isolated.
async fn poison_at(places: &[u64], records: u64) {
    let world = world().start().await;
    world.refuse_poison(Kind::Events).await;
    for n in 0..records {
        if places.contains(&n) {
            world.publish(Kind::Events, &poison(Kind::Events, 1_000 + n)).await;
        } else {
            world.publish(Kind::Events, &event(n)).await;
        }
    }
    let worker = world.workers("events").await;
    let poison = places.len() as u64;
    world.settled_as(Kind::Events, [records - poison, 0, poison, 0]).await;
    let expected: Vec<_> =
        places.iter().map(|n| (*n as i64 + 1, "rejected_by_database".to_owned(), None::<String>)).collect();
    assert_eq!(letters(&world).await, expected);
    world.finish([worker]).await;
}

#[tokio::test]
async fn poison_comes_first_in_a_batch() {
    poison_at(&[0], 40).await;
}

#[tokio::test]
async fn poison_comes_last_in_a_batch() {
    poison_at(&[39], 40).await;
}

#[tokio::test]
async fn poison_comes_alone_in_a_batch() {
    poison_at(&[0], 1).await;
}

#[tokio::test]
async fn poison_comes_all_over_a_batch() {
    poison_at(&[0, 1, 7, 20, 21, 38, 39], 40).await;
}

#[tokio::test]
async fn a_batch_of_nothing_but_poison_is_settled() {
    poison_at(&[0, 1, 2, 3, 4], 5).await;
}

#[tokio::test]
async fn poison_among_duplicates_leaves_each_record_once() {
    let world = world().start().await;
    world.refuse_poison(Kind::Events).await;
    world.publish_all(Kind::Events, [event(0), event(1), event(0)]).await;
    world.publish(Kind::Events, &poison(Kind::Events, 7)).await;
    world.publish_all(Kind::Events, [event(1), event(2), event(0)]).await;
    let worker = world.workers("events").await;
    world.settled_as(Kind::Events, [3, 3, 1, 0]).await;
    world.holds_exactly(Kind::Events, 3).await;
    world.finish([worker]).await;
}

/// A constraint that a migration adds and a later one removes: the usual reason to replay a dead letter.
const REFUSE_NEW_TYPES: &str =
    "ALTER TABLE watchbook.event_logs ADD CONSTRAINT known_types CHECK (event_type <> 'new.type') NOT VALID";
const ACCEPT_NEW_TYPES: &str = "ALTER TABLE watchbook.event_logs DROP CONSTRAINT known_types";

#[tokio::test]
async fn a_replay_stores_what_is_accepted_now_and_stores_it_once() {
    let world = world().start().await;
    let worker = world.workers("events").await;
    world.execute(REFUSE_NEW_TYPES).await;
    for n in 0..3 {
        world.publish(Kind::Events, &event_with(n, json!({ "event_type": "new.type" }))).await;
    }
    // Without an id of its own: the replay has to keep the id of its first position.
    let bare = json!({ "event_type": "new.type", "n": 3, "marker": MARKER });
    world.publish(Kind::Events, &bare).await;
    world.publish_bytes(Kind::Events, "not JSON, now or ever").await;
    world.settled_as(Kind::Events, [0, 0, 5, 0]).await;

    let dry = world.run(&["dead", "replay", "--all", "--dry-run", "--json"]).await.succeeded().json();
    assert!(dry.as_array().unwrap().iter().all(|letter| letter["accepted"] == false), "{dry}");
    world.execute(ACCEPT_NEW_TYPES).await;
    let dry = world.run(&["dead", "replay", "--all", "--dry-run", "--json"]).await.succeeded().json();
    let accepted: Vec<_> = dry.as_array().unwrap().iter().map(|letter| letter["accepted"] == true).collect();
    assert_eq!(accepted.iter().filter(|accepted| **accepted).count(), 4, "{dry}");
    world
        .run(&["dead", "replay", "--all", "--dry-run"])
        .await
        .succeeded()
        .prints("4 would be accepted, 1 would come back");
    assert_eq!(world.account(Kind::Events).await.last_sequence, 5, "a dry run publishes nothing");
    assert_eq!(world.count("SELECT count(*) FROM watchbook.dead_letters WHERE replayed_at IS NOT NULL").await, 0);
    assert_eq!(world.count("SELECT count(*) FROM watchbook.event_logs").await, 0, "a dry run stores nothing");

    world
        .run(&["dead", "replay", "--all", "--reason", "rejected_by_database"])
        .await
        .succeeded()
        .prints("4 published again");
    world.settled_as(Kind::Events, [4, 0, 5, 0]).await;
    world.holds_exactly(Kind::Events, 4).await;
    let (received_at, created_at): (chrono::DateTime<Utc>, chrono::DateTime<Utc>) = world
        .query_one("SELECT letter.received_at, event.created_at FROM watchbook.dead_letters AS letter JOIN watchbook.event_logs AS event USING (id) WHERE attributes->>'n' = '3'")
        .await;
    assert_eq!(
        created_at.timestamp_micros(),
        received_at.timestamp_micros(),
        "it happened when it was first published"
    );
    world
        .run(&["dead", "replay", "--all", "--reason", "rejected_by_database"])
        .await
        .succeeded()
        .prints("0 published again");

    // As if killed between publishing and marking: the next replay publishes all of it again.
    world.execute("UPDATE watchbook.dead_letters SET replayed_at = NULL WHERE reason = 'rejected_by_database'").await;
    world.run(&["dead", "replay", "--all", "--kind", "events", "--reason", "rejected_by_database"]).await.succeeded();
    world.settled_as(Kind::Events, [4, 4, 5, 0]).await;
    world.holds_exactly(Kind::Events, 4).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn what_still_cannot_be_stored_comes_back_as_a_new_dead_letter() {
    let world = world().start().await;
    let worker = world.workers("events").await;
    world.publish_bytes(Kind::Events, "not JSON, now or ever").await;
    world.settled_as(Kind::Events, [0, 0, 1, 0]).await;
    world.run(&["dead", "replay", "--all"]).await.succeeded().prints("1 published again");
    world.settled_as(Kind::Events, [0, 0, 2, 0]).await;
    let open = "SELECT count(*) FROM watchbook.dead_letters WHERE replayed_at IS NULL";
    assert_eq!(world.count(open).await, 1);
    world.finish([worker]).await;
}

#[tokio::test]
async fn two_replays_at_once_store_each_record_once() {
    let world = world().start().await;
    let worker = world.workers("events").await;
    world.execute(REFUSE_NEW_TYPES).await;
    world.publish_all(Kind::Events, (0..250).map(|n| event_with(n, json!({ "event_type": "new.type" })))).await;
    world.settled_as(Kind::Events, [0, 0, 250, 0]).await;
    world.execute(ACCEPT_NEW_TYPES).await;
    let (one, other) = tokio::join!(
        world.run(&["dead", "replay", "--all", "--json"]),
        world.run(&["dead", "replay", "--all", "--json"])
    );
    let replayed =
        one.succeeded().json().as_array().unwrap().len() + other.succeeded().json().as_array().unwrap().len();
    assert_eq!(replayed, 250, "each of them by one of the two");
    world.settled_as(Kind::Events, [250, 0, 250, 0]).await;
    world.holds_exactly(Kind::Events, 250).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn dead_letters_are_listed_shown_and_discarded() {
    let world = world().start().await;
    let worker = world.workers("events,executions").await;
    world.publish_bytes(Kind::Events, "not JSON").await;
    let mut execution = record(Kind::Executions, 0);
    execution.as_object_mut().unwrap().remove("success");
    world.publish(Kind::Executions, &execution).await;
    world.settled_as(Kind::Events, [0, 0, 1, 0]).await;
    world.settled_as(Kind::Executions, [0, 0, 1, 0]).await;

    let all = world.run(&["dead", "list", "--json"]).await.succeeded().json();
    assert_eq!(all.as_array().unwrap().len(), 2, "{all}");
    let listed = world.run(&["dead", "list", "--kind", "executions", "--json"]).await.succeeded().json();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    assert_eq!((&listed[0]["reason"], &listed[0]["field"]), (&json!("missing_field"), &json!("success")));
    let id = listed[0]["id"].as_str().unwrap();
    let shown = world.run(&["dead", "show", id]).await.succeeded().json();
    assert_eq!(shown["payload"], execution.to_string());
    assert_eq!(shown["stream"], world.stream(Kind::Executions));
    world.run(&["dead", "show", "00000000-0000-0000-0000-000000000000"]).await.ended_with(1).prints("no dead letter");
    world.run(&["dead", "replay"]).await.ended_with(1).prints("--all");

    world.run(&["dead", "discard", id]).await.succeeded().prints("1 discarded");
    world.run(&["dead", "discard", id]).await.succeeded().prints("0 discarded");
    assert_eq!(world.run(&["dead", "list", "--kind", "executions", "--json"]).await.json(), json!([]));
    assert_eq!(world.run(&["dead", "list", "--all", "--json"]).await.json().as_array().unwrap().len(), 2);
    let replayed = world.run(&["dead", "replay", "--all", "--kind", "executions", "--json"]).await.succeeded().json();
    assert_eq!(replayed, json!([]), "what was discarded stays so");
    world.finish([worker]).await;
}

const OPEN: &str = "SELECT count(*) FROM watchbook.dead_letters WHERE replayed_at IS NULL AND discarded_at IS NULL";

#[tokio::test]
async fn letters_of_one_id_are_told_apart() {
    let world = world().start().await;
    let worker = world.workers("events").await;
    world.publish_bytes(Kind::Events, "not JSON, now or ever").await;
    world.settled_as(Kind::Events, [0, 0, 1, 0]).await;
    world.run(&["dead", "replay", "--all"]).await.succeeded().prints("1 published again");
    world.settled_as(Kind::Events, [0, 0, 2, 0]).await;
    let (id, rows): (uuid::Uuid, i64) =
        world.query_one("SELECT id, count(*) FROM watchbook.dead_letters GROUP BY id").await;
    assert_eq!(rows, 2, "it came back under its own id");
    let id = id.to_string();
    let shown = world.run(&["dead", "show", &id]).await.succeeded().json();
    assert_eq!((&shown["stream_seq"], &shown["replayed_at"]), (&json!(2), &Value::Null), "the one that came back");

    // As if the new dead letter was stored before the original was marked as replayed. Its reason excludes the new one
    // from this replay.
    world.execute("UPDATE watchbook.dead_letters SET replayed_at = NULL WHERE stream_seq = 1").await;
    world.execute("UPDATE watchbook.dead_letters SET reason = 'missing_field' WHERE stream_seq = 2").await;
    world.run(&["dead", "replay", &id, "--reason", "invalid_json"]).await.succeeded().prints("1 published again");
    world.settled_as(Kind::Events, [0, 0, 3, 0]).await;
    let open =
        "SELECT stream_seq FROM watchbook.dead_letters WHERE replayed_at IS NULL AND discarded_at IS NULL ORDER BY 1";
    assert_eq!(world.query_all::<(i64,)>(open).await, [(2,), (3,)]);
    world.run(&["dead", "discard", &id, "--reason", "missing_field"]).await.succeeded().prints("1 discarded");
    assert_eq!(world.query_all::<(i64,)>(open).await, [(3,)]);

    let settled =
        "SELECT stream_seq, replayed_at, discarded_at FROM watchbook.dead_letters WHERE stream_seq < 3 ORDER BY 1";
    type Settled = (i64, Option<chrono::DateTime<Utc>>, Option<chrono::DateTime<Utc>>);
    let before: Vec<Settled> = world.query_all(settled).await;
    world.run(&["dead", "replay", &id]).await.succeeded().prints("1 published again");
    world.settled_as(Kind::Events, [0, 0, 4, 0]).await;
    assert_eq!(world.query_all::<Settled>(settled).await, before, "only the open one was replayed");
    assert_eq!(world.query_all::<(i64,)>(open).await, [(4,)]);
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_replay_of_all_leaves_what_comes_back_meanwhile() {
    let world = world().start().await;
    let worker = world.workers("events").await;
    // More than a page: the first ones are dead letters again while others are published.
    let pages = 350;
    for n in 0..pages {
        world.publish_bytes(Kind::Events, format!("not JSON {n}")).await;
    }
    world.settled_as(Kind::Events, [0, 0, pages, 0]).await;
    let replayed = world.run(&["dead", "replay", "--all", "--json"]).await.succeeded().json();
    assert_eq!(replayed.as_array().unwrap().len() as u64, pages, "each once");
    world.settled_as(Kind::Events, [0, 0, 2 * pages, 0]).await;
    assert_eq!(world.count(OPEN).await as u64, pages, "what came back is open");

    // A dead letter that is stored after the command was started.
    world
        .execute(&format!(
            "UPDATE watchbook.dead_letters SET failed_at = now() + interval '1 minute' WHERE stream_seq = {}",
            2 * pages
        ))
        .await;
    world.run(&["dead", "discard", "--all"]).await.succeeded().prints(&format!("{} discarded", pages - 1));
    world.run(&["dead", "replay", "--all"]).await.succeeded().prints("0 published again");
    assert_eq!(world.count(OPEN).await, 1);
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_letter_that_cannot_be_published_keeps_no_other_from_it() {
    let world = world().start().await;
    let worker = world.workers("events").await;
    let limit = world.client().server_info().max_payload;
    // Of the large ones, the first fits with the headers of a replay but not with those of a batch, the second with
    // neither.
    for body in ["small".to_owned(), "x".repeat(limit - 150), "x".repeat(limit), "small as well".to_owned()] {
        world.publish_bytes(Kind::Events, body).await;
    }
    world.settled_as(Kind::Events, [0, 0, 4, 0]).await;
    let replay = world.run(&["dead", "replay", "--all", "--json"]).await;
    replay.ended_with(1).prints("1 of 4 dead letters cannot be published");
    let replayed = replay.json();
    let refused: Vec<_> = replayed.as_array().unwrap().iter().filter(|letter| letter["accepted"] == false).collect();
    assert_eq!((replayed.as_array().unwrap().len(), refused.len()), (4, 1), "{replayed}");
    assert!(refused[0]["reason"].as_str().unwrap().contains("too large"), "{replayed}");
    world.settled_as(Kind::Events, [0, 0, 7, 0]).await;
    let open = "SELECT stream_seq FROM watchbook.dead_letters WHERE replayed_at IS NULL ORDER BY 1";
    assert_eq!(world.query_all::<(i64,)>(open).await, [(3,), (5,), (6,), (7,)]);

    let id = refused[0]["id"].as_str().unwrap();
    world.run(&["dead", "replay", id]).await.ended_with(1).prints("0 published again").prints(id).prints("too large");
    assert_eq!(world.query_all::<(i64,)>(open).await, [(3,), (5,), (6,), (7,)]);
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_letter_whose_subject_no_stream_takes_any_more_keeps_no_other_from_it() {
    let world = world().start().await;
    let original = world.jetstream().get_stream(world.stream(Kind::Events)).await.unwrap().cached_info().config.clone();
    let mut config = original.clone();
    config.subjects.push(format!("{}.strange.>", world.name()));
    world.jetstream().update_stream(&config).await.unwrap();
    let worker = world.workers("events").await;
    let strange = format!("{}.strange.acme.test", world.name());
    world.publish_bytes(Kind::Events, "not JSON").await;
    world.try_publish_bytes(&strange, HeaderMap::new(), event(1).to_string()).await.unwrap();
    world.publish_bytes(Kind::Events, "no JSON either").await;
    world.settled_as(Kind::Events, [0, 0, 3, 0]).await;
    world.jetstream().update_stream(&original).await.unwrap();

    let replay = world.run(&["dead", "replay", "--all"]).await;
    replay.ended_with(1).prints("2 published again").prints("1 of 3").prints("no stream matches");
    world.settled_as(Kind::Events, [0, 0, 5, 0]).await;
    assert_eq!(world.count(OPEN).await, 3);
    world.finish([worker]).await;
}

#[tokio::test]
async fn headers_that_cannot_be_sent_are_left_behind() {
    let world = world().start().await;
    let worker = world.workers("events").await;
    world.execute(REFUSE_NEW_TYPES).await;
    world.publish(Kind::Events, &event_with(0, json!({ "event_type": "new.type" }))).await;
    world.settled_as(Kind::Events, [0, 0, 1, 0]).await;
    world.execute(ACCEPT_NEW_TYPES).await;
    let headers = json!({ "Fine": ["1", "two\r\nlines", "2"], "with space": ["x"], "Caf\u{fffd}": ["x"], "": ["x"] });
    world.execute(&format!("UPDATE watchbook.dead_letters SET headers = '{headers}'")).await;
    // Received by subscription: a request for one message returns only one value of each header.
    let mut on_its_way = world.client().subscribe(world.subject(Kind::Events, "acme")).await.unwrap();
    world.client().flush().await.unwrap();
    world.run(&["dead", "replay", "--all"]).await.succeeded().prints("1 published again");
    world.settled_as(Kind::Events, [1, 0, 1, 0]).await;
    world.holds_exactly(Kind::Events, 1).await;
    let published = tokio::time::timeout(BOUND, on_its_way.next()).await.unwrap().unwrap();
    let headers = published.headers.unwrap();
    let mut own: Vec<_> = headers.iter().filter(|(name, _)| !name.to_string().starts_with("Nats-")).collect();
    own.sort_by_key(|(name, _)| name.to_string());
    let own: Vec<_> = own.iter().map(|(name, values)| (name.to_string(), values.len())).collect();
    let expected = [("Fine", 2), ("Watchbook-Replay-Id", 1), ("Watchbook-Replay-Time", 1)];
    assert_eq!(own, expected.map(|(name, values)| (name.to_owned(), values)));
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_full_stream_ends_a_replay_and_what_it_took_is_marked() {
    let world = world().start().await;
    let mut worker = world.workers("events").await;
    // Nine of these are three atomic batches.
    for n in 0..9_u8 {
        world.publish_bytes(Kind::Events, vec![b'a' + n; 1_000_000]).await;
    }
    world.settled_as(Kind::Events, [0, 0, 9, 0]).await;
    worker.stop().await;
    let stream = world.jetstream().get_stream(world.stream(Kind::Events)).await.unwrap();
    let original = stream.cached_info().config.clone();
    let mut full = original.clone();
    full.max_messages = i64::try_from(stream.cached_info().state.messages).unwrap() + 4;
    world.jetstream().update_stream(&full).await.unwrap();

    let replay = world.run(&["dead", "replay", "--all", "--json"]).await;
    replay.ended_with(1).prints("5 dead letters of kind events were not acknowledged and stay as they are");
    let replayed = replay.json();
    assert_eq!(replayed.as_array().unwrap().iter().filter(|letter| letter["accepted"] == true).count(), 4);
    assert_eq!(world.count(OPEN).await, 5, "what the stream took is marked");
    world
        .run(&["dead", "replay", "--all"])
        .await
        .ended_with(1)
        .prints("5 dead letters")
        .does_not_print("published again");
    assert_eq!(world.count(OPEN).await, 5);

    world.jetstream().update_stream(&original).await.unwrap();
    world.run(&["dead", "replay", "--all"]).await.succeeded().prints("5 published again");
    let worker = world.workers("events").await;
    world.settled_as(Kind::Events, [0, 0, 18, 0]).await;
    assert_eq!(world.count(OPEN).await, 9, "each came back once");
    world.finish([worker]).await;
}
