//! Kinds with exact retention: of the day that contains the limit, the expired part is deleted.

use sqlx::Connection;
use store::log_volumes;

use super::fixtures::{
    connect, content, content_where, day, fill, hold, item, outline, plan_of, release, run_of, world_with,
};

/// One row every 20 seconds of a day.
const ROWS: u32 = 4_320;

/// Lines and bytes of each container, according to the volumes and to the rows.
const VOLUMES: &str = "SELECT coalesce(string_agg(line, '; ' ORDER BY line), '') FROM (
    SELECT concat_ws(' ', coalesce(organization_id, '-'), container_id, sum(lines), sum(bytes)) AS line
      FROM watchbook.log_volume_groups GROUP BY organization_id, container_id) AS lines";
const STORED: &str = "SELECT coalesce(string_agg(line, '; ' ORDER BY line), '') FROM (
    SELECT concat_ws(' ', coalesce(organization_id, '-'), container_id, count(*), sum(octet_length(message))) AS line
      FROM watchbook.container_logs GROUP BY organization_id, container_id) AS lines";

#[tokio::test]
async fn the_expired_part_of_a_day_goes_but_for_what_is_held() {
    let world = world_with(&[
        ("WATCHBOOK_RETENTION__EXACT__EVENTS", "true"),
        ("WATCHBOOK_RETENTION__EXACT__METRICS", "true"),
        ("WATCHBOOK_RETENTION__EXACT__LOGS", "true"),
    ])
    .await;
    // If a run begins in the last minute of a day, all rows of one day are expired and none of the next.
    let (boundary, next) = (day(30), day(29));
    for kind in ["events", "metrics", "logs"] {
        fill(&world, kind, boundary, ROWS).await;
        fill(&world, kind, next, 10).await;
    }
    // A kind without exact retention.
    fill(&world, "executions", day(90), 10).await;
    let mut connection = connect(&world).await;
    for day in [boundary, next] {
        log_volumes::recount_day(&mut connection, records::Kind::Logs, "watchbook.container_logs", day).await.unwrap();
    }
    connection.close().await.unwrap();
    let acme = hold(&world, &["--org", "acme"]).await;

    let plan = plan_of(&world).await;
    let file = world.directory().join("plan.json");
    std::fs::write(&file, plan.to_string()).unwrap();
    let mut expected = Vec::new();
    for kind in ["events", "metrics", "logs"] {
        let item = item(&plan, kind, boundary);
        let before = item["before"].as_str().unwrap();
        let goes = format!("created_at < '{before}' AND organization_id IS DISTINCT FROM 'acme'");
        let kept = format!("created_at < '{before}' AND organization_id = 'acme'");
        let rows = |rows: i64| u64::try_from(rows).unwrap();
        assert_eq!(item["rows"].as_u64(), Some(rows(content_where(&world, kind, boundary, &goes).await.0)), "{kind}");
        assert_eq!(
            item["kept_rows"].as_u64(),
            Some(rows(content_where(&world, kind, boundary, &kept).await.0)),
            "{kind}"
        );
        assert_eq!(item["action"], "delete", "{kind}");
        let stays = content_where(&world, kind, boundary, &format!("NOT ({goes})")).await;
        expected.push((kind, item["rows"].as_i64().unwrap(), stays, content(&world, kind, next).await));
    }
    assert_eq!(plan.as_array().unwrap().len(), 3, "{plan}");
    let (before_run,): (String,) = world.query_one(VOLUMES).await;
    assert_eq!(before_run, world.query_one::<(String,)>(STORED).await.0);

    let run = world.run(&["retention", "run", "--json", "--plan", file.to_str().unwrap()]).await;
    assert_eq!(outline(&run.succeeded().json()["items"]), outline(&plan));
    for (kind, gone, stays, young) in &expected {
        assert_eq!(
            (&content(&world, kind, boundary).await, &content(&world, kind, next).await),
            (stays, young),
            "{kind}"
        );
        let counted = format!("SELECT rows FROM watchbook.retention_actions WHERE kind = '{kind}'");
        assert_eq!(world.count(&counted).await, *gone, "{kind}");
    }
    assert_eq!(content(&world, "executions", day(90)).await.0, 10);
    let hours = world.count("SELECT sum(samples)::bigint FROM watchbook.container_metric_hours").await;
    assert_eq!(hours, expected[1].1);
    assert_eq!(world.query_one::<(String,)>(VOLUMES).await, world.query_one::<(String,)>(STORED).await);

    release(&world, &acme).await;
    let report = run_of(&world).await;
    assert_eq!(report["items"].as_array().unwrap().len(), 3, "{report}");
    for kind in ["events", "metrics", "logs"] {
        let before = item(&report["items"], kind, boundary)["before"].as_str().unwrap();
        assert_eq!(content_where(&world, kind, boundary, &format!("created_at < '{before}'")).await.0, 0, "{kind}");
    }
    let samples = world.count("SELECT count(*) FROM watchbook.container_metrics").await;
    let hours = world.count("SELECT sum(samples)::bigint FROM watchbook.container_metric_hours").await;
    assert_eq!(hours + samples, i64::from(ROWS) + 10);
    assert_eq!(world.query_one::<(String,)>(VOLUMES).await, world.query_one::<(String,)>(STORED).await);
    let worker = world.workers("audit").await;
    super::fixtures::audited(&world, "retention.run", 2).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn an_archive_and_an_exact_kind_are_one_too_many() {
    let world = world_with(&[]).await;
    let both = [("WATCHBOOK_RETENTION__EXACT__EVENTS", "true"), ("WATCHBOOK_RETENTION__ARCHIVE", "archive")];
    world.run_with(&["retention", "plan"], &both, "").await.ended_with(1).prints("retention.exact");
    world.finish([]).await;
}
