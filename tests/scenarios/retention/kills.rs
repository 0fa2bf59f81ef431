//! A run may die at any step: held rows stay, no row is duplicated, and the next run has the same result as an
//! undisturbed one.

use ::retention::Settings;
use ::retention::holds::{NewHold, add};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use harness::{World, eventually};
use runtime::config::Retention;
use sqlx::Connection;
use store::{Dataset, partition_removal};

use super::fixtures::{
    bare_world, connect, dataset, day, everything, fill, midnight, run_until_nth, run_whole, settings, world_with,
};

pub(super) async fn hold(world: &World, organization: Option<&str>, kind: Option<&str>) {
    let mut connection = connect(world).await;
    let new = NewHold {
        organization_id: organization.map(str::to_owned),
        kind: kind.map(str::to_owned),
        starts_at: None,
        ends_at: None,
        expires_at: None,
        reason: "case 17".to_owned(),
        created_by: "ann".to_owned(),
    };
    add(&mut connection, new, Utc::now()).await.unwrap();
    connection.close().await.unwrap();
}

/// What must never be removed: days, and a condition on their rows.
type KeptDays<'k> = [(&'k str, NaiveDate, String)];

/// Returns the rows of days that have to stay, attached or detached, and checks that no row exists twice.
async fn keys(world: &World, kept: &KeptDays<'_>) -> Vec<String> {
    let mut connection = connect(world).await;
    let mut found = Vec::new();
    for (of, day, condition) in kept {
        let (dataset, mut tables) = (dataset(of), Vec::new());
        for listed in partition_removal::list(&mut connection, dataset).await.unwrap() {
            if listed.first_day() == *day {
                tables.push(listed.name.to_string());
            }
        }
        assert_eq!(tables.len(), 1, "{of} of {day}: {tables:?}");
        let time = dataset.time_column();
        let (rows, distinct, keys): (i64, i64, String) = world
            .query_one(&format!(
                "SELECT count(*), count(DISTINCT (id, {time})), coalesce(md5(string_agg(id::text, ',' ORDER BY id)), '') FROM {} WHERE {condition}",
                tables[0]
            ))
            .await;
        assert_eq!(rows, distinct, "{of} of {day}");
        found.push(format!("{of} {day}: {rows} {keys}"));
    }
    connection.close().await.unwrap();
    found
}

/// Returns the number of samples at both levels, attached or detached.
async fn samples(world: &World) -> i64 {
    let mut connection = connect(world).await;
    let mut all = world.count("SELECT coalesce(sum(samples), 0)::bigint FROM watchbook.container_metric_hours").await;
    for listed in partition_removal::list(&mut connection, Dataset::Records(records::Kind::Metrics)).await.unwrap() {
        all += world.count(&format!("SELECT count(*) FROM {}", listed.name)).await;
    }
    connection.close().await.unwrap();
    all
}

async fn count_of(world: &World, outcome: &str) -> i64 {
    world.count(&format!("SELECT count(*) FROM watchbook.retention_runs WHERE outcome = '{outcome}'")).await
}

/// Returns the audit events of runs with this outcome that are not published yet.
async fn audited_days(world: &World, outcome: &str) -> i64 {
    world
        .count(&format!(
            "SELECT count(*) FROM watchbook.own_records
              WHERE record->>'action' = 'retention.run' AND record->'metadata'->>'outcome' = '{outcome}'"
        ))
        .await
}

/// Kills a run at its first step, a run in another world at the second, and so on until one completes.
async fn at_every_step(
    fill: impl AsyncFn(&World),
    settings: impl Fn(&World) -> Settings,
    now: DateTime<Utc>,
    kept: &KeptDays<'_>,
    fewest_steps: usize,
) {
    let reference = bare_world().await;
    fill(&reference).await;
    run_whole(&reference, &settings(&reference), now).await;
    let end = everything(&reference).await;
    reference.finish([]).await;
    for n in 1.. {
        let world = bare_world().await;
        fill(&world).await;
        let (before, measured) = (keys(&world, kept).await, samples(&world).await);
        let settings = settings(&world);
        let ended = run_until_nth(&world, &settings, now, n).await;
        assert_eq!(keys(&world, kept).await, before, "killed at step {n}");
        assert_eq!(samples(&world).await, measured, "killed at step {n}");
        if ended.is_none() {
            assert_eq!((count_of(&world, "running").await, audited_days(&world, "interrupted").await), (1, 0));
            run_whole(&world, &settings, now).await;
            assert_eq!((count_of(&world, "interrupted").await, audited_days(&world, "interrupted").await), (1, 1));
        }
        assert_eq!((count_of(&world, "done").await, audited_days(&world, "done").await), (1, 1));
        assert_eq!(everything(&world).await, end, "killed at step {n}");
        assert_eq!((keys(&world, kept).await, samples(&world).await), (before, measured), "killed at step {n}");
        world.finish([]).await;
        if ended.is_some() {
            assert!(n > fewest_steps, "it came to its end after {n} steps");
            return;
        }
    }
}

/// Returns settings with an archive below the directory of the world.
pub(super) fn archived(world: &World) -> Settings {
    let folder = world.directory().join("archive").to_str().unwrap().to_owned();
    settings(|retention: &mut Retention| retention.archive = Some(folder))
}

#[tokio::test]
async fn a_run_that_drops_and_rewrites_days_may_be_killed_at_every_step() {
    let (old, hundred) = (day(40), day(100));
    let fill_all = async |world: &World| {
        fill(world, "events", old, 30).await;
        fill(world, "events", day(5), 30).await;
        fill(world, "errors", hundred, 12).await;
        fill(world, "dead_letters", hundred, 9).await;
        hold(world, Some("_"), Some("events")).await;
        hold(world, None, Some("errors")).await;
    };
    let kept = [
        ("events", old, "organization_id IS NULL".to_owned()),
        ("events", day(5), "true".to_owned()),
        ("errors", hundred, "true".to_owned()),
    ];
    at_every_step(fill_all, archived, Utc::now(), &kept, 11).await;
}

