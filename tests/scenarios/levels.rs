//! What retention keeps: hours instead of minutes and samples, which do not change any results.

use std::collections::BTreeSet;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use harness::{World, eventually};
use records::Kind;
use sqlx::{Connection, PgConnection};
use store::Steps;
use store::holds::HeldRange;
use store::metric_hours::{self, MinAvgMax, Point};
use store::outcomes::{self, OutcomeMinute, OutcomePoint, thin};
use store::partitions::{Partition, Partitions};

use crate::world;

/// Midnight, `ago` days ago.
fn day(ago: i64) -> DateTime<Utc> {
    Utc::now().duration_trunc(TimeDelta::days(1)).unwrap() - TimeDelta::days(ago)
}

async fn connect(world: &World) -> PgConnection {
    PgConnection::connect(world.database_url()).await.unwrap()
}

/// Returns a world whose tables are filled by SQL.
async fn filled_by_hand() -> World {
    let world = world().without_setup().start().await;
    world.rows_were_dropped();
    world
}

async fn thin_all(connection: &mut PgConnection, before: DateTime<Utc>) -> u64 {
    let mut all = 0;
    loop {
        match thin(connection, before, 10_000).await.unwrap() {
            0 => return all,
            taken => all += taken,
        }
    }
}

// Minutes that become hours.

/// Returns the counts of each hour, at either level.
async fn sums(world: &World) -> Vec<(String, String, String, i64, i64)> {
    world
        .query_all(
            "SELECT kind, date_trunc('hour', at, 'UTC')::text, organization_id, sum(total)::bigint, sum(failed)::bigint
               FROM watchbook.outcomes GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        )
        .await
}

/// Counts two kinds, three organizations and three lanes in each minute of a day and an hour: more than one batch each.
async fn count_a_day(world: &World, day: DateTime<Utc>) {
    let rows = world
        .execute(&format!(
            "INSERT INTO watchbook.outcome_minutes (kind, minute, organization_id, lane, total, failed)
             SELECT kind, '{day}'::timestamptz + n * interval '1 minute', organization, lane, 1 + n * lane % 7, n % 2
               FROM generate_series(0, 25 * 60 - 1) AS n, generate_series(0, 2) AS lane,
                    unnest(ARRAY['events', 'executions']) AS kind, unnest(ARRAY['acme', 'globex', '_']) AS organization"
        ))
        .await;
    assert_eq!(rows, 25 * 60 * 3 * 2 * 3);
}

#[tokio::test]
async fn thinning_makes_hours_of_minutes_and_changes_no_sum() {
    let world = filled_by_hand().await;
    let mut connection = connect(&world).await;
    let day = day(40);
    count_a_day(&world, day).await;
    let all = sums(&world).await;
    assert_eq!(all.len(), 25 * 2 * 3);
    // In the middle of the last hour, which is not complete before that.
    let taken = thin_all(&mut connection, day + TimeDelta::minutes(24 * 60 + 30)).await;
    assert_eq!(taken, 24 * 60 * 3 * 2 * 3);
    assert_eq!(sums(&world).await, all);
    assert_eq!(world.count("SELECT count(*) FROM watchbook.outcome_hours").await, 24 * 2 * 3);
    let left: (DateTime<Utc>, i64) =
        world.query_one("SELECT min(minute), count(*) FROM watchbook.outcome_minutes").await;
    assert_eq!(left, (day + TimeDelta::days(1), 60 * 3 * 2 * 3));
    connection.close().await.unwrap();
    world.finish([]).await;
}

