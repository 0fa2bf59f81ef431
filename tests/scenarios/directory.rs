//! The directory: the newest snapshot of an entity is kept, in whatever order snapshots arrive.

use chrono::TimeDelta;
use harness::World;
use harness::messages::{base_time, id, record, time};
use records::Kind;
use serde_json::{Value, json};

use crate::world;

/// Snapshot `age` of an entity: higher is newer.
fn snapshot(entity: &str, age: u64) -> Value {
    let mut body = record(Kind::Directory, age);
    body["entity_id"] = entity.into();
    body["name"] = format!("name {age}").into();
    body["created_at"] = time(base_time() + TimeDelta::seconds(age as i64)).into();
    body
}

async fn names(world: &World) -> Vec<(String, String)> {
    world.query_all("SELECT entity_id, name FROM watchbook.entities ORDER BY entity_id").await
}

/// All orders of four snapshots.
fn orders() -> Vec<[u64; 4]> {
    let mut orders = Vec::new();
    for a in 0..4 {
        for b in 0..4 {
            for c in 0..4 {
                for d in 0..4 {
                    let order = [a, b, c, d];
                    if (0..4).all(|age| order.contains(&age)) {
                        orders.push(order);
                    }
                }
            }
        }
    }
    orders
}

#[tokio::test]
async fn the_newest_wins_in_every_order_within_a_batch() {
    let world = world().start().await;
    let orders = orders();
    assert_eq!(orders.len(), 24);
    let bodies = orders.iter().flat_map(|order| {
        let entity = format!("user-{order:?}");
        order.map(|age| {
            // Each entity has its own records.
            let mut body = snapshot(&entity, age);
            body["id"] = format!("{entity} {age}").into();
            body
        })
    });
    world.publish_all(Kind::Directory, bodies).await;
    let worker = world.workers("directory").await;
    let account = world.settled(Kind::Directory).await;
    assert_eq!(account.stored + account.duplicates, 96, "{account:?}");
    let names = names(&world).await;
    assert_eq!(names.len(), 24);
    assert!(names.iter().all(|(_, name)| name == "name 3"), "{names:?}");
    world.finish([worker]).await;
}

#[tokio::test]
async fn the_newest_wins_in_every_order_between_batches() {
    let world = world().start().await;
    let worker = world.workers("directory").await;
    let mut stored = 0;
    for (turn, order) in orders().into_iter().step_by(5).enumerate() {
        let entity = format!("user-{turn}");
        let mut newest = None;
        for age in order {
            let mut body = snapshot(&entity, age);
            body["id"] = format!("{entity} {age}").into();
            world.publish(Kind::Directory, &body).await;
            world.settled(Kind::Directory).await;
            if newest < Some(age) {
                newest = Some(age);
                stored += 1;
            }
            let name = format!("name {}", newest.unwrap());
            assert_eq!(names(&world).await.last().unwrap(), &(entity.clone(), name), "{order:?}");
        }
    }
    let account = world.account(Kind::Directory).await;
    assert_eq!((account.stored, account.duplicates), (stored, 20 - stored), "an older snapshot is a duplicate");
    world.finish([worker]).await;
}

#[tokio::test]
async fn an_entity_is_one_per_organization_and_one_without() {
    let world = world().start().await;
    let worker = world.workers("directory").await;
    for (turn, organization) in ["acme", "globex", "_", "acme", "_"].into_iter().enumerate() {
        let subject = world.subject(Kind::Directory, organization);
        let body = snapshot("user-1", turn as u64).to_string();
        world.try_publish_bytes(&subject, Default::default(), body).await.unwrap();
    }
    world.settled(Kind::Directory).await;
    let found: Vec<(Option<String>, String)> =
        world.query_all("SELECT organization_id, name FROM watchbook.entities ORDER BY 1 NULLS LAST").await;
    let name = |organization: Option<&str>, age| (organization.map(str::to_owned), format!("name {age}"));
    assert_eq!(found, [name(Some("acme"), 3), name(Some("globex"), 1), name(None, 4)]);
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_deletion_is_a_snapshot_like_any_other() {
    let world = world().start().await;
    let worker = world.workers("directory").await;
    let mut deletion = snapshot("user-1", 5);
    deletion["deleted"] = json!(true);
    deletion["id"] = id(99).to_string().into();
    world.publish_all(Kind::Directory, [snapshot("user-1", 4), deletion, snapshot("user-1", 3)]).await;
    let account = world.settled(Kind::Directory).await;
    assert_eq!(account.stored + account.duplicates, 3, "{account:?}");
    assert_eq!(world.query_one::<(bool,)>("SELECT deleted FROM watchbook.entities").await, (true,));
    world.finish([worker]).await;
}
