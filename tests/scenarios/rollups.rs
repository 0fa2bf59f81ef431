//! Counts by label: they match the rows exactly, despite duplicates and dead letters, folded or not.

use harness::World;
use harness::messages::{created_at, id, time};
use records::Kind;
use records::rollup::MinuteGroups;
use serde_json::{Value, json};
use sqlx::Connection;
use store::rollups;

use crate::world;

/// Execution `n`, of one of a few strategies and users.
fn execution(n: u64) -> Value {
    json!({
        "id": id(n), "created_at": time(created_at(n)), "user_id": format!("u-{}", n % 5), "strategy_id": format!("s-{}", n % 7),
        "execution_type": if n.is_multiple_of(2) { "VALIDATION" } else { "TERMINAL" }, "success": !n.is_multiple_of(3),
        "timed_out": n.is_multiple_of(11), "execution_time_ms": n,
    })
}

/// The counts of the roll-ups, and the counts of the rows, in the same format.
const BY_LABEL: &str = "SELECT coalesce(string_agg(line, E'\\n' ORDER BY line), '') FROM (
    SELECT concat_ws(' ', labels->>'organization_id', labels->>'strategy_id', labels->>'user_id', labels->>'execution_type',
                     labels->>'timed_out', minute AT TIME ZONE 'UTC', sum(total), sum(failed)) AS line
      FROM watchbook.rollup_groups WHERE kind = 'executions' GROUP BY labels, minute) AS lines";
const BY_ROW: &str = "SELECT coalesce(string_agg(line, E'\\n' ORDER BY line), '') FROM (
    SELECT concat_ws(' ', organization_id, strategy_id, user_id, execution_type, timed_out::text,
                     date_trunc('minute', created_at, 'UTC') AT TIME ZONE 'UTC', count(*), count(*) FILTER (WHERE NOT success)) AS line
      FROM watchbook.sandbox_execution_logs
     GROUP BY organization_id, strategy_id, user_id, execution_type, timed_out, date_trunc('minute', created_at, 'UTC')) AS lines";

async fn agree(world: &World) {
    let ((counted,), (stored,)): ((String,), (String,)) =
        (world.query_one(BY_LABEL).await, world.query_one(BY_ROW).await);
    assert!(!stored.is_empty());
    assert_eq!(counted, stored);
}

#[tokio::test]
async fn they_are_exactly_the_rows_with_duplicates_and_refusals_between_them() {
    let world = world().with("WATCHBOOK_WRITER__LANES", 3).with("WATCHBOOK_WRITER__BATCH_ROWS", 50).start().await;
    let bodies = (0..900_u64).map(|n| match n % 10 {
        8 => json!({ "user_id": "u", "success": "perhaps" }),
        9 => execution(n / 2),
        _ => execution(n),
    });
    world.publish_all(Kind::Executions, bodies).await;
    let worker = world.workers("executions").await;
    world.settled(Kind::Executions).await;
    agree(&world).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn folding_changes_how_many_rows_they_are_and_nothing_else() {
    let world = world().with("WATCHBOOK_WRITER__BATCH_ROWS", 10).start().await;
    let worker = world.workers("executions").await;
    world.publish_all(Kind::Executions, (0..400).map(execution)).await;
    world.settled(Kind::Executions).await;
    let minutes = world.count("SELECT count(DISTINCT minute) FROM watchbook.rollups").await;
    assert!(world.count("SELECT count(*) FROM watchbook.rollups").await > minutes);
    let mut connection = sqlx::PgConnection::connect(world.database_url()).await.unwrap();
    assert_eq!(
        rollups::fold(&mut connection, Kind::Executions).await.unwrap(),
        0,
        "what is new stays for who reads it"
    );
    world.execute("UPDATE watchbook.rollups SET written_at = now() - interval '1 hour'").await;
    while rollups::fold(&mut connection, Kind::Executions).await.unwrap() > 0 {}
    assert_eq!(world.count("SELECT count(*) FROM watchbook.rollups").await, minutes);
    agree(&world).await;
    // Later records of the same minute are folded into the same row.
    world.publish_all(Kind::Executions, (400..420).map(execution)).await;
    world.settled(Kind::Executions).await;
    agree(&world).await;
    world.execute("UPDATE watchbook.rollups SET written_at = now() - interval '1 hour'").await;
    while rollups::fold(&mut connection, Kind::Executions).await.unwrap() > 0 {}
    assert_eq!(world.count("SELECT count(*) FROM watchbook.rollups").await, minutes);
    agree(&world).await;
    connection.close().await.unwrap();
    world.finish([worker]).await;
}

/// Returns the groups of one record.
fn one(organization: &str) -> MinuteGroups<'static> {
    let labels = Kind::Events.spec().labels.len();
    MinuteGroups {
        dictionary: vec![organization.to_owned().into()],
        places: std::iter::once(1).chain(std::iter::repeat_n(0, labels)).collect(),
        total: vec![1],
        failed: vec![0],
        levels: Vec::new(),
    }
}

#[tokio::test]
async fn what_is_new_is_seen_once_in_whatever_order_it_is_committed() {
    let world = world().without_setup().start().await;
    let connect = async || sqlx::PgConnection::connect(world.database_url()).await.unwrap();
    let (mut slow, mut quick, mut reader) = (connect().await, connect().await, connect().await);
    let minute = created_at(0);
    let names = |new: &[rollups::StoredMinute]| {
        new.iter().map(|minute| minute.groups.organization(0, minute.label_names.len()).to_owned()).collect::<Vec<_>>()
    };
    let mut before = slow.begin().await.unwrap();
    rollups::add(&mut before, Kind::Events, &[(minute, one("begun-before"))]).await.unwrap();
    rollups::add(&mut quick, Kind::Events, &[(minute, one("there-before"))]).await.unwrap();

    let mut loaded = Vec::new();
    let since = [(Kind::Events, minute - chrono::TimeDelta::hours(1))];
    let snapshot = rollups::load(&mut reader, &since, |minute| loaded.push(minute)).await.unwrap();
    assert_eq!(names(&loaded), ["there-before"]);

    rollups::add(&mut quick, Kind::Events, &[(minute, one("committed-first"))]).await.unwrap();
    let look = async |reader: &mut sqlx::PgConnection, seen: &rollups::Snapshot| {
        let mut new = Vec::new();
        let snapshot = rollups::new_since(reader, seen, |minute| new.push(minute)).await.unwrap();
        (new, snapshot)
    };
    let (new, snapshot) = look(&mut reader, &snapshot).await;
    assert_eq!(names(&new), ["committed-first"]);
    before.commit().await.unwrap();
    let (new, snapshot) = look(&mut reader, &snapshot).await;
    assert_eq!(names(&new), ["begun-before"]);
    let mut undone = slow.begin().await.unwrap();
    rollups::add(&mut undone, Kind::Events, &[(minute, one("rolled-back"))]).await.unwrap();
    undone.rollback().await.unwrap();
    let (new, _) = look(&mut reader, &snapshot).await;
    assert_eq!(names(&new), Vec::<String>::new());
    // A row that was restored from the dump of another server has a transaction id that this server has not assigned.
    world.execute("UPDATE watchbook.rollups SET xid = (xid::text::bigint + 1000000)::text::xid8").await;
    let (new, _) = look(&mut reader, &snapshot).await;
    assert_eq!(names(&new), Vec::<String>::new());
    for connection in [slow, quick, reader] {
        connection.close().await.unwrap();
    }
    world.finish([]).await;
}
