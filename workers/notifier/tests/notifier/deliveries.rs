//! Deliveries from a real outbox: order, retries and final outcomes.

use std::sync::Arc;
use std::time::Duration;

use alerting::notification::{Notification, Status};
use alerting::receiver::Receiver;
use harness::{BOUND, World, eventually};
use notifier::{Notifier, Settings};
use runtime::Health;
use store::Database;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::nats::bus;
use crate::stub::{Answer, ReceivedRequest, Stub};
use crate::table::{alert, notification, webhook};

/// A running notifier.
pub(crate) struct Running {
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<()>,
    pub(crate) health: Health,
    receivers: watch::Sender<Arc<Vec<Receiver>>>,
    bus: bus::Bus,
}

impl Running {
    pub(crate) async fn start(world: &World, name: &str, receivers: Vec<Receiver>) -> Self {
        Self::with(world, name, receivers, world.database_url(), Settings::default()).await
    }

    pub(crate) async fn with(
        world: &World,
        name: &str,
        receivers: Vec<Receiver>,
        database_url: &str,
        settings: Settings,
    ) -> Self {
        let (bus, stop, health) = (bus(world).await, CancellationToken::new(), Health::default());
        let (sender, receiver) = watch::channel(Arc::new(receivers));
        let notifier = Notifier {
            name: name.to_owned(),
            database: Database::new(database_url, name).unwrap(),
            bus: bus.clone(),
            receivers: receiver,
            settings,
            health: health.part("notifier"),
        };
        let task = tokio::spawn(notifier.run(stop.clone()));
        Self { stop, task, health, receivers: sender, bus }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(BOUND, self.task).await.expect("it stops").unwrap();
        self.bus.close().await;
    }
}

/// Inserts a notification into the outbox that was created `seconds_ago`.
pub(crate) async fn put(world: &World, receiver: &str, group: &str, seconds_ago: u32) -> Uuid {
    let id = Uuid::now_v7();
    let told = Notification {
        receiver: receiver.to_owned(),
        group_key: group.to_owned(),
        ..notification(vec![alert(Status::Firing, group)])
    };
    let told = serde_json::to_string(&told).unwrap();
    world
        .execute(&format!(
            "INSERT INTO watchbook.outbox (id, receiver, group_key, notification, created_at, due_at)
             VALUES ('{id}', '{receiver}', '{group}', $json${told}$json$, now() - interval '{seconds_ago} s', now())"
        ))
        .await;
    id
}

/// Waits until every row is either delivered or failed.
pub(crate) async fn finished(world: &World) {
    eventually("the outbox is empty", async || {
        let (open, problem): (i64, Option<String>) = world
            .try_query_one(
                "SELECT count(*), max(problem) FROM watchbook.outbox WHERE delivered_at IS NULL AND failed_at IS NULL",
            )
            .await?;
        if open == 0 { Ok(()) } else { Err(format!("{open} rows are pending: {problem:?}")) }
    })
    .await;
}

pub(crate) fn named(name: &str, url: &str) -> Receiver {
    Receiver { name: name.to_owned(), ..webhook(url, None) }
}

pub(crate) fn ids(requests: &[ReceivedRequest]) -> Vec<Uuid> {
    requests.iter().map(|requests| requests.header("webhook-id").parse().unwrap()).collect()
}

#[derive(Debug, PartialEq)]
struct Row {
    delivered: bool,
    failed: bool,
    attempts: i32,
    problem: Option<String>,
}

async fn row(world: &World, id: Uuid) -> Row {
    let (delivered, failed, attempts, problem): (bool, bool, i32, Option<String>) = world
        .query_one(&format!(
            "SELECT delivered_at IS NOT NULL, failed_at IS NOT NULL, attempts, problem
               FROM watchbook.outbox WHERE id = '{id}'"
        ))
        .await;
    Row { delivered, failed, attempts, problem }
}