#[tokio::test]
async fn who_thins_may_be_killed_at_any_moment() {
    let world = filled_by_hand().await;
    let day = day(40);
    count_a_day(&world, day).await;
    let all = sums(&world).await;
    let mut connection = connect(&world).await;
    let mut undone = connection.begin().await.unwrap();
    assert!(thin(&mut undone, Utc::now(), 10_000).await.unwrap() > 0);
    undone.rollback().await.unwrap();
    assert_eq!(world.count("SELECT count(*) FROM watchbook.outcome_hours").await, 0);
    for is_killed in [true, false] {
        // Another session locks an hour, so the merge has taken minutes and cannot continue.
        let mut holding = connection.begin().await.unwrap();
        sqlx::query("INSERT INTO watchbook.outcome_hours VALUES ('events', $1, 'acme', 1, 1)")
            .bind(day)
            .execute(&mut *holding)
            .await
            .unwrap();
        let mut thinning = connect(&world).await;
        let under_way = tokio::spawn(async move { thin(&mut thinning, Utc::now(), 10_000).await });
        let waiting = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'WITH old%'";
        let process = eventually("it waits for the hour", async || {
            world.try_query_one::<(i32,)>(&format!("SELECT pid {waiting}")).await
        })
        .await;
        if is_killed {
            world.execute(&format!("SELECT pg_terminate_backend({})", process.0)).await;
            assert!(under_way.await.unwrap().is_err());
        } else {
            // The client is dropped; the server notices later, or never.
            under_way.abort();
            assert!(under_way.await.is_err());
        }
        assert_eq!(sums(&world).await, all);
        holding.rollback().await.unwrap();
        eventually("it has ended", async || {
            let left = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {}", process.0);
            if world.count(&left).await == 0 { Ok(()) } else { Err(left) }
        })
        .await;
        assert_eq!(sums(&world).await, all);
    }
    thin_all(&mut connection, Utc::now()).await;
    assert_eq!(world.count("SELECT count(*) FROM watchbook.outcome_minutes").await, 0);
    assert_eq!(sums(&world).await, all);
    connection.close().await.unwrap();
    world.finish([]).await;
}

#[tokio::test]
async fn two_may_thin_at_once_while_records_come_late() {
    const LATE: u64 = 300;
    let world = filled_by_hand().await;
    let day = day(40);
    count_a_day(&world, day).await;
    let (mut one, mut other, mut lane) = (connect(&world).await, connect(&world).await, connect(&world).await);
    let before = day + TimeDelta::days(1);
    let late = async {
        for n in 0..LATE {
            let minute = day + TimeDelta::minutes(i64::try_from(n * 5).unwrap());
            let outcome = OutcomeMinute { minute, organization_id: "acme".to_owned(), total: 10, failed: 1 };
            outcomes::add(&mut lane, Kind::Events, 1, &[outcome]).await.unwrap();
        }
    };
    let all = sums(&world).await;
    tokio::join!(thin_all(&mut one, before), thin_all(&mut other, before), late);
    thin_all(&mut one, before).await;
    let left = world.count(&format!("SELECT count(*) FROM watchbook.outcome_minutes WHERE minute < '{before}'")).await;
    assert_eq!(left, 0);
    let expected: Vec<_> = all
        .into_iter()
        .map(|(kind, hour, organization, total, failed)| {
            // Twelve times five minutes, in each of the twenty-five hours.
            let late = if (kind.as_str(), organization.as_str()) == ("events", "acme") { 12 } else { 0 };
            (kind, hour, organization, total + late * 10, failed + late)
        })
        .collect();
    assert_eq!(sums(&world).await, expected);
    for connection in [one, other, lane] {
        connection.close().await.unwrap();
    }
    world.finish([]).await;
}

#[tokio::test]
async fn the_roll_ups_count_exactly_the_rows_at_both_levels() {
    let world = world().start().await;
    let worker = world.workers("executions").await;
    let mut connection = connect(&world).await;
    let minutes = "SELECT count(*) FROM watchbook.outcome_minutes";
    // The second half arrives when the hour exists already.
    for records in [0..200, 200..400] {
        world.publish_records(Kind::Executions, records).await;
        world.settled(Kind::Executions).await;
        assert!(world.count(minutes).await > 0);
        let before = sums(&world).await;
        // Retention never merges such young hours, but counting does not depend on that.
        assert!(thin_all(&mut connection, Utc::now() + TimeDelta::hours(1)).await > 0);
        assert_eq!(world.count(minutes).await, 0);
        assert_eq!(sums(&world).await, before);
        world.settled(Kind::Executions).await;
    }
    world.settled_as(Kind::Executions, [400, 0, 0, 0]).await;
    connection.close().await.unwrap();
    world.finish([worker]).await;
}

