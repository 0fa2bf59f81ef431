//! Volumes: they always match the rows exactly, and decide what trimming removes.

use chrono::{DateTime, Duration, NaiveDate, Utc};
use harness::World;
use harness::messages::{MARKER, id, poison, record, time, with};
use records::Kind;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use store::holds::HeldRange;
use store::log_volumes::{self, Excess, Trimmed, Volume, excess};
use store::partitions::{Partition, Partitions};

use crate::world;

/// Line `n`: of one of a few containers, on one of three days, with its own length.
fn line(n: u64) -> Value {
    let created_at = harness::messages::created_at(n) - Duration::days((n % 3) as i64);
    let mut body = record(Kind::Logs, n);
    with(
        &mut body,
        json!({ "created_at": time(created_at), "container_id": format!("c-{}", n % 7),
                "message": format!("{MARKER} {}", "é".repeat((n % 50) as usize)) }),
    );
    body
}

fn line_with(n: u64, members: Value) -> Value {
    let mut body = line(n);
    with(&mut body, members);
    body
}

/// The stored volumes and the volumes computed from the rows, in the same format.
const BY_VOLUME: &str = "SELECT coalesce(string_agg(line, E'\\n' ORDER BY line), '') FROM (
    SELECT concat_ws(' ', day, coalesce(organization_id, 'NULL'), container_id, sum(lines), sum(bytes)) AS line
      FROM watchbook.log_volume_groups WHERE kind = 'logs' GROUP BY day, organization_id, container_id
    HAVING sum(lines) <> 0 OR sum(bytes) <> 0) AS lines";
const BY_ROW: &str = "SELECT coalesce(string_agg(line, E'\\n' ORDER BY line), '') FROM (
    SELECT concat_ws(' ', day, coalesce(organization_id, 'NULL'), container_id, count(*), sum(octet_length(message))) AS line
      FROM watchbook.container_logs, LATERAL (SELECT (created_at AT TIME ZONE 'UTC')::date AS day) AS days
     GROUP BY day, organization_id, container_id) AS lines";

/// Checks that the volumes match the rows, according to SQL and to the store.
async fn agree(world: &World) {
    let ((counted,), (stored,)): ((String,), (String,)) =
        (world.query_one(BY_VOLUME).await, world.query_one(BY_ROW).await);
    assert_eq!(counted, stored);
    let mut loaded: Vec<_> = load(world)
        .await
        .into_iter()
        .map(|Volume { day, organization_id, container_id, lines, bytes }| {
            let organization = organization_id.unwrap_or_else(|| "NULL".to_owned());
            format!("{day} {organization} {container_id} {lines} {bytes}")
        })
        .collect();
    let mut stored: Vec<_> = stored.lines().collect();
    loaded.sort();
    stored.sort_unstable();
    assert_eq!(loaded, stored);
}

async fn connect(world: &World) -> PgConnection {
    PgConnection::connect(world.database_url()).await.unwrap()
}

async fn load(world: &World) -> Vec<Volume> {
    let mut connection = connect(world).await;
    let volumes = log_volumes::load(&mut connection, Kind::Logs).await.unwrap();
    connection.close().await.unwrap();
    volumes
}

async fn fold_all(world: &World) {
    world.execute("UPDATE watchbook.log_volumes SET written_at = now() - interval '1 day'").await;
    let mut connection = connect(world).await;
    while log_volumes::fold(&mut connection, Kind::Logs).await.unwrap() > 0 {}
    connection.close().await.unwrap();
}

