//! Erasures: all stored data of a user or a strategy is removed, and nothing of others.

use std::time::Duration;

use ::retention::RunLease;
use ::retention::erase;
use chrono::{TimeDelta, Utc};
use harness::messages::time;
use harness::{World, eventually};
use records::Kind;
use serde_json::{Value, json};
use sqlx::Connection;
use store::erasures::{self, Erasable, Erasure};
use store::{PgConnection, partition_removal};
use tokio::sync::Notify;

use super::fixtures::{audited, bare_world, content, content_where, database, day, fill, hold, release, world_with};

/// A condition for rows that `fill` does not give to the user `u-1`.
const OTHERS: &str = "(attributes->>'n')::int % 4 <> 1";

async fn erase(world: &World, of: &[&str]) -> Value {
    let arguments = [&["erase"], of, &["--by", "ann", "--json"]].concat();
    world.run(&arguments).await.succeeded().json()
}

async fn executions_of(world: &World, user: &str) -> i64 {
    world.count(&format!("SELECT count(*) FROM watchbook.sandbox_execution_logs WHERE user_id = '{user}'")).await
}

async fn publish_user(world: &World, members: Value) {
    let mut body = json!({ "entity": "user", "entity_id": "u-1", "name": "Ann Example", "email": "ann@example.com" });
    harness::messages::with(&mut body, members);
    world.publish(Kind::Directory, &body).await;
    world.settled(Kind::Directory).await;
}

async fn entities(world: &World) -> Vec<(String, Option<String>, Option<String>, bool)> {
    world.query_all("SELECT entity_id, name, email, deleted FROM watchbook.entities ORDER BY entity_id").await
}

/// Returns the erasures: state, executions, blanked.
async fn erased(world: &World) -> Vec<(String, i64, i64)> {
    world.query_all("SELECT state, executions, blanked FROM watchbook.erasures ORDER BY requested_at").await
}

