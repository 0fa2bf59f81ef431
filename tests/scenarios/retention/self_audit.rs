//! The internal records of retention, and their actors.

use harness::eventually;

use super::fixtures::{audited, day, fill, hold, world_with};

#[tokio::test]
async fn a_record_that_is_refused_holds_up_none_behind_it() {
    let world = world_with(&[]).await;
    fill(&world, "events", day(40), 10).await;
    world
        .execute(
            "INSERT INTO watchbook.own_records (id, kind, organization_id, record, created_at) VALUES
                 (gen_random_uuid(), 'audit', NULL, '{\"action\": 7}', now() - interval '1 hour'),
                 (gen_random_uuid(), 'audit', 'a b', '{}', now() - interval '1 hour'),
                 (gen_random_uuid(), 'of_tomorrow', NULL, '{}', now() - interval '1 hour')",
        )
        .await;
    // By a command, which publishes them itself, and by the worker.
    let first = hold(&world, &["--org", "acme"]).await;
    let worker = world.workers("audit").await;
    assert_eq!(audited(&world, "retention.hold", 1).await[0].1, first);
    let retention = world.workers("retention").await;
    audited(&world, "retention.run", 1).await;
    retention.logged("an internal record was rejected").await;
    eventually("the others are out", async || {
        let left = world.count("SELECT count(*) FROM watchbook.own_records").await;
        if left == 3 { Ok(()) } else { Err(left.to_string()) }
    })
    .await;
    world.execute("DELETE FROM watchbook.own_records").await;
    world.finish([worker, retention]).await;
}

#[tokio::test]
async fn nobody_acts_without_a_name_or_in_the_name_of_nobody() {
    let world = world_with(&[]).await;
    let some_id = "00000000-0000-0000-0000-000000000000";
    for command in [
        &["retention", "run"][..],
        &["retention", "hold", "--reason", "case 17"],
        &["retention", "release", some_id],
        &["retention", "restore", "events", "2020-01-01"],
        &["erase", "user", "u-1"],
    ] {
        for (name, words) in [("", "a name of 1 to 256 bytes"), ("system", "`system` is reserved")] {
            world.run(&[command, &["--by", name]].concat()).await.ended_with(2).prints(words);
        }
    }
    assert_eq!(world.count("SELECT (SELECT count(*) FROM watchbook.holds) + (SELECT count(*) FROM watchbook.retention_runs) + (SELECT count(*) FROM watchbook.erasures)").await, 0);
    world.finish([]).await;
}