#[tokio::test]
async fn they_are_exactly_the_rows_whichever_way_these_were_stored() {
    let world = world().with("WATCHBOOK_WRITER__LANES", 3).with("WATCHBOOK_WRITER__BATCH_ROWS", 50).start().await;
    world.refuse_poison(Kind::Logs).await;
    let bodies = (0..900_u64).map(|n| match n % 10 {
        7 => line_with(n, json!({ "message": "" })),
        8 => json!({ "container_id": "c-1", "stream": "neither", "message": "m" }),
        // Duplicates: some in the same batch, some in another one.
        9 => line(n / 2),
        _ => line(n),
    });
    world.publish_all(Kind::Logs, bodies).await;
    for n in 900..1_000 {
        let organization = ["_", "globex"][n as usize % 2];
        let body = match n {
            // Longer than the limit of a line.
            910 => line_with(n, json!({ "message": "é".repeat(10_000) })).to_string(),
            // Old records: the roll-ups count them in the stream's minute, and they are stored on a day long ago.
            911..915 => line_with(n, json!({ "created_at": time(Utc::now() - Duration::days(20)) })).to_string(),
            930 | 931 | 977 => poison(Kind::Logs, n).to_string(),
            _ => line(n).to_string(),
        };
        world.try_publish_bytes(&world.subject(Kind::Logs, organization), Default::default(), body).await.unwrap();
    }
    let worker = world.workers("logs").await;
    let account = world.settled(Kind::Logs).await;
    assert!(account.duplicates > 0 && account.dead_letters == 93, "{account:?}");
    agree(&world).await;
    assert_eq!(
        world
            .count("SELECT sum(lines)::bigint FROM watchbook.log_volume_groups WHERE day < now() - interval '10 days'")
            .await,
        4
    );

    let days = world.count("SELECT count(DISTINCT day) FROM watchbook.log_volumes").await;
    assert!(days >= 4 && world.count("SELECT count(*) FROM watchbook.log_volumes").await > days);
    fold_all(&world).await;
    assert_eq!(world.count("SELECT count(*) FROM watchbook.log_volumes").await, days);
    agree(&world).await;
    // Later lines are added to the same rows by folding.
    world.publish_all(Kind::Logs, (1_000..1_100).map(line)).await;
    world.settled(Kind::Logs).await;
    agree(&world).await;
    fold_all(&world).await;
    assert_eq!(world.count("SELECT count(*) FROM watchbook.log_volumes").await, days);
    agree(&world).await;
    world.finish([worker]).await;
}

/// Inserts lines directly. `lines` is a SELECT of organization, container, time, id and message.
async fn insert(world: &World, lines: &str) {
    world.rows_were_dropped();
    world
        .execute(&format!(
            "INSERT INTO watchbook.container_logs (organization_id, container_id, created_at, id, message, stream, received_at, attributes)
             SELECT organization_id, container_id, created_at, id, message, 'stdout', now(), '{{}}'
               FROM ({lines}) AS line (organization_id, container_id, created_at, id, message)"
        ))
        .await;
}

#[tokio::test]
async fn what_is_stored_before_they_are_counted_is_counted_by_the_migration() {
    let world = world().start().await;
    let worker = world.workers("logs").await;
    world.publish_all(Kind::Logs, (0..200).map(line)).await;
    world.try_publish_bytes(&world.subject(Kind::Logs, "_"), Default::default(), line(200).to_string()).await.unwrap();
    world.settled(Kind::Logs).await;
    // More containers than fit into one row, and more bytes than two bytes can count.
    insert(
        &world,
        "SELECT CASE WHEN n % 3 > 0 THEN 'org-' || n % 3 END, 'c-' || n, now(), gen_random_uuid(), repeat('x', 10 + n % 90)
           FROM generate_series(1, 25000) AS n
         UNION ALL SELECT 'acme', 'large', now(), gen_random_uuid(), repeat('x', 100000) FROM generate_series(1, 3)",
    )
    .await;
    world.execute("DELETE FROM watchbook.log_volumes").await;
    let migration = include_str!("../../migrations/0012_log_volumes.sql");
    let (_, backfill) = migration.split_once("INSERT INTO watchbook.log_volumes").unwrap();
    world.execute(&format!("INSERT INTO watchbook.log_volumes{backfill}")).await;
    assert_eq!(
        world.count("SELECT count(*) FROM watchbook.log_volumes").await,
        5,
        "three of today, one of each other day"
    );
    agree(&world).await;
    fold_all(&world).await;
    assert_eq!(world.count("SELECT count(*) FROM watchbook.log_volumes").await, 3);
    agree(&world).await;
    world.finish([worker]).await;
}

/// Noon today, so that the lines around it are of one day.
fn midday() -> DateTime<Utc> {
    Utc::now().date_naive().and_hms_opt(12, 0, 0).unwrap().and_utc()
}

fn today() -> NaiveDate {
    midday().date_naive()
}

fn partition() -> String {
    Partition::of(Kind::Logs, midday()).unwrap().name()
}

/// Inserts a hundred lines of ten bytes for each of: a container, the same one in another organization and in none, and
/// another container. Two lines each have the same time, and their ids are not in the order of insertion.
async fn hundreds(world: &World) -> PgConnection {
    insert(
        world,
        &format!(
            "SELECT organization_id, container_id, '{}'::timestamptz + (n / 2) * interval '1 second',
                    (lpad(n::text, 8, '0') || '-0000-4000-8000-' || lpad(number::text, 12, '0'))::uuid, lpad(n::text, 10, '0')
               FROM (VALUES (1, 'acme', 'c'), (2, 'globex', 'c'), (3, NULL, 'c'), (4, 'acme', 'd')) AS owner (number, organization_id, container_id),
                    generate_series(99, 0, -1) AS n",
            time(midday())
        ),
    )
    .await;
    let mut connection = connect(world).await;
    log_volumes::recount_day(&mut connection, Kind::Logs, &partition(), today()).await.unwrap();
    agree(world).await;
    connection
}