async fn ends_as(world: &World, expected: &[(&str, i64, i64)]) {
    let expected: Vec<_> =
        expected.iter().map(|(state, gone, blanked)| ((*state).to_owned(), *gone, *blanked)).collect();
    eventually(&format!("erasures end as {expected:?}"), async || {
        let found = erased(world).await;
        if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

/// Waits until all internal records are stored.
async fn everything_is_told(world: &World) {
    eventually("all is published", async || {
        let left = world.count("SELECT count(*) FROM watchbook.own_records").await;
        if left == 0 { Ok(()) } else { Err(left.to_string()) }
    })
    .await;
    world.settled(Kind::Audit).await;
}

#[tokio::test]
async fn a_user_is_erased_over_days_and_nobody_else_is() {
    let world = world_with(&[]).await;
    let worker = world.workers("directory,audit").await;
    for ago in [60, 61, 62] {
        fill(&world, "executions", day(ago), 3_000).await;
    }
    for (kind, ago) in [("events", 10), ("events", 11), ("errors", 10)] {
        fill(&world, kind, day(ago), 60).await;
    }
    // An event about the user by another actor, and one with the user's name in another field.
    world
        .execute(
            "UPDATE watchbook.event_logs SET user_id = NULL, actor_type = 'system', actor_id = NULL,
                    payload = payload - 'user_id' || '{\"userId\": \"u-1\", \"ip\": \"10.0.0.1\", \"kept\": 1}' WHERE (attributes->>'n')::int = 5",
        )
        .await;
    publish_user(&world, json!({ "phone": "123" })).await;
    publish_user(&world, json!({ "entity_id": "u-2", "name": "Bob" })).await;
    let mut others = Vec::new();
    for (kind, ago) in [("executions", 60), ("executions", 62), ("events", 10), ("events", 11), ("errors", 10)] {
        others.push((kind, ago, content_where(&world, kind, day(ago), OTHERS).await));
    }
    let everybodys_errors = content_where(&world, "errors", day(10), "detail IS NULL").await;

    let arguments = ["erase", "user", "u-1", "--dry-run", "--json"];
    let would = world.run(&arguments).await.succeeded().json();
    assert_eq!(would, json!({ "executions": 2_250, "held": 0 }));
    assert_eq!(executions_of(&world, "u-1").await, 2_250);
    let done = erase(&world, &["user", "u-1"]).await;
    // A quarter of 120 events; of the errors, those with a user.
    assert_eq!(
        (&done["state"], &done["executions"], &done["blanked"]),
        (&json!("done"), &json!(2_250), &json!(30 + 8))
    );

    for (kind, ago, before) in &others {
        assert_eq!(content_where(&world, kind, day(*ago), OTHERS).await, *before, "{kind}");
    }
    assert_eq!(content_where(&world, "errors", day(10), "detail IS NULL").await, everybodys_errors);
    assert_eq!(executions_of(&world, "u-1").await, 0);
    let personal = "FROM watchbook.event_logs AS record WHERE record::text LIKE '%u-1%' OR (attributes->>'n')::int % 4 = 1 AND record::text ~ 'Ann|10.0.0.1'";
    assert_eq!(world.count(&format!("SELECT count(*) {personal}")).await, 0);
    let kept = "SELECT count(*) FROM watchbook.event_logs WHERE (attributes->>'n')::int % 4 = 1 AND attributes->>'erased' = 'true' AND payload ? 'n' AND payload ? 'text'";
    assert_eq!(world.count(kept).await, 30);
    assert_eq!(world.count("SELECT count(*) FROM watchbook.event_logs WHERE payload ? 'kept'").await, 2);
    assert_eq!(world.count("SELECT count(*) FROM watchbook.error_logs WHERE detail->>'user_id' = 'u-1'").await, 0);
    assert_eq!(
        world
            .count("SELECT count(*) FROM watchbook.error_logs WHERE attributes->>'erased' = 'true' AND detail = '{}'")
            .await,
        8
    );
    let (ann, bob) = (
        ("u-1".to_owned(), None, None, false),
        ("u-2".to_owned(), Some("Bob".to_owned()), Some("ann@example.com".to_owned()), false),
    );
    assert_eq!(entities(&world).await, [ann, bob]);
    assert_eq!(world.count("SELECT count(*) FROM watchbook.entities WHERE attributes ? 'phone'").await, 0);

    assert_eq!(erase(&world, &["user", "u-1"]).await["executions"], 0);
    let told = audited(&world, "retention.erase", 2).await;
    assert!(
        told.iter().all(|(actor, target, status)| [actor.as_str(), target, status] == ["ann", "u-1", "SUCCESS"]),
        "{told:?}"
    );
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_strategy_or_one_organizations_part_of_a_user_is_erased() {
    let world = world_with(&[]).await;
    fill(&world, "executions", day(60), 120).await;
    fill(&world, "executions", day(61), 120).await;
    fill(&world, "events", day(10), 120).await;
    let user = "user_id = 'u-1' AND organization_id = 'acme'";
    let left = content_where(&world, "executions", day(60), &format!("({user}) IS NOT TRUE")).await;
    let events = content_where(&world, "events", day(10), &format!("({user}) IS NOT TRUE")).await;
    let done = erase(&world, &["user", "u-1", "--org", "acme"]).await;
    assert_eq!((&done["executions"], &done["blanked"]), (&json!(20), &json!(10)));
    assert_eq!(content(&world, "executions", day(60)).await, left);
    assert_eq!(content_where(&world, "events", day(10), "attributes->>'erased' IS NULL").await, events);
    world.run(&["erase", "user", "u-1", "--org", "a b"]).await.ended_with(1).prints("is not an organization");

    let left = content_where(&world, "executions", day(61), "strategy_id <> 's-0'").await;
    let events = content(&world, "events", day(10)).await;
    assert_eq!(erase(&world, &["strategy", "s-0"]).await["executions"], 120);
    assert_eq!(content(&world, "executions", day(61)).await, left);
    assert_eq!(content(&world, "events", day(10)).await, events);
    let worker = world.workers("audit").await;
    audited(&world, "retention.erase", 2).await;
    let of_acme =
        "SELECT count(*) FROM control_plane.audit_logs WHERE action = 'retention.erase' AND organization_id = 'acme'";
    assert_eq!(world.count(of_acme).await, 1);
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_deletion_in_a_directory_erases_in_its_organization_and_is_told_of_once() {
    let world = world_with(&[]).await;
    fill(&world, "executions", day(60), 120).await;
    let user = "user_id = 'u-1' AND organization_id = 'acme'";
    let left = content_where(&world, "executions", day(60), &format!("({user}) IS NOT TRUE")).await;
    // Two workers, and the record twice.
    let workers = [world.workers("directory,retention,audit").await, world.workers("directory,retention,audit").await];
    publish_user(&world, json!({ "deleted": false })).await;
    let (id, now) = (uuid::Uuid::now_v7(), time(Utc::now()));
    for _ in 0..2 {
        publish_user(&world, json!({ "id": id, "created_at": now, "deleted": true })).await;
    }
    ends_as(&world, &[("done", 10, 0)]).await;
    assert_eq!(content(&world, "executions", day(60)).await, left);
    assert_eq!(entities(&world).await, [("u-1".to_owned(), None, None, true)]);
    let told = audited(&world, "retention.erase", 1).await;
    assert_eq!(told, [("system".to_owned(), "u-1".to_owned(), "SUCCESS".to_owned())]);
    everything_is_told(&world).await;
    audited(&world, "retention.erase", 1).await;
    let (organization, record): (Option<String>, String) =
        world.query_one("SELECT organization_id, record::text FROM control_plane.audit_logs AS record WHERE action = 'retention.erase'").await;
    assert_eq!(organization.as_deref(), Some("acme"));
    assert!(!record.contains("Ann") && !record.contains("ann@"), "{record}");
    // The erasure is requested once: publishing the record again changes nothing.
    assert_eq!(erased(&world).await.len(), 1);
    world.finish(workers).await;
}

#[tokio::test]
async fn what_a_hold_keeps_goes_after_its_release() {
    let world = world_with(&[]).await;
    fill(&world, "executions", day(60), 120).await;
    let acme = hold(&world, &["--org", "acme", "--kind", "executions"]).await;
    let would = world.run(&["erase", "user", "u-1", "--dry-run", "--json"]).await.succeeded().json();
    assert_eq!(would, json!({ "executions": 20, "held": 10 }));
    let held = content_where(&world, "executions", day(60), "user_id = 'u-1' AND organization_id = 'acme'").await;
    let done = erase(&world, &["user", "u-1"]).await;
    assert_eq!((&done["state"], &done["executions"]), (&json!("held"), &json!(20)));
    assert_eq!(content_where(&world, "executions", day(60), "user_id = 'u-1'").await, held);
    let worker = world.workers("retention,audit").await;
    audited(&world, "retention.erase", 1).await;
    assert_eq!(erased(&world).await, [("held".to_owned(), 20, 0)]);
    release(&world, &acme).await;
    ends_as(&world, &[("done", 30, 0)]).await;
    assert_eq!(executions_of(&world, "u-1").await, 0);
    let told = audited(&world, "retention.erase", 2).await;
    assert!(told.iter().all(|(actor, _, _)| actor == "ann"), "{told:?}");
    // The worker notices by itself that a hold has expired.
    let for_a_while = hold(&world, &["--for", "1h"]).await;
    assert_eq!(erase(&world, &["user", "u-2"]).await["state"], "held");
    world
        .execute(&format!("UPDATE watchbook.holds SET expires_at = clock_timestamp() WHERE id = '{for_a_while}'"))
        .await;
    let mut connection = session(&world).await;
    assert_eq!(erasures::reopen(&mut connection).await.unwrap(), 1);
    ends_as(&world, &[("done", 30, 0), ("done", 30, 0)]).await;
    connection.close().await.unwrap();
    world.finish([worker]).await;
}

async fn session(world: &World) -> PgConnection {
    partition_removal::session(&database(world)).await.unwrap()
}

async fn pending(connection: &mut PgConnection) -> Vec<Erasure> {
    erasures::pending(connection, 10).await.unwrap()
}

#[tokio::test]
async fn an_erasure_may_be_killed_between_any_two_batches() {
    let world = bare_world().await;
    const EXECUTIONS: i64 = 3_500;
    const EVENTS: i64 = 1_500;
    for n in 1.. {
        let user = format!("k-{n}");
        for (kind, ago, rows) in [("executions", 60, 2_000), ("executions", 61, 1_500), ("events", 10, 1_500)] {
            world
                .execute(&format!("TRUNCATE {}", super::fixtures::make_day(&world, kind, day(ago)).await.name()))
                .await;
            fill(&world, kind, day(ago), rows).await;
        }
        world.execute(&format!("UPDATE watchbook.sandbox_execution_logs SET user_id = '{user}'")).await;
        world.execute(&format!("UPDATE watchbook.event_logs SET user_id = '{user}'")).await;
        let mut connection = session(&world).await;
        let asked = erase::request(&mut connection, Erasable::User, &user, None, "ann", Utc::now()).await.unwrap();
        let (mut batches, is_time) = (0, Notify::new());
        let is_over = {
            let work = Box::pin(erase::execute(&mut connection, vec![asked.clone()], |_| {
                batches += 1;
                if batches == n {
                    is_time.notify_one();
                }
            }));
            tokio::select! {
                biased;
                () = is_time.notified() => false,
                ended = work => { ended.unwrap(); true }
            }
        };
        drop(connection);
        let mut connection = session(&world).await;
        let so_far = erasures::find(&mut connection, asked.id).await.unwrap().unwrap();
        let blanked = "SELECT count(*) FROM watchbook.event_logs WHERE attributes->>'erased' = 'true'";
        let found = (EXECUTIONS - executions_of(&world, &user).await, world.count(blanked).await);
        assert_eq!((so_far.executions, so_far.blanked), found, "killed after batch {n}");
        for left in pending(&mut connection).await {
            erase::execute(&mut connection, vec![left.clone()], |_| {}).await.unwrap();
        }
        let ended = erasures::find(&mut connection, asked.id).await.unwrap().unwrap();
        assert_eq!(
            (ended.state.as_str(), ended.executions, ended.blanked),
            ("done", EXECUTIONS, EVENTS),
            "killed after batch {n}"
        );
        assert_eq!((executions_of(&world, &user).await, world.count(blanked).await), (0, EVENTS));
        let told = format!("SELECT count(*) FROM watchbook.own_records WHERE record->>'target_id' = '{user}'");
        assert_eq!(world.count(&told).await, 1, "killed after batch {n}");
        connection.close().await.unwrap();
        if is_over {
            assert!(n > 6, "it came to its end after {n} batches");
            break;
        }
    }
    world.finish([]).await;
}

#[tokio::test]
async fn an_execution_that_comes_late_goes_as_well() {
    let world = world_with(&[]).await;
    fill(&world, "executions", day(60), 120).await;
    let worker = world.workers("executions,audit").await;
    assert_eq!(erase(&world, &["user", "u-1"]).await["executions"], 30);
    assert_eq!(erase(&world, &["strategy", "s-0"]).await["executions"], 60);
    let mut connection = session(&world).await;
    assert_eq!(erasures::reopen(&mut connection).await.unwrap(), 0);
    let before = time(Utc::now() - TimeDelta::hours(1));
    let body = |user: &str, strategy: &str| {
        json!({ "user_id": user, "strategy_id": strategy, "execution_type": "TERMINAL", "success": true,
                "execution_time_ms": 1, "created_at": before })
    };
    world.publish_all(Kind::Executions, [body("u-1", "s-1"), body("u-3", "s-0"), body("u-3", "s-1")]).await;
    world.settled(Kind::Executions).await;
    assert_eq!(erasures::reopen(&mut connection).await.unwrap(), 2);
    assert_eq!(erasures::reopen(&mut connection).await.unwrap(), 0);
    connection.close().await.unwrap();
    let retention = world.workers("retention").await;
    ends_as(&world, &[("done", 31, 0), ("done", 61, 0)]).await;
    let late: Vec<(String, String)> = world
        .query_all(
            "SELECT user_id, strategy_id FROM watchbook.sandbox_execution_logs WHERE execution_type = 'TERMINAL'",
        )
        .await;
    assert_eq!(late, [("u-3".to_owned(), "s-1".to_owned())]);
    audited(&world, "retention.erase", 4).await;
    world.finish([worker, retention]).await;
}

#[tokio::test]
async fn a_worker_that_waited_for_somebody_elses_erasure_does_not_do_it_again() {
    let world = world_with(&[]).await;
    fill(&world, "executions", day(60), 120).await;
    let worker = world.workers("retention,audit").await;
    eventually("its first look is over", async || {
        let runs = world.count("SELECT count(*) FROM watchbook.retention_runs WHERE outcome = 'done'").await;
        if runs == 1 { Ok(()) } else { Err(runs.to_string()) }
    })
    .await;
    for user in ["u-0", "u-1", "u-2"] {
        let run_lease =
            RunLease::acquire(&database(&world), Duration::from_secs(30)).await.unwrap().expect("the right to act");
        let mut connection = session(&world).await;
        let asked = erase::request(&mut connection, Erasable::User, user, None, "ann", Utc::now()).await.unwrap();
        eventually("the worker waits for the right to act", async || {
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '% retention acting'";
            if world.count(waiting).await == 2 { Ok(()) } else { Err("nobody waits".to_owned()) }
        })
        .await;
        erase::execute(&mut connection, vec![asked.clone()], |_| {}).await.unwrap();
        run_lease.release().await;
        connection.close().await.unwrap();
    }
    // Requested after these, and so executed after the erasures that the worker requests.
    let mut connection = session(&world).await;
    erase::request(&mut connection, Erasable::User, "u-3", None, "ann", Utc::now()).await.unwrap();
    connection.close().await.unwrap();
    ends_as(&world, &[("done", 30, 0); 4]).await;
    everything_is_told(&world).await;
    audited(&world, "retention.erase", 4).await;
    world.finish([worker]).await;
}

/// Publishes a snapshot of the user `u-1` for an organization.
async fn publish_user_of(world: &World, organization: &str, members: Value) {
    let mut body = json!({ "entity": "user", "entity_id": "u-1", "name": "Ann Example", "email": "ann@example.com" });
    harness::messages::with(&mut body, members);
    let subject = world.subject(Kind::Directory, organization);
    world.try_publish_bytes(&subject, Default::default(), body.to_string()).await.unwrap();
}

/// Returns the executions of the user `u-1`: those of organizations that have deleted the user, and all.
async fn left_of_u1(world: &World, deleted: &str) -> (i64, i64) {
    let sql = format!(
        "SELECT count(*) FILTER (WHERE organization_id IN ({deleted})), count(*) FROM watchbook.sandbox_execution_logs
          WHERE user_id = 'u-1'"
    );
    world.query_one(&sql).await
}

#[tokio::test]
async fn two_organizations_delete_with_the_same_record_and_each_is_erased_once() {
    let world = world_with(&[]).await;
    fill(&world, "executions", day(60), 120).await;
    let deletion = json!({ "id": uuid::Uuid::now_v7(), "created_at": time(Utc::now()), "deleted": true });
    // Each twice, in one batch.
    for organization in ["acme", "globex", "acme", "globex"] {
        publish_user_of(&world, organization, deletion.clone()).await;
    }
    let worker = world.workers("directory,retention,audit").await;
    world.settled(Kind::Directory).await;
    ends_as(&world, &[("done", 10, 0), ("done", 10, 0)]).await;
    // And once more, in another batch.
    for organization in ["acme", "globex"] {
        publish_user_of(&world, organization, deletion.clone()).await;
    }
    world.settled(Kind::Directory).await;
    assert_eq!(erased(&world).await.len(), 2);
    assert_eq!(left_of_u1(&world, "'acme', 'globex'").await, (0, 10));
    everything_is_told(&world).await;
    audited(&world, "retention.erase", 2).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn who_is_deleted_and_made_again_within_a_batch_loses_what_was_before_and_nothing_else() {
    let world = world_with(&[]).await;
    fill(&world, "executions", day(60), 120).await;
    publish_user_of(&world, "acme", json!({ "created_at": time(Utc::now()), "deleted": true })).await;
    let back = time(Utc::now());
    publish_user_of(&world, "acme", json!({ "created_at": back, "name": "Ann Again" })).await;
    let worker = world.workers("directory,retention,audit").await;
    world.settled(Kind::Directory).await;
    ends_as(&world, &[("done", 10, 0)]).await;
    assert_eq!(left_of_u1(&world, "'acme'").await, (0, 20));
    let known = ("u-1".to_owned(), Some("Ann Again".to_owned()), Some("ann@example.com".to_owned()), false);
    assert_eq!(entities(&world).await, [known]);
    // Records that the recreated user publishes later are not erased.
    let body = json!({ "user_id": "u-1", "strategy_id": "s-1", "execution_type": "TERMINAL", "success": true,
                       "execution_time_ms": 1, "created_at": time(Utc::now()) });
    let executions = world.workers("executions").await;
    world.publish(Kind::Executions, &body).await;
    world.settled(Kind::Executions).await;
    let mut connection = session(&world).await;
    assert_eq!(erasures::reopen(&mut connection).await.unwrap(), 0);
    connection.close().await.unwrap();
    audited(&world, "retention.erase", 1).await;
    world.finish([worker, executions]).await;
}

#[tokio::test]
async fn a_deletion_that_comes_after_a_newer_snapshot_erases_what_was_before() {
    let world = world_with(&[]).await;
    fill(&world, "executions", day(60), 120).await;
    let worker = world.workers("directory,retention,audit").await;
    publish_user(&world, json!({ "created_at": time(Utc::now()), "name": "Ann Again" })).await;
    let before = time(Utc::now() - TimeDelta::hours(1));
    for _ in 0..2 {
        publish_user(&world, json!({ "created_at": before, "deleted": true })).await;
    }
    ends_as(&world, &[("done", 10, 0)]).await;
    assert_eq!(left_of_u1(&world, "'acme'").await, (0, 20));
    let known = entities(&world).await;
    assert!(known.len() == 1 && !known[0].3, "the newer snapshot is the one that is stored: {known:?}");
    audited(&world, "retention.erase", 1).await;
    everything_is_told(&world).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn events_and_errors_that_a_hold_keeps_are_blanked_after_its_release() {
    let world = world_with(&[]).await;
    for kind in ["events", "errors"] {
        fill(&world, kind, day(10), 60).await;
    }
    let acme = hold(&world, &["--org", "acme"]).await;
    let mut held = Vec::new();
    for kind in ["events", "errors"] {
        held.push(content_where(&world, kind, day(10), "organization_id = 'acme'").await);
    }
    // 5 of 15 events and 2 of 8 errors are held.
    let done = erase(&world, &["user", "u-1"]).await;
    assert_eq!((&done["state"], &done["blanked"]), (&json!("held"), &json!(10 + 6)));
    for (kind, held) in ["events", "errors"].into_iter().zip(&held) {
        assert_eq!(content_where(&world, kind, day(10), "organization_id = 'acme'").await, *held, "{kind}");
    }
    let worker = world.workers("retention,audit").await;
    release(&world, &acme).await;
    ends_as(&world, &[("done", 0, 15 + 8)]).await;
    for (table, places) in [
        ("event_logs", "user_id = 'u-1' OR actor_id = 'u-1' OR payload->>'user_id' = 'u-1'"),
        ("error_logs", "detail->>'user_id' = 'u-1'"),
    ] {
        assert_eq!(world.count(&format!("SELECT count(*) FROM watchbook.{table} WHERE {places}")).await, 0, "{table}");
    }
    audited(&world, "retention.erase", 2).await;
    everything_is_told(&world).await;
    world.finish([worker]).await;
}