#[tokio::test]
async fn nothing_overtakes_within_a_group_and_everything_between_groups() {
    let world = World::builder("no binary").without_setup().start().await;
    // The first request fails, all others succeed.
    let stub = Stub::start(|before, _| Answer::status(if before == 0 { 503 } else { 200 })).await;
    let first = put(&world, "ops", "a", 0).await;
    let second = put(&world, "ops", "a", 0).await;
    let running = Running::start(&world, "one", vec![named("ops", &stub.url())]).await;
    eventually("the first failed", async || match row(&world, first).await {
        Row { problem: Some(problem), .. } if problem.contains("503") => Ok(()),
        row => Err(format!("{row:?}")),
    })
    .await;
    let other = put(&world, "ops", "b", 0).await;
    finished(&world).await;
    let requests = ids(&stub.requests());
    let of_a: Vec<_> = requests.iter().copied().filter(|id| *id != other).collect();
    assert_eq!(of_a, [first, first, second]);
    assert!(requests.contains(&other));
    assert_eq!(row(&world, first).await, Row { delivered: true, failed: false, attempts: 2, problem: None });
    running.stop().await;
    world.finish([]).await;
}

#[tokio::test]
async fn a_digest_is_ordered_with_all_of_its_receiver() {
    let world = World::builder("no binary").without_setup().start().await;
    let stub = Stub::start(|before, _| Answer::status(if before == 0 { 503 } else { 200 })).await;
    let before = put(&world, "ops", "a", 0).await;
    let digest = put(&world, "ops", "*", 0).await;
    let after = put(&world, "ops", "b", 0).await;
    let elsewhere = put(&world, "others", "*", 0).await;
    let others = Stub::always(Answer::status(200)).await;
    let receivers = vec![named("ops", &stub.url()), named("others", &others.url())];
    let running = Running::start(&world, "one", receivers).await;
    finished(&world).await;
    assert_eq!(ids(&stub.requests()), [before, before, digest, after]);
    assert_eq!(ids(&others.requests()), [elsewhere]);
    running.stop().await;
    world.finish([]).await;
}

#[tokio::test]
async fn two_notifiers_deliver_each_once_and_in_order() {
    let world = World::builder("no binary").without_setup().start().await;
    let stub = Stub::always(Answer::status(200)).await;
    let mut expected = Vec::new();
    for n in 0..100 {
        let group = format!("group-{}", n % 7);
        expected.push((group.clone(), put(&world, "ops", &group, 0).await));
    }
    let receivers = || vec![named("ops", &stub.url())];
    let (one, two) =
        tokio::join!(Running::start(&world, "one", receivers()), Running::start(&world, "two", receivers()),);
    finished(&world).await;
    let requests = ids(&stub.requests());
    assert_eq!(requests.len(), expected.len(), "each notification is delivered once");
    for group in 0..7 {
        let group = format!("group-{group}");
        let wanted: Vec<_> = expected.iter().filter(|(of, _)| *of == group).map(|(_, id)| *id).collect();
        let came: Vec<_> = requests.iter().copied().filter(|id| wanted.contains(id)).collect();
        assert_eq!(came, wanted, "{group}");
    }
    one.stop().await;
    two.stop().await;
    world.finish([]).await;
}

#[tokio::test]
async fn what_asks_for_time_gets_it() {
    let world = World::builder("no binary").without_setup().start().await;
    let answer = Answer::Status(429, vec![("retry-after", "1800".to_owned())], String::new());
    let stub = Stub::always(answer).await;
    let id = put(&world, "ops", "a", 0).await;
    let running = Running::start(&world, "one", vec![named("ops", &stub.url())]).await;
    eventually("it is postponed by half an hour", async || {
        let (postponed, free): (bool, bool) = world
            .try_query_one(&format!(
                "SELECT due_at > now() + interval '25 min' AND due_at <= now() + interval '30 min', claimed_by IS NULL
                   FROM watchbook.outbox WHERE id = '{id}'"
            ))
            .await?;
        if postponed && free { Ok(()) } else { Err(format!("{:?}", row(&world, id).await)) }
    })
    .await;
    assert_eq!(stub.requests().len(), 1);
    running.stop().await;
    world.finish([]).await;
}