/// Trims in batches, as a caller does. Returns what was removed and in how many batches.
async fn trim(connection: &mut PgConnection, mut excess: Excess, held: &[HeldRange], batch: u32) -> (Trimmed, usize) {
    let (mut whole, mut batches, mut from) = (Trimmed::default(), 0, None);
    while excess.bytes_to_remove > 0 {
        let (trimmed, last) =
            log_volumes::trim_container(connection, Kind::Logs, &partition(), &excess, from, held, batch)
                .await
                .unwrap();
        from = last;
        if trimmed.lines == 0 {
            break;
        }
        assert!(trimmed.lines <= u64::from(batch));
        excess.bytes_to_remove = excess.bytes_to_remove.saturating_sub(trimmed.bytes);
        whole.lines += trimmed.lines;
        whole.bytes += trimmed.bytes;
        batches += 1;
    }
    (whole, batches)
}

/// Returns the remaining lines of a container as ranges of numbers.
async fn left(world: &World, organization: &str, container: &str) -> String {
    let sql = format!(
        "SELECT coalesce(string_agg(run, ' ' ORDER BY first), '') FROM (
             SELECT min(n) AS first, min(n) || '-' || max(n) AS run
               FROM (SELECT message::bigint AS n, message::bigint - row_number() OVER (ORDER BY message) AS run
                       FROM watchbook.container_logs
                      WHERE coalesce(organization_id, '_') = '{organization}' AND container_id = '{container}') AS lines
              GROUP BY lines.run) AS runs"
    );
    world.query_one::<(String,)>(&sql).await.0
}

fn over(organization: Option<&str>, bytes: u64) -> Excess {
    Excess {
        organization_id: organization.map(str::to_owned),
        container_id: "c".to_owned(),
        day: today(),
        bytes_to_remove: bytes,
        whole_day: false,
        lines: 100,
    }
}

#[tokio::test]
async fn the_oldest_lines_of_a_container_go_until_it_is_at_its_limit() {
    let world = world().without_setup().start().await;
    let mut connection = hundreds(&world).await;
    // Each container has 1,000 bytes and may have 635: 37 lines of ten bytes free 365 and a little more.
    let too_much = excess(&load(&world).await, 635);
    assert_eq!(too_much.len(), 4);
    let acme = too_much.into_iter().find(|excess| *excess == over(Some("acme"), 365)).unwrap();
    let expected = Trimmed { lines: 37, bytes: 370 };
    let plan = log_volumes::plan_trim(&mut connection, Kind::Logs, &partition(), &acme, &[]).await.unwrap();
    assert_eq!(plan, expected);
    agree(&world).await;
    assert_eq!(trim(&mut connection, acme, &[], 7).await, (expected, 6));
    assert_eq!(left(&world, "acme", "c").await, "37-99");
    for (organization, container) in [("globex", "c"), ("_", "c"), ("acme", "d")] {
        assert_eq!(left(&world, organization, container).await, "0-99");
    }
    agree(&world).await;
    // Lines without an organization, exactly to the limit; then all lines, where the excess is larger than what is
    // stored.
    assert_eq!(trim(&mut connection, over(None, 120), &[], 100).await, (Trimmed { lines: 12, bytes: 120 }, 1));
    assert_eq!(left(&world, "_", "c").await, "12-99");
    assert_eq!(trim(&mut connection, over(None, 5_000), &[], 50).await, (Trimmed { lines: 88, bytes: 880 }, 2));
    assert_eq!(left(&world, "_", "c").await, "");
    assert_eq!(left(&world, "acme", "c").await + &left(&world, "globex", "c").await, "37-990-99");
    agree(&world).await;
    // Folding removes volumes that are zero.
    fold_all(&world).await;
    assert_eq!(world.count("SELECT count(*) FROM watchbook.log_volume_groups").await, 3);
    agree(&world).await;
    assert_eq!(excess(&load(&world).await, 635).len(), 2);
    connection.close().await.unwrap();
    world.finish([]).await;
}