#[tokio::test]
async fn counts_are_read_from_both_levels() {
    let world = filled_by_hand().await;
    let mut connection = connect(&world).await;
    let day = day(40);
    count_a_day(&world, day).await;
    let only = ["acme".to_owned(), "_".to_owned()];
    let hours = Steps::of(day - TimeDelta::days(1), day + TimeDelta::days(3), TimeDelta::hours(1)).unwrap();
    let days = Steps::of(day, day + TimeDelta::days(2), TimeDelta::days(1)).unwrap();
    let minutes = Steps::of(day, day + TimeDelta::days(2), TimeDelta::minutes(5)).unwrap();
    let read = async |connection: &mut PgConnection, steps: &Steps, organizations: Option<&[String]>| {
        outcomes::series(connection, Kind::Executions, organizations, steps).await.unwrap()
    };
    let sum = |points: &[OutcomePoint]| {
        points.iter().map(|point| (point.total, point.failed)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    };
    let before = (
        read(&mut connection, &hours, None).await,
        read(&mut connection, &hours, Some(&only)).await,
        read(&mut connection, &days, None).await,
    );
    let fine = read(&mut connection, &minutes, None).await;
    assert_eq!((before.0.len(), before.2.len(), fine.len()), (25, 2, 25 * 12));
    assert_eq!(sum(&before.0), sum(&fine));
    assert_eq!(before.0[0].at, day);
    assert!(sum(&before.1).0 > 0 && sum(&before.1).0 < sum(&before.0).0);
    assert!(read(&mut connection, &hours, Some(&[])).await.is_empty());

    thin_all(&mut connection, day + TimeDelta::hours(20)).await;
    let after = (
        read(&mut connection, &hours, None).await,
        read(&mut connection, &hours, Some(&only)).await,
        read(&mut connection, &days, None).await,
    );
    assert_eq!(after, before);
    let coarse = read(&mut connection, &minutes, None).await;
    assert_eq!(sum(&coarse), sum(&fine));
    let widths: Vec<_> = coarse.iter().map(|point| point.width.num_minutes()).collect();
    assert_eq!(widths, [vec![60; 20], vec![5; 5 * 12]].concat());
    assert_eq!(coarse[20..], fine[20 * 12..]);
    // A range that begins within an hour that is kept as minutes.
    let within = Steps::of(day + TimeDelta::minutes(90), day + TimeDelta::minutes(100), TimeDelta::minutes(5)).unwrap();
    assert_eq!(read(&mut connection, &within, None).await, coarse[1..2]);
    connection.close().await.unwrap();
    world.finish([]).await;
}

#[tokio::test]
async fn old_minutes_are_found_by_index() {
    let world = filled_by_hand().await;
    let mut connection = connect(&world).await;
    let day = day(40);
    count_a_day(&world, day).await;
    world.execute("ANALYZE watchbook.outcome_minutes").await;
    let mut transaction = connection.begin().await.unwrap();
    let steps = Steps::of(day, day + TimeDelta::hours(2), TimeDelta::minutes(1)).unwrap();
    assert_eq!(outcomes::series(&mut transaction, Kind::Events, None, &steps).await.unwrap().len(), 120);
    assert!(thin_all(&mut transaction, day + TimeDelta::hours(1)).await > 0);
    let minutes = BTreeSet::from(["watchbook.outcome_minutes".to_owned()]);
    assert_eq!(tables_read(&mut transaction, "outcome_minutes").await, (minutes, BTreeSet::new()));
    transaction.commit().await.unwrap();
    connection.close().await.unwrap();
    world.finish([]).await;
}

// Samples that become hours.

/// Inserts samples of three containers, of two organizations and of none, over a whole day. Some values are missing,
/// one always, and some are as large as possible.
async fn sample_a_day(world: &World, connection: &mut PgConnection, day: DateTime<Utc>) -> Partition {
    let partition = Partition::of(Kind::Metrics, day).unwrap();
    Partitions::default().ensure(connection, partition).await.unwrap();
    sample_into(world, "watchbook.container_metrics", day, 0).await;
    partition
}

async fn sample_into(world: &World, table: &str, day: DateTime<Utc>, seed: i64) {
    world
        .execute(&format!(
            "INSERT INTO {table} (container_id, cpu_usage_percent, memory_usage_bytes, network_rx_bytes, id,
                                  organization_id, created_at, received_at, attributes)
             SELECT 'c-' || n % 3,
                    CASE n % 5 WHEN 0 THEN NULL WHEN 1 THEN n / 7.0::float8 WHEN 2 THEN 0.1 ELSE
                         CASE WHEN n < 300 THEN 1.7976931348623157e308::float8 ELSE n % 400 END END,
                    CASE WHEN n % 4 > 0 THEN 9223372036854775807 - n END, CASE WHEN n % 700 < 10 THEN n END,
                    gen_random_uuid(), (ARRAY['acme', 'globex', NULL])[1 + n / 3 % 3],
                    '{day}'::timestamptz + n * interval '37 s', now(), '{{}}'
               FROM generate_series({seed}, {seed} + 2300) AS n"
        ))
        .await;
}

