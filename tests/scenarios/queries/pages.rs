//! Pages, and groups of repeated events.

use std::ops::ControlFlow;

use chrono::{DurationRound, TimeDelta, Utc};
use records::Kind;
use serde_json::json;
use store::queries::errors::{self, ErrorFilter};
use store::queries::events::{self, EventFilter, EventRow};
use store::queries::replay::StoredEvent;
use store::queries::{Listed, Page, replay};
use store::scoped_read::{ReadTransaction, Reader, Scope};

use super::{finish, of, page, whole, with_days};
use crate::world;

/// Returns the events of a page, oldest first.
pub(super) async fn again(
    transaction: &mut ReadTransaction,
    filter: &EventFilter,
    page: &Page,
) -> store::Result<Vec<StoredEvent>> {
    let mut events = Vec::new();
    let take = |event| {
        events.push(event);
        Ok(ControlFlow::Continue(()))
    };
    replay::each(transaction, filter, page, take).await?;
    Ok(events)
}

#[tokio::test]
async fn pages_have_every_record_once_from_the_newest_on() {
    let world = with_days(0..3).await;
    // Three records with the same time, so that pages end between them.
    world
        .execute(
            "INSERT INTO watchbook.event_logs (event_type, payload, actor_type, id, organization_id, created_at, received_at, attributes)
             SELECT 'e', '{}', 'system', gen_random_uuid(), 'acme', date_trunc('second', now()) - n / 3 * interval '20 min', now(), '{}' FROM generate_series(1, 100) AS n",
        )
        .await;
    let reader = Reader::new(world.database().clone());
    let mut transaction = reader.begin(&of(&["acme"])).await.unwrap();
    let all = events::list(&mut transaction, &EventFilter::default(), &whole()).await.unwrap();
    assert_eq!(all.len(), 100);
    assert!(all.windows(2).all(|pair| pair[0].key() > pair[1].key()));
    let mut paged = Vec::new();
    let mut page = Page { limit: 7, ..whole() };
    loop {
        let items = events::list(&mut transaction, &EventFilter::default(), &page).await.unwrap();
        let Some(last) = items.last() else { break };
        page.after = Some(last.key());
        paged.extend(items);
    }
    let keys = |items: &[EventRow]| items.iter().map(Listed::key).collect::<Vec<_>>();
    assert_eq!(keys(&paged), keys(&all));
    // The other way round, oldest first.
    let (mut onward, mut page) = (Vec::new(), Page { limit: 7, ..whole() });
    loop {
        let events = again(&mut transaction, &EventFilter::default(), &page).await.unwrap();
        let Some(last) = events.last() else { break };
        page.after = Some(last.key());
        onward.extend(events.iter().map(Listed::key));
    }
    onward.reverse();
    assert_eq!(onward, all.iter().map(Listed::key).collect::<Vec<_>>());
    transaction.end().await.unwrap();
    finish(world).await;
}

#[tokio::test]
async fn groups_hold_what_happened_again_and_again() {
    let world = world().start().await;
    let worker = world.workers("errors").await;
    let now = Utc::now().duration_trunc(TimeDelta::seconds(1)).unwrap();
    let error = |minutes: i64, message: &str, user: &str| {
        json!({ "trace_id": "t", "error_type": "TimeoutError", "message": message, "user_id": user,
                "created_at": (now - TimeDelta::minutes(minutes)).to_rfc3339() })
    };
    world
        .publish_all(
            Kind::Errors,
            [
                error(50, "no answer from 10.0.0.1:5432 within 30 s", "u1"),
                error(30, "no answer from 10.0.0.2:5433 within 31 s", "u2"),
                error(5, "no answer from [fe80::1]:5433 within 7 s", "u2"),
                error(20, "no such run", "u9"),
            ],
        )
        .await;
    world.settled(Kind::Errors).await;
    let reader = Reader::new(world.database().clone());
    let mut transaction = reader.begin(&Scope::All).await.unwrap();
    let span = page(now - TimeDelta::minutes(60), now, 10);
    let groups = errors::groups(&mut transaction, &ErrorFilter::default(), &span, 6).await.unwrap();
    let facts: Vec<_> =
        groups.iter().map(|group| (group.count, group.affected_users, group.sparkline.clone())).collect();
    // Brackets are not part of an address, so the third one is a group of its own.
    assert_eq!(facts.iter().map(|fact| fact.0).sum::<i64>(), 4, "{groups:?}");
    let pair = groups.iter().find(|group| group.count == 2).unwrap();
    assert_eq!((pair.first_seen, pair.last_seen), (now - TimeDelta::minutes(50), now - TimeDelta::minutes(30)));
    assert_eq!((pair.message.as_str(), pair.affected_users), ("no answer from 10.0.0.2:5433 within 31 s", 2));
    assert_eq!(pair.sparkline, [0, 1, 0, 1, 0, 0]);
    assert!(groups.windows(2).all(|pair| pair[0].last_seen > pair[1].last_seen));
    // The next page starts after the last group, and its counts cover the whole time.
    let next = Page { after: Some(groups[0].key()), ..span };
    assert_eq!(errors::groups(&mut transaction, &ErrorFilter::default(), &next, 6).await.unwrap(), groups[1..]);
    transaction.end().await.unwrap();
    world.finish([worker]).await;
}
