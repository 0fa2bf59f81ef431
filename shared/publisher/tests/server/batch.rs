//! Publishing many records.

use publisher::{Encoded, PublishError, Publisher};
use records::{Headers, Kind};

use crate::world::{BOUND, USERS, World, event, number, until};

const SUBJECT: &str = "watchbook.events._.x";

fn messages(count: usize) -> Vec<Encoded> {
    (0..count).map(|index| Encoded::new(SUBJECT, format!(r#"{{"event_type":"x","run_id":"{index}"}}"#))).collect()
}

async fn numbers(world: &World) -> Vec<usize> {
    world.bodies(Kind::Events).await.iter().map(number).collect()
}

#[tokio::test]
async fn a_batch_is_acknowledged_record_by_record() {
    let world = World::with_events().await;
    let publisher = world.publisher().await;
    publisher.publish(event(0)).await.unwrap();
    let receipts = publisher.publish_batch((1..=3).map(event)).await.unwrap();
    assert_eq!(receipts.iter().map(|receipt| receipt.sequence).collect::<Vec<_>>(), [2, 3, 4]);
    let bodies = world.bodies(Kind::Events).await;
    for (receipt, body) in receipts.iter().zip(bodies.iter().skip(1)) {
        assert_eq!(body["id"], receipt.id.to_string());
    }
    assert_eq!(publisher.publish_batch(std::iter::empty::<records::Event<'_>>()).await.unwrap(), []);
}

#[tokio::test]
async fn more_than_a_batch_is_cut_and_stays_in_order() {
    let world = World::with_events().await;
    let receipts = world.publisher().await.publish_batch((0..3_500).map(event)).await.unwrap();
    assert!(receipts.iter().map(|receipt| receipt.sequence).eq(1..=3_500));
    assert!(numbers(&world).await.into_iter().eq(0..3_500));
    let stream = world.jetstream().await.get_stream("WATCHBOOK_EVENTS").await.unwrap();
    let batch = |sequence| {
        let stream = stream.clone();
        async move { stream.get_raw_message(sequence).await.unwrap().headers.get("Nats-Batch-Id").cloned() }
    };
    assert!(batch(1).await.is_some(), "the records must be sent in atomic batches");
    assert_ne!(batch(1000).await, batch(1001).await);
}

#[tokio::test]
async fn one_message_that_cannot_be_stored_makes_none_stored() {
    let world = World::with_events_that(|config| config.max_message_size = 4096).await;
    let publisher = world.publisher().await;
    for (what, culprit) in [
        ("a subject that no stream matches", Encoded::new("nobody.listens.here", "{}")),
        ("too large for the stream", Encoded::new(SUBJECT, "x".repeat(8192))),
        ("too large for the server", Encoded::new(SUBJECT, "x".repeat(2 << 20))),
    ] {
        for at in [0, 5, 9] {
            let mut batch = messages(10);
            batch[at] = culprit.clone();
            let error = publisher.publish_encoded(Kind::Events, batch).await.unwrap_err();
            assert_eq!(error.acknowledged(), 0, "{what} at {at}");
            assert_eq!(error.into_unacknowledged().len(), 10, "{what} at {at}");
            assert_eq!(world.stored(Kind::Events).await, 0, "{what} at {at}");
        }
    }
}

#[tokio::test]
async fn one_record_that_breaks_the_contract_makes_none_sent() {
    let world = World::with_events().await;
    let publisher = world.publisher().await;
    let mut events: Vec<_> = (0..2_000).map(event).collect();
    events[1_500].event_type = "".into();
    events[1_700].event_type = "x".repeat(1_000).into();
    let error = publisher.publish_batch(events).await.unwrap_err();
    assert_eq!(error.rejected().iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1_500, 1_700]);
    assert!(error.to_string().contains("record 1500"), "{error}");
    assert_eq!(world.stored(Kind::Events).await, 0);
}

#[tokio::test]
async fn a_full_stream_takes_whole_batches_only_and_the_error_says_which() {
    let world = World::with_events_that(|config| config.max_messages = 2_500).await;
    let error = world.publisher().await.publish_batch((0..4_000).map(event)).await.unwrap_err();
    assert!(matches!(error.error(), PublishError::StreamFull { .. }), "{error:?}");
    assert_eq!(error.acknowledged(), 2_000);
    assert!(error.sequences().iter().take(2_000).copied().eq((1..=2_000).map(Some)));
    assert!(error.sequences().iter().skip(2_000).all(Option::is_none));
    assert_eq!(world.stored(Kind::Events).await, 2_000);
    assert_eq!(error.into_unacknowledged().len(), 2_000);
}

#[tokio::test]
async fn a_stream_without_atomic_batches_gets_single_messages() {
    let world = World::with_events_that(|config| config.allow_atomic_publish = false).await;
    let publisher = world.publisher().await;
    for round in 0..2 {
        let receipts = publisher.publish_batch((0..3_000).map(event)).await.unwrap();
        assert!(receipts.iter().map(|receipt| receipt.sequence).eq(round * 3_000 + 1..=(round + 1) * 3_000));
    }
    let numbers = numbers(&world).await;
    assert!(numbers.iter().copied().eq((0..3_000).chain(0..3_000)), "records must be in order");
    let error = world.publisher().await;
    let mut batch = messages(10);
    batch[5] = Encoded::new("nobody.listens.here", "{}");
    let error = error.publish_encoded(Kind::Events, batch).await.unwrap_err();
    assert!(matches!(error.error(), PublishError::StreamMissing { .. }), "{error:?}");
    let left: Vec<_> = error.into_unacknowledged().iter().map(|message| message.subject().to_owned()).collect();
    assert!(left.contains(&"nobody.listens.here".to_owned()));
}

#[tokio::test]
async fn without_a_stream_a_batch_fails_like_a_record() {
    let world = World::bare("").await;
    let error = world.publisher().await.publish_batch((0..3).map(event)).await.unwrap_err();
    assert!(matches!(error.error(), PublishError::StreamMissing { .. }), "{error:?}");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_forbidden_subject_in_a_batch_is_named() {
    let world = World::bare(USERS).await;
    world.create(Kind::Events, |_| {}).await;
    let builder = Publisher::builder().user_and_password("acme", "secret");
    let publisher = builder.connect(world.nats.url()).await.unwrap();
    let batch = (0..10).map(|index| {
        let organization = if index == 4 { "other" } else { "acme" };
        publisher.prepare_json(Kind::Events, Some(organization), r#"{"event_type":"x"}"#).unwrap().message
    });
    let batch: Vec<_> = batch.collect();
    let error = publisher.publish_encoded(Kind::Events, batch).await.unwrap_err();
    assert!(matches!(error.error(), PublishError::NotPermitted { subject, .. } if subject.contains(".other.")));
    assert_eq!(world.stored(Kind::Events).await, 0);
}

#[tokio::test]
async fn headers_travel_and_those_of_an_earlier_batch_do_not() {
    let world = World::with_events().await;
    let publisher = world.publisher().await;
    publisher.publish_encoded(Kind::Events, messages(3)).await.unwrap();
    let stream = world.jetstream().await.get_stream("WATCHBOOK_EVENTS").await.unwrap();
    let held = stream.get_raw_message(2).await.unwrap();
    // A replay publishes messages as they are in the stream, including their headers.
    let headers = held.headers.iter().flat_map(|(name, values)| {
        values.iter().map(|value| (name.to_string(), value.as_str().to_owned())).collect::<Vec<_>>()
    });
    let headers: Headers = headers.chain([("Watchbook-Replay-Id".to_owned(), "1".to_owned())]).collect();
    assert!(headers.get("Nats-Batch-Id").is_some());
    let again = Encoded::new(held.subject.to_string(), held.payload.clone()).with_headers(headers);
    let receipt = publisher.publish_encoded(Kind::Events, [again.clone()]).await.unwrap();
    assert_eq!(receipt.sequences, [4]);
    let receipt = publisher.publish_encoded(Kind::Events, vec![again; 2]).await.unwrap();
    assert_eq!(receipt.sequences, [5, 6]);
    let headers = stream.get_raw_message(4).await.unwrap().headers;
    assert_eq!(headers.get("Watchbook-Replay-Id").map(|value| value.as_str()), Some("1"));
    assert!(headers.get("Nats-Batch-Id").is_none());
}

#[tokio::test]
async fn what_a_killed_server_left_unclear_is_published_again() {
    const COUNT: usize = 30_000;
    let world = World::with_events().await;
    let publisher = world.publisher().await;
    let publishing = tokio::spawn({
        let publisher = publisher.clone();
        async move {
            let prepare = |index| publisher.prepare(&publisher.outgoing(event(index))).unwrap().message;
            let mut messages: Vec<_> = (0..COUNT).map(prepare).collect();
            while let Err(error) = publisher.publish_encoded(Kind::Events, messages).await {
                assert!(error.is_retryable(), "{error}");
                messages = error.into_unacknowledged();
            }
        }
    });
    until("some records are stored", async || world.stored(Kind::Events).await > 0).await;
    world.nats.kill().await.unwrap();
    world.nats.restart().await.unwrap();
    tokio::time::timeout(BOUND, publishing).await.unwrap().unwrap();
    assert_eq!(world.ids(Kind::Events).await.len(), COUNT);
}