#[tokio::test]
async fn what_is_held_stays() {
    let world = world().without_setup().start().await;
    let mut connection = hundreds(&world).await;
    let second = |n: i64| Some(midday() + Duration::seconds(n));
    let held = |organization: Option<&str>, from: Option<i64>, until: Option<i64>| HeldRange {
        organization_id: organization.map(str::to_owned),
        from: from.and_then(second),
        until: until.and_then(second),
    };
    // Two lines per second: the holds keep 10-19 and 24-29 of acme, and 0-1 of every organization. Holds of other
    // organizations keep no lines of acme.
    let holds = [
        held(Some("acme"), Some(5), Some(10)),
        held(Some("acme"), Some(12), Some(15)),
        held(None, None, Some(1)),
        held(Some("globex"), None, None),
        held(Some("_"), Some(40), None),
    ];
    let planned = async |connection: &mut PgConnection, excess: &Excess| {
        log_volumes::plan_trim(connection, Kind::Logs, &partition(), excess, &holds).await.unwrap()
    };
    let acme = over(Some("acme"), 200);
    let expected = Trimmed { lines: 20, bytes: 200 };
    assert_eq!(planned(&mut connection, &acme).await, expected);
    assert_eq!(trim(&mut connection, acme, &holds, 6).await, (expected, 4));
    assert_eq!(left(&world, "acme", "c").await, "0-1 10-19 24-29 38-99");
    let globex = over(Some("globex"), 10);
    assert_eq!(planned(&mut connection, &globex).await, Trimmed::default());
    assert_eq!(trim(&mut connection, globex, &holds, 6).await, (Trimmed::default(), 0));
    let none = over(None, 5_000);
    assert_eq!(planned(&mut connection, &none).await, Trimmed { lines: 78, bytes: 780 });
    trim(&mut connection, none, &holds, 50).await;
    assert_eq!(left(&world, "_", "c").await, "0-1 80-99");
    assert_eq!(left(&world, "globex", "c").await + &left(&world, "acme", "d").await, "0-990-99");
    agree(&world).await;
    connection.close().await.unwrap();
    world.finish([]).await;
}

#[tokio::test]
async fn a_day_is_forgotten_or_counted_anew_in_the_transaction_that_changes_it() {
    let world = world().without_setup().start().await;
    let mut connection = hundreds(&world).await;
    let yesterday = today().pred_opt().unwrap();
    let partitions = Partitions::default();
    let of_yesterday = Partition::of(Kind::Logs, midday() - Duration::days(1)).unwrap();
    partitions.ensure(&mut connection, of_yesterday).await.unwrap();
    insert(
        &world,
        &format!(
            "SELECT 'acme', 'c', '{}'::timestamptz, '{}'::uuid, 'yesterday'",
            time(midday() - Duration::days(1)),
            id(1)
        ),
    )
    .await;
    log_volumes::recount_day(&mut connection, Kind::Logs, Kind::Logs.spec().table, yesterday).await.unwrap();
    agree(&world).await;

    let mut removal = connection.begin().await.unwrap();
    sqlx::query(&format!("TRUNCATE {}", partition())).execute(&mut *removal).await.unwrap();
    log_volumes::remove_day(&mut removal, Kind::Logs, today()).await.unwrap();
    // Nothing is folded meanwhile, because folded volumes would reappear.
    let mut other = connect(&world).await;
    world.execute("INSERT INTO watchbook.log_volumes SELECT kind, day, now() - interval '1 day', dictionary, groups FROM watchbook.log_volumes").await;
    assert_eq!(log_volumes::fold(&mut other, Kind::Logs).await.unwrap(), 0);
    removal.rollback().await.unwrap();
    world.execute("UPDATE watchbook.log_volumes SET written_at = now() - interval '1 day'").await;
    assert_eq!(log_volumes::fold(&mut other, Kind::Logs).await.unwrap(), 2);
    log_volumes::recount_day(&mut connection, Kind::Logs, &partition(), today()).await.unwrap();
    log_volumes::recount_day(&mut connection, Kind::Logs, Kind::Logs.spec().table, yesterday).await.unwrap();
    agree(&world).await;

    let mut removal = connection.begin().await.unwrap();
    sqlx::query(&format!("DROP TABLE {}", partition())).execute(&mut *removal).await.unwrap();
    log_volumes::remove_day(&mut removal, Kind::Logs, today()).await.unwrap();
    removal.commit().await.unwrap();
    agree(&world).await;
    assert_eq!(
        load(&world).await.iter().map(|volume| (volume.day, volume.bytes)).collect::<Vec<_>>(),
        [(yesterday, 9)]
    );
    other.close().await.unwrap();
    connection.close().await.unwrap();
    world.finish([]).await;
}