#[tokio::test]
async fn what_is_refused_or_too_old_is_given_up_and_the_next_goes_on() {
    let world = World::builder("no binary").without_setup().start().await;
    let day = 24 * 60 * 60;
    let (old, after_old) = (put(&world, "down", "a", day + 1).await, put(&world, "down", "a", 60).await);
    let (refused, after_refused) = (put(&world, "ops", "a", 0).await, put(&world, "ops", "a", 0).await);
    let refusing = Stub::start(|before, _| Answer::status(if before == 0 { 400 } else { 200 })).await;
    let down = Stub::start(|before, _| Answer::status(if before == 0 { 503 } else { 200 })).await;
    let receivers = vec![named("ops", &refusing.url()), named("down", &down.url())];
    let running = Running::start(&world, "one", receivers).await;
    finished(&world).await;
    for (id, says) in [(old, "503"), (refused, "400")] {
        let row = row(&world, id).await;
        assert!(row.failed && !row.delivered && row.attempts == 1, "{row:?}");
        assert!(row.problem.unwrap().contains(says));
    }
    for id in [after_old, after_refused] {
        assert!(row(&world, id).await.delivered);
    }
    running.stop().await;
    let mut connection = Database::new(world.database_url(), "tests").unwrap().connect("tests").await.unwrap();
    let summary = store::outbox::summary(&mut connection).await.unwrap();
    let of: Vec<_> = summary.iter().map(|row| (row.receiver.as_str(), row.pending, row.failed)).collect();
    assert_eq!(of, [("down", 0, 1), ("ops", 0, 1)]);
    assert_eq!(summary[0].oldest_pending_seconds, None);
    // Rows within the retention stay; older ones are deleted in batches.
    let month = Duration::from_secs(30 * 86_400);
    assert_eq!(store::outbox::remove_old(&mut connection, month, month, 10).await.unwrap(), 0);
    world.execute("UPDATE watchbook.outbox SET created_at = created_at - interval '60 d', delivered_at = delivered_at - interval '60 d'").await;
    assert_eq!(store::outbox::remove_old(&mut connection, month, month, 1).await.unwrap(), 1);
    assert_eq!(store::outbox::remove_old(&mut connection, month, month, 10).await.unwrap(), 1);
    assert_eq!(world.count("SELECT count(*) FROM watchbook.outbox WHERE failed_at IS NOT NULL").await, 2);
    drop(connection);
    world.finish([]).await;
}

#[tokio::test]
async fn whom_the_configuration_does_not_know_waits_for_it() {
    let world = World::builder("no binary").without_setup().start().await;
    let stub = Stub::always(Answer::status(200)).await;
    let id = put(&world, "ops", "a", 0).await;
    let running = Running::start(&world, "one", vec![]).await;
    eventually("the missing receiver is reported", async || match row(&world, id).await.problem {
        Some(problem) if problem == "the configuration has no receiver named ops" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    running.receivers.send_replace(Arc::new(vec![named("ops", &stub.url())]));
    finished(&world).await;
    assert_eq!(ids(&stub.requests()), [id]);
    running.stop().await;
    world.finish([]).await;
}

#[tokio::test]
async fn what_is_no_notification_does_not_block_its_group() {
    let world = World::builder("no binary").without_setup().start().await;
    let stub = Stub::always(Answer::status(200)).await;
    let broken = put(&world, "ops", "a", 0).await;
    world.execute(&format!("UPDATE watchbook.outbox SET notification = '[]' WHERE id = '{broken}'")).await;
    let next = put(&world, "ops", "a", 0).await;
    let running = Running::start(&world, "one", vec![named("ops", &stub.url())]).await;
    finished(&world).await;
    assert!(row(&world, broken).await.failed);
    assert_eq!(ids(&stub.requests()), [next]);
    running.stop().await;
    world.finish([]).await;
}
