//! Crashes, outages and late notifiers.

use std::time::Duration;

use harness::{BOUND, World, eventually};
use notifier::Settings;
use store::Database;
use store::outbox::{self, Bounds, ClaimUpdate};

use crate::deliveries::{Running, finished, ids, named, put};
use crate::stub::{Answer, Stub};

const LEASE: Duration = Duration::from_secs(2);

async fn single_request(stub: &Stub) {
    eventually("the receiver was asked", async || match stub.requests().len() {
        0 => Err("nothing came".to_owned()),
        _ => Ok(()),
    })
    .await;
}

#[tokio::test]
async fn a_crash_between_delivery_and_mark_delivers_again_under_the_same_id() {
    let world = World::builder("no binary").without_setup().start().await;
    // The first request arrives but is never answered.
    let stub = Stub::start(|before, _| if before == 0 { Answer::Never } else { Answer::status(200) }).await;
    let (first, second) = (put(&world, "ops", "a", 0).await, put(&world, "ops", "a", 0).await);
    let settings = Settings { lease: LEASE, ..Settings::default() };
    let receivers = || vec![named("ops", &stub.url())];
    let crashing = Running::with(&world, "one", receivers(), world.database_url(), settings.clone()).await;
    single_request(&stub).await;
    crashing.task.abort();
    let other = Running::with(&world, "two", receivers(), world.database_url(), settings).await;
    finished(&world).await;
    assert_eq!(ids(&stub.requests()), [first, first, second]);
    other.stop().await;
    world.finish([]).await;
}

#[tokio::test]
async fn a_stop_breaks_off_what_hangs_and_gives_its_claim_back() {
    let world = World::builder("no binary").without_setup().start().await;
    let stub = Stub::always(Answer::Never).await;
    let id = put(&world, "ops", "a", 0).await;
    let settings = Settings { request_timeout: Duration::from_secs(3_600), ..Settings::default() };
    let running = Running::with(&world, "one", vec![named("ops", &stub.url())], world.database_url(), settings).await;
    single_request(&stub).await;
    running.stop().await;
    let free = format!("SELECT count(*) FROM watchbook.outbox WHERE id = '{id}' AND claimed_until IS NULL");
    assert_eq!(world.count(&free).await, 1);
    world.finish([]).await;
}

#[tokio::test]
async fn an_outage_of_postgres_is_waited_out() {
    let world = World::builder("no binary").without_setup().proxies().start().await;
    let stub = Stub::always(Answer::status(200)).await;
    let (direct, link) = (world.database_url().to_owned(), world.postgres_link());
    let port = direct.split(':').nth(3).and_then(|rest| rest.split('/').next()).expect("a port").to_owned();
    let url = direct.replace(&format!(":{port}"), &format!(":{}", link.port()));
    let receivers = vec![named("ops", &stub.url())];
    let running = Running::with(&world, "one", receivers, &url, Settings::default()).await;
    let before = put(&world, "ops", "a", 0).await;
    finished(&world).await;
    link.cut();
    eventually("the outage of Postgres is reported", async || {
        let report = running.health.report();
        if report.ready { Err("ready".to_owned()) } else { Ok(()) }
    })
    .await;
    let during = put(&world, "ops", "a", 0).await;
    link.restore();
    finished(&world).await;
    assert_eq!(ids(&stub.requests()), [before, during]);
    eventually("the notifier is ready again", async || {
        let report = running.health.report();
        if report.ready { Ok(()) } else { Err(format!("{report:?}")) }
    })
    .await;
    running.stop().await;
    world.finish([]).await;
}

#[tokio::test]
async fn a_late_notifier_writes_nothing() {
    let world = World::builder("no binary").without_setup().start().await;
    let id = put(&world, "ops", "a", 0).await;
    let behind = put(&world, "ops", "a", 0).await;
    let mut connection = Database::new(world.database_url(), "tests").unwrap().connect("tests").await.unwrap();
    let bounds = |lease| Bounds { rows: 10, per_receiver: 10, under_way: &[], lease };
    let over = Duration::ZERO;
    let late = outbox::claim(&mut connection, "one", bounds(over)).await.unwrap();
    assert_eq!(late.iter().map(|claim| claim.id).collect::<Vec<_>>(), [id]);
    let mine = outbox::claim(&mut connection, "two", bounds(LEASE * 100)).await.unwrap();
    assert_eq!((mine[0].id, mine[0].attempts), (id, 2));
    assert!(
        outbox::claim(&mut connection, "three", bounds(LEASE)).await.unwrap().is_empty(),
        "the row is already claimed"
    );
    let day = Duration::from_secs(86_400);
    for claimant in ["one", "two"] {
        let (late, no) = (&late[0], ClaimUpdate::NotOurs);
        assert_eq!(outbox::delivered(&mut connection, claimant, late).await.unwrap(), no);
        assert_eq!(outbox::give_up(&mut connection, claimant, late, "x").await.unwrap(), no);
        assert_eq!(outbox::retry_at(&mut connection, claimant, late, day, day, "x").await.unwrap(), no);
    }
    assert_eq!(outbox::release(&mut connection, "one").await.unwrap(), 0);
    assert_eq!(outbox::delivered(&mut connection, "two", &mine[0]).await.unwrap(), ClaimUpdate::Done);
    assert_eq!(outbox::delivered(&mut connection, "two", &mine[0]).await.unwrap(), ClaimUpdate::NotOurs);
    let next = outbox::claim(&mut connection, "two", bounds(LEASE)).await.unwrap();
    assert_eq!(next[0].id, behind);
    drop(connection);
    world.finish([]).await;
}

#[tokio::test]
async fn a_slow_receiver_does_not_take_all_there_is() {
    let world = World::builder("no binary").without_setup().start().await;
    for n in 0..40 {
        put(&world, "slow", &format!("group-{n}"), 0).await;
    }
    let fast = put(&world, "fast", "a", 0).await;
    let mut connection = Database::new(world.database_url(), "tests").unwrap().connect("tests").await.unwrap();
    let under_way = vec!["slow".to_owned(); 5];
    let bounds = Bounds { rows: 4, per_receiver: 8, under_way: &under_way, lease: LEASE * 100 };
    let claims = outbox::claim(&mut connection, "one", bounds).await.unwrap();
    assert_eq!(
        claims.len(),
        4,
        "three for the slow receiver, which already has five under way, and one for the fast one"
    );
    assert!(claims.iter().any(|claim| claim.id == fast));
    drop(connection);
    world.finish([]).await;
}

#[tokio::test]
async fn a_storm_is_claimed_from_before_the_planner_knows_of_it() {
    let world = World::builder("no binary").without_setup().start().await;
    // Without statistics the planner chose a join with which one claim took minutes.
    world
        .execute(
            "INSERT INTO watchbook.outbox (id, receiver, group_key, notification, created_at, due_at, delivered_at)
             SELECT gen_random_uuid(), 'r' || n % 5, 'g' || n % 3000, '{}', now(), now(), CASE WHEN n > 20000 THEN now() END
               FROM generate_series(1, 100000) AS n",
        )
        .await;
    let mut connection = Database::new(world.database_url(), "tests").unwrap().connect("tests").await.unwrap();
    let bounds = Bounds { rows: 32, per_receiver: 8, under_way: &[], lease: LEASE * 100 };
    let claiming = outbox::claim(&mut connection, "one", bounds);
    let claims = tokio::time::timeout(BOUND, claiming).await.expect("the claim ends").unwrap();
    assert_eq!(claims.len(), 32);
    drop(connection);
    world.finish([]).await;
}