/// The stored hours, and the hours computed from the samples of a table, in the same format.
const KEPT: &str = "SELECT coalesce(string_agg(concat_ws('|', container_id, hour, coalesce(organization_id, 'none'), samples,
        cpu_usage_percent_samples, coalesce(cpu_usage_percent_min::text, '-'), trim_scale(cpu_usage_percent_sum), coalesce(cpu_usage_percent_max::text, '-'),
        memory_usage_bytes_samples, coalesce(memory_usage_bytes_min::text, '-'), memory_usage_bytes_sum, coalesce(memory_usage_bytes_max::text, '-'),
        network_rx_bytes_samples, coalesce(network_rx_bytes_min::text, '-'), network_rx_bytes_sum, coalesce(network_rx_bytes_max::text, '-'),
        network_tx_bytes_samples, coalesce(network_tx_bytes_min::text, '-'), network_tx_bytes_sum, coalesce(network_tx_bytes_max::text, '-')),
        E'\\n' ORDER BY container_id, hour, organization_id), '') FROM watchbook.container_metric_hours";

fn sampled(tables: &[&str]) -> String {
    let column = |c: &str| {
        format!(
            "count({c}), coalesce(min({c})::text, '-'), trim_scale(coalesce(sum({c}::text::numeric), 0)), coalesce(max({c})::text, '-')"
        )
    };
    let columns = ["cpu_usage_percent", "memory_usage_bytes", "network_rx_bytes", "network_tx_bytes"].map(column);
    let samples = tables.iter().map(|table| format!("SELECT * FROM {table}")).collect::<Vec<_>>().join(" UNION ALL ");
    format!(
        "SELECT string_agg(line, E'\\n' ORDER BY container_id, hour, organization_id) FROM (
             SELECT container_id, date_trunc('hour', created_at, 'UTC') AS hour, organization_id,
                    concat_ws('|', container_id, date_trunc('hour', created_at, 'UTC'), coalesce(organization_id, 'none'), count(*), {}) AS line
               FROM ({samples}) AS samples GROUP BY container_id, date_trunc('hour', created_at, 'UTC'), organization_id) AS lines",
        columns.join(", ")
    )
}

async fn words(world: &World, sql: &str) -> String {
    world.query_one::<(String,)>(sql).await.0
}