#[tokio::test]
async fn a_run_that_makes_hours_of_samples_may_be_killed_at_every_step() {
    let (one, other) = (day(41), day(40));
    let fill_all = async |world: &World| {
        fill(world, "metrics", one, 48).await;
        fill(world, "metrics", other, 48).await;
        hold(world, Some("acme"), Some("metrics")).await;
        // None of the first day's records is held.
        let of_acme = format!(
            "DELETE FROM watchbook.container_metrics WHERE organization_id = 'acme' AND created_at < '{other}'"
        );
        world.execute(&of_acme).await;
    };
    let kept = [("metrics", other, "organization_id = 'acme'".to_owned())];
    at_every_step(fill_all, archived, Utc::now(), &kept, 10).await;
}

#[tokio::test]
async fn a_run_that_cuts_a_day_to_the_second_may_be_killed_at_every_step() {
    let boundary = day(30);
    let cut = midnight(boundary) + TimeDelta::hours(12);
    let fill_all = async |world: &World| {
        fill(world, "events", day(40), 30).await;
        fill(world, "events", boundary, 3_600).await;
        fill(world, "metrics", boundary, 3_600).await;
        hold(world, Some("acme"), None).await;
    };
    let exact = |_: &World| {
        settings(|retention: &mut Retention| {
            retention.exact.events = true;
            retention.exact.metrics = true;
        })
    };
    let stays = format!("organization_id = 'acme' OR created_at >= '{cut}'");
    let kept = [
        ("events", day(40), "organization_id = 'acme'".to_owned()),
        ("events", boundary, stays.clone()),
        ("metrics", boundary, stays),
    ];
    at_every_step(fill_all, exact, cut + TimeDelta::days(30), &kept, 12).await;
}

#[tokio::test]
async fn a_process_that_is_killed_again_and_again_ends_as_one_that_never_was() {
    const DAYS: u64 = 6;
    let seed = std::env::var("WATCHBOOK_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("WATCHBOOK_TEST_SEED={seed} repeats this choice of moments");
    let mut chance = fastrand::Rng::with_seed(seed);
    let fill_all = async |world: &World| {
        for ago in 0..DAYS {
            fill(world, "events", day(40 + ago), 30).await;
            fill(world, "metrics", day(40 + ago), 48).await;
        }
        hold(world, Some("acme"), Some("events")).await;
        hold(world, Some("_"), Some("metrics")).await;
    };
    let kept: Vec<_> = (0..DAYS)
        .flat_map(|ago| {
            let day = day(40 + ago);
            [
                ("events", day, "organization_id = 'acme'".to_owned()),
                ("metrics", day, "organization_id IS NULL".to_owned()),
            ]
        })
        .collect();
    let reference = bare_world().await;
    fill_all(&reference).await;
    run_whole(&reference, &settings(|_| {}), Utc::now()).await;
    let end = everything(&reference).await;
    reference.finish([]).await;

    let world = world_with(&[]).await;
    fill_all(&world).await;
    let (before, measured) = (keys(&world, &kept).await, samples(&world).await);
    let archive = world.directory().join("archive").to_str().unwrap().to_owned();
    let with_archive = [("WATCHBOOK_RETENTION__ARCHIVE", archive.as_str())];
    let mut ended = Vec::new();
    loop {
        let mut run = world.spawn_command(&["retention", "run", "--json"], &with_archive);
        // At any point up to a few completed days, or while a day is being removed.
        let done = "SELECT count(*) FROM watchbook.retention_actions";
        let under_way = "SELECT (SELECT count(*) FROM pg_class WHERE relname LIKE '%_held')
             + (SELECT count(*) FROM pg_class AS class LEFT JOIN pg_inherits ON inhrelid = class.oid
                 WHERE relkind = 'r' AND relname ~ '_[0-9]{8}$' AND inhdetachpending IS NOT FALSE)";
        let (at_once, wait_for_days) = (chance.u8(..5) == 0, chance.bool());
        let until = world.count(done).await + chance.i64(0..3);
        let has_ended = eventually("enough is done to die", async || {
            if !run.output().is_empty() {
                return Ok(true);
            }
            let is_there =
                world.count("SELECT count(*) FROM watchbook.retention_runs WHERE outcome = 'running'").await > 0;
            let is_time = match wait_for_days {
                true => world.count(done).await > until,
                false => world.count(under_way).await > 0,
            };
            if at_once || is_there && is_time { Ok(false) } else { Err(run.log()) }
        })
        .await;
        if has_ended {
            assert!(run.ended().await.success(), "{}{}", run.output(), run.log());
            ended.push(run);
            break;
        }
        run.kill().await;
        ended.push(run);
        assert_eq!(samples(&world).await, measured);
        assert_eq!(keys(&world, &kept).await, before);
    }
    assert_eq!(everything(&world).await, end);
    assert_eq!((keys(&world, &kept).await, samples(&world).await), (before, measured));
    // A process may also be killed after its run is done and before it says so: the next run then finds nothing to do.
    let (running, done) = (count_of(&world, "running").await, count_of(&world, "done").await);
    assert!(running == 0 && (1..=2).contains(&done), "{running} runs are open, {done} are done");
    let worker = world.workers("audit").await;
    let runs = usize::try_from(world.count("SELECT count(*) FROM watchbook.retention_runs").await).unwrap();
    super::fixtures::audited(&world, "retention.run", runs).await;
    world.finish(ended.into_iter().chain([worker])).await;
}