/// Drops a day as retention does.
async fn drop_day(connection: &mut PgConnection, partition: Partition) {
    let name = partition.name();
    metric_hours::ensure_hour_partitions(connection, &Partitions::default(), &name).await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    sqlx::query(&format!("ALTER TABLE watchbook.container_metrics DETACH PARTITION {name}"))
        .execute(&mut *transaction)
        .await
        .unwrap();
    assert!(metric_hours::roll_up_hours(&mut transaction, &name, &[]).await.unwrap() > 0);
    sqlx::query(&format!("DROP TABLE {name}")).execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn hours_are_exactly_what_the_samples_were_and_more_can_be_added() {
    let world = filled_by_hand().await;
    let mut connection = connect(&world).await;
    let day = day(40);
    let name = sample_a_day(&world, &mut connection, day).await.name();
    let partitions = Partitions::default();
    metric_hours::ensure_hour_partitions(&mut connection, &partitions, &name).await.unwrap();
    let mut undone = connection.begin().await.unwrap();
    let hours = metric_hours::roll_up_hours(&mut undone, &name, &[]).await.unwrap();
    undone.rollback().await.unwrap();
    assert_eq!(words(&world, KEPT).await, "");
    assert_eq!(metric_hours::roll_up_hours(&mut connection, &name, &[]).await.unwrap(), hours);
    assert_eq!(hours, 24 * 3 * 3);
    let expected = words(&world, &sampled(&[&name])).await;
    assert!(expected.contains("none") && expected.contains("|0|-|0|-"), "{expected}");
    assert_eq!(words(&world, KEPT).await, expected);
    // The same day a second time: known hours, of every organization and of none, and values that were missing.
    world.execute("CREATE TABLE late (LIKE watchbook.container_metrics)").await;
    sample_into(&world, "late", day, 11).await;
    world.execute("UPDATE late SET network_tx_bytes = 5 WHERE container_id = 'c-1'").await;
    metric_hours::roll_up_hours(&mut connection, "late", &[]).await.unwrap();
    let rows = world.count("SELECT count(*) FROM watchbook.container_metric_hours").await;
    assert_eq!(u64::try_from(rows).unwrap(), hours);
    assert_eq!(words(&world, KEPT).await, words(&world, &sampled(&[&name, "late"])).await);
    // An empty table gives no hours.
    world.execute("TRUNCATE late").await;
    metric_hours::ensure_hour_partitions(&mut connection, &partitions, "late").await.unwrap();
    assert_eq!(metric_hours::roll_up_hours(&mut connection, "late", &[]).await.unwrap(), 0);
    connection.close().await.unwrap();
    world.finish([]).await;
}

async fn read(connection: &mut PgConnection, steps: &Steps, organizations: Option<&[String]>) -> Vec<Point> {
    metric_hours::series(connection, "c-1", organizations, steps).await.unwrap()
}

#[tokio::test]
async fn a_chart_over_both_levels_is_the_chart_of_all_samples() {
    let world = filled_by_hand().await;
    let mut connection = connect(&world).await;
    let (first, second) = (day(31), day(30));
    let old = sample_a_day(&world, &mut connection, first).await;
    sample_a_day(&world, &mut connection, second).await;
    let (acme, none) = (["acme".to_owned()], ["_".to_owned()]);
    let hours = Steps::of(first - TimeDelta::days(1), second + TimeDelta::days(1), TimeDelta::hours(1)).unwrap();
    let days = Steps::of(first, second + TimeDelta::days(1), TimeDelta::days(1)).unwrap();
    let minutes = Steps::of(first, second + TimeDelta::days(1), TimeDelta::minutes(10)).unwrap();
    let before = [
        read(&mut connection, &hours, None).await,
        read(&mut connection, &hours, Some(&acme)).await,
        read(&mut connection, &hours, Some(&none)).await,
        read(&mut connection, &days, None).await,
    ];
    assert_eq!([before[0].len(), before[1].len(), before[3].len()], [48, 48, 2]);
    assert!(read(&mut connection, &hours, Some(&[])).await.is_empty());
    is_what_was_measured(&world, &before[0]).await;
    let fine = read(&mut connection, &minutes, None).await;
    drop_day(&mut connection, old).await;
    let after = [
        read(&mut connection, &hours, None).await,
        read(&mut connection, &hours, Some(&acme)).await,
        read(&mut connection, &hours, Some(&none)).await,
        read(&mut connection, &days, None).await,
    ];
    assert_eq!(after, before);
    // Hours for the dropped day, and every sample of the other one.
    let coarse = read(&mut connection, &minutes, None).await;
    assert_eq!(coarse[..24], before[0][..24]);
    let fine_part = fine.iter().position(|point| point.at == second).unwrap();
    assert_eq!(coarse[24..], fine[fine_part..]);
    // Of a day that is dropped except for held samples, the rest is in hours, and the held samples are unchanged.
    let held =
        HeldRange { organization_id: Some("acme".to_owned()), from: None, until: Some(second + TimeDelta::hours(20)) };
    let name = Partition::of(Kind::Metrics, second).unwrap().name();
    metric_hours::ensure_hour_partitions(&mut connection, &Partitions::default(), &name).await.unwrap();
    metric_hours::roll_up_hours(&mut connection, &name, std::slice::from_ref(&held)).await.unwrap();
    let gone = format!(
        "DELETE FROM {name} WHERE organization_id IS DISTINCT FROM 'acme' OR created_at >= '{}'",
        second + TimeDelta::hours(20)
    );
    world.execute(&gone).await;
    assert!(world.count(&format!("SELECT count(*) FROM {name}")).await > 100);
    assert_eq!(read(&mut connection, &hours, None).await, before[0]);
    assert_eq!(read(&mut connection, &hours, Some(&acme)).await, before[1]);
    assert_eq!(read(&mut connection, &hours, Some(&none)).await, before[2]);
    // Once the hold is released, the rest follows.
    metric_hours::roll_up_hours(&mut connection, &name, &[]).await.unwrap();
    world.execute(&format!("DELETE FROM {name}")).await;
    assert_eq!(read(&mut connection, &hours, None).await, before[0]);
    connection.close().await.unwrap();
    world.finish([]).await;
}

/// Compares points computed from hours with what Postgres computes from the samples.
async fn is_what_was_measured(world: &World, points: &[Point]) {
    type Measured = (DateTime<Utc>, i64, Option<f64>, Option<f64>, Option<f64>, Option<i64>, Option<f64>, Option<i64>);
    let measured: Vec<Measured> = world
        .query_all(
            "SELECT date_trunc('hour', created_at, 'UTC'), count(*), min(cpu_usage_percent),
                    avg(cpu_usage_percent::text::numeric)::float8, max(cpu_usage_percent),
                    min(memory_usage_bytes), avg(memory_usage_bytes)::float8, max(memory_usage_bytes)
               FROM watchbook.container_metrics WHERE container_id = 'c-1' GROUP BY 1 ORDER BY 1",
        )
        .await;
    assert_eq!(points.len(), measured.len());
    let spread = |avg: f64, expected: f64| assert!((avg / expected - 1.0).abs() < 1e-14, "{avg} is not {expected}");
    for (point, expected) in points.iter().zip(measured) {
        let cpu = point.cpu_usage_percent.unwrap();
        let memory = point.memory_usage_bytes.unwrap();
        assert_eq!((point.at, i64::try_from(point.samples).unwrap()), (expected.0, expected.1));
        assert_eq!((Some(cpu.min), Some(cpu.max)), (expected.2, expected.4));
        assert_eq!((Some(memory.min), Some(memory.max)), (expected.5, expected.7));
        spread(cpu.avg, expected.3.unwrap());
        spread(memory.avg, expected.6.unwrap());
        assert_eq!(point.network_tx_bytes, None);
    }
    assert!(points.iter().any(|point| point.network_rx_bytes.is_none()));
    assert!(points.iter().any(|point| point.network_rx_bytes.is_some()));
}

#[tokio::test]
async fn no_value_that_a_record_may_have_stops_a_chart_or_a_clean_up() {
    let world = filled_by_hand().await;
    let mut connection = connect(&world).await;
    let day = day(31);
    let partition = Partition::of(Kind::Metrics, day).unwrap();
    Partitions::default().ensure(&mut connection, partition).await.unwrap();
    world
        .execute(&format!(
            "INSERT INTO watchbook.container_metrics (container_id, cpu_usage_percent, memory_usage_bytes, id, created_at, received_at, attributes)
             SELECT 'c-1', cpu, 9223372036854775807, gen_random_uuid(), '{day}'::timestamptz + hour * interval '1 hour', now(), '{{}}'
               FROM (VALUES (0, 5e-324::float8), (0, 0), (0, 0), (1, 1.7976931348623157e308), (1, 1.7976931348623157e308), (2, 1e-17), (2, 1e308))
                    AS samples (hour, cpu)"
        ))
        .await;
    let steps = Steps::of(day, day + TimeDelta::days(1), TimeDelta::hours(1)).unwrap();
    let before = read(&mut connection, &steps, None).await;
    let cpu: Vec<_> = before.iter().map(|point| point.cpu_usage_percent.unwrap()).collect();
    assert_eq!(
        cpu,
        [
            MinAvgMax { min: 0.0, avg: 0.0, max: 5e-324 },
            MinAvgMax { min: f64::MAX, avg: f64::MAX, max: f64::MAX },
            MinAvgMax { min: 1e-17, avg: 5e307, max: 1e308 }
        ]
    );
    assert_eq!(before[0].memory_usage_bytes.unwrap().avg, i64::MAX as f64);
    drop_day(&mut connection, partition).await;
    assert_eq!(read(&mut connection, &steps, None).await, before);
    connection.close().await.unwrap();
    world.finish([]).await;
}

#[tokio::test]
async fn a_chart_reads_by_index_and_only_the_days_and_months_that_it_shows() {
    let world = filled_by_hand().await;
    let mut connection = connect(&world).await;
    let partitions = Partitions::default();
    for ago in 0..40 {
        partitions.ensure(&mut connection, Partition::of(Kind::Metrics, day(ago)).unwrap()).await.unwrap();
    }
    for ago in 40..130 {
        partitions.ensure(&mut connection, Partition::of_metric_hours(day(ago))).await.unwrap();
    }
    world
        .execute(&format!(
            "INSERT INTO watchbook.container_metrics (container_id, cpu_usage_percent, id, created_at, received_at, attributes)
             SELECT 'c-' || c, c, gen_random_uuid(), time, time, '{{}}'
               FROM generate_series('{}'::timestamptz, '{}'::timestamptz - interval '1 s', interval '2 hours') AS time, generate_series(1, 200) AS c;
             INSERT INTO watchbook.container_metric_hours (container_id, hour, samples, cpu_usage_percent_samples, cpu_usage_percent_sum,
                         memory_usage_bytes_samples, memory_usage_bytes_sum, network_rx_bytes_samples, network_rx_bytes_sum,
                         network_tx_bytes_samples, network_tx_bytes_sum)
             SELECT 'c-' || c, hour, 1, 0, 0, 0, 0, 0, 0, 0, 0
               FROM generate_series('{}'::timestamptz, '{}'::timestamptz - interval '1 s', interval '6 hours') AS hour, generate_series(1, 200) AS c;
             ANALYZE watchbook.container_metrics; ANALYZE watchbook.container_metric_hours",
            day(39),
            day(-1),
            day(129),
            day(39),
        ))
        .await;
    let samples: Vec<_> = (0..40).map(day).map(|day| (day, Partition::of(Kind::Metrics, day).unwrap())).collect();
    let hours: Vec<_> = (40..130).map(|ago| Partition::of_metric_hours(day(ago))).collect();
    // Two days of samples, a week of hours, and a range that has both.
    for (first, last) in [(20, 18), (70, 63), (45, 35)] {
        let steps = Steps::of(day(first), day(last), TimeDelta::hours(1)).unwrap();
        let shown: Vec<_> = (last + 1..=first).map(day).collect();
        let days = samples.iter().filter(|(day, _)| shown.contains(day)).map(|(_, partition)| *partition);
        let months = shown.iter().map(|day| Partition::of_metric_hours(*day)).filter(|month| hours.contains(month));
        let expected: BTreeSet<_> = days.chain(months).map(|partition| partition.name()).collect();
        for mode in ["force_custom_plan", "force_generic_plan"] {
            let mut reader = connect(&world).await;
            let mut transaction = reader.begin().await.unwrap();
            sqlx::query(&format!("SET LOCAL plan_cache_mode = {mode}")).execute(&mut *transaction).await.unwrap();
            let points = metric_hours::series(&mut transaction, "c-7", None, &steps).await.unwrap();
            assert!(!points.is_empty());
            let (by_index, otherwise) = tables_read(&mut transaction, "container_metric%").await;
            assert_eq!((by_index, otherwise), (expected.clone(), BTreeSet::new()), "{mode}");
            transaction.rollback().await.unwrap();
            reader.close().await.unwrap();
        }
    }
    connection.close().await.unwrap();
    world.finish([]).await;
}

/// Returns the tables with this name prefix that this transaction has read: by an index, and sequentially. It must
/// begin with the transaction, or earlier reads of the session might count.
async fn tables_read(transaction: &mut PgConnection, name: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let read: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT schemaname || '.' || relname, idx_scan, seq_scan FROM pg_stat_xact_user_tables WHERE relname LIKE $1",
    )
    .bind(name)
    .fetch_all(transaction)
    .await
    .unwrap();
    let those = |is: fn(&(String, i64, i64)) -> bool| {
        read.iter().filter(|table| is(table)).map(|table| table.0.clone()).collect()
    };
    (those(|table| table.1 > 0), those(|table| table.2 > 0))
}
