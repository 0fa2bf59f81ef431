//! The buffer: when full, in an outage, and when flushed or closed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use publisher::{BufferOptions, PublishError, Publisher, PushError, Refused};
use records::Kind;

use crate::world::{BOUND, USERS, World, event, number, until};

#[tokio::test]
async fn what_is_pushed_is_published_in_order() {
    let world = World::with_events().await;
    let buffered = world.publisher().await.buffered(BufferOptions::default());
    for index in 0..5_000 {
        buffered.try_push(event(index)).unwrap();
    }
    buffered.flush().await.unwrap();
    let stats = buffered.stats();
    assert_eq!((stats.buffered_records, stats.buffered_bytes, stats.published, stats.refused), (0, 0, 5_000, 0));
    let numbers: Vec<_> = world.bodies(Kind::Events).await.iter().map(number).collect();
    assert!(numbers.into_iter().eq(0..5_000));
}

#[tokio::test]
async fn one_record_does_not_wait_for_a_batch() {
    let world = World::with_events().await;
    let buffered = world.publisher().await.buffered(BufferOptions::default());
    buffered.try_push(event(0)).unwrap();
    until("the record is published without a flush", async || buffered.stats().published == 1).await;
    let lingering = BufferOptions { linger: BOUND * 10, ..BufferOptions::default() };
    let lingering = world.publisher().await.buffered(lingering);
    lingering.try_push(event(1)).unwrap();
    tokio::time::timeout(BOUND, lingering.flush()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_full_buffer_says_so_and_hands_the_record_back() {
    let world = World::with_events().await;
    let buffered = world.publisher().await.buffered(BufferOptions { max_records: 10, ..BufferOptions::default() });
    world.nats.kill().await.unwrap();
    for index in 0..10 {
        buffered.try_push(event(index)).unwrap();
    }
    match buffered.try_push(event(10)) {
        Err(PushError::Full(back)) => assert_eq!(back.run_id.as_deref(), Some("10")),
        other => panic!("{other:?}"),
    }
    let prepared = buffered.publisher().prepare(&buffered.publisher().outgoing(event(10))).unwrap();
    assert!(matches!(buffered.try_push_prepared(prepared), Err(PushError::Full(_))));
    assert_eq!(buffered.stats().buffered_records, 10);
    let waiting = tokio::spawn({
        let buffered = buffered.clone();
        async move { buffered.push(event(10)).await }
    });
    world.nats.restart().await.unwrap();
    tokio::time::timeout(BOUND, waiting).await.unwrap().unwrap().unwrap();
    tokio::time::timeout(BOUND, buffered.flush()).await.unwrap().unwrap();
    assert_eq!(world.ids(Kind::Events).await.len(), 11);
}

#[tokio::test]
async fn bytes_are_bounded() {
    let world = World::bare("").await;
    let options = BufferOptions { max_bytes: 10_000, ..BufferOptions::default() };
    let buffered = world.publisher().await.buffered(options);
    while buffered.try_push(event(0)).is_ok() {
        assert!(buffered.stats().buffered_bytes <= 10_000);
    }
    assert!(buffered.stats().buffered_records > 10);
    let mut large = event(1);
    large.payload = records::Json::of(&serde_json::json!({ "text": "x".repeat(20_000) })).unwrap();
    let error = buffered.push(large).await.unwrap_err();
    assert!(matches!(error, PushError::Refused(PublishError::TooLarge { .. })), "waiting cannot help: {error}");
}

#[tokio::test]
async fn nothing_is_lost_when_the_server_is_killed_and_comes_back() {
    const COUNT: usize = 20_000;
    let world = World::with_events().await;
    let buffered = world.publisher().await.buffered(BufferOptions::default());
    let pushing = tokio::spawn({
        let buffered = buffered.clone();
        async move {
            for index in 0..COUNT {
                buffered.push(event(index)).await.unwrap();
            }
        }
    });
    until("some records are published", async || buffered.stats().published > 0).await;
    world.nats.kill().await.unwrap();
    tokio::time::timeout(BOUND, pushing).await.unwrap().unwrap();
    assert!(buffered.stats().buffered_records > 0, "the test needs records in the buffer during the outage");
    world.nats.restart().await.unwrap();
    tokio::time::timeout(BOUND, buffered.flush()).await.unwrap().unwrap();
    assert_eq!(world.ids(Kind::Events).await.len(), COUNT);
    let stats = buffered.stats();
    assert_eq!((stats.published, stats.refused, stats.buffered_records), (COUNT as u64, 0, 0));
    let mut numbers: Vec<_> = world.bodies(Kind::Events).await.iter().map(number).collect();
    // Records stored without an acknowledgement are sent twice; apart from that the order must hold.
    numbers.dedup();
    let mut seen = 0;
    numbers.retain(|&number| {
        number == seen && {
            seen += 1;
            true
        }
    });
    assert_eq!(numbers.len(), COUNT);
}

#[tokio::test]
async fn a_full_stream_is_waited_for_and_keeps_no_other_kind_waiting() {
    let world = World::with_events_that(|config| config.max_messages = 1).await;
    world.create(Kind::Errors, |_| {}).await;
    let buffered = world.publisher().await.buffered(BufferOptions::default());
    for index in 0..3 {
        buffered.try_push(event(index)).unwrap();
    }
    until("publishing is retried", async || buffered.stats().retries > 0).await;
    let error = records::ErrorRecord { trace_id: "t".into(), error_type: "E".into(), ..Default::default() };
    buffered.try_push(error).unwrap();
    until("the record of the other kind is published", async || world.stored(Kind::Errors).await == 1).await;
    let jetstream = world.jetstream().await;
    let mut config = jetstream.get_stream("WATCHBOOK_EVENTS").await.unwrap().cached_info().config.clone();
    config.max_messages = -1;
    jetstream.update_stream(config).await.unwrap();
    tokio::time::timeout(BOUND, buffered.flush()).await.unwrap().unwrap();
    assert_eq!(world.stored(Kind::Events).await, 3);
}

#[tokio::test]
async fn what_is_refused_for_good_is_handed_out_and_the_rest_goes_on() {
    let world = World::bare(USERS).await;
    world.create(Kind::Events, |_| {}).await;
    let builder = Publisher::builder().user_and_password("acme", "secret");
    let publisher = builder.connect(world.nats.url()).await.unwrap();
    let refused: Arc<Mutex<Vec<Refused>>> = Arc::default();
    let on_refused = {
        let refused = Arc::clone(&refused);
        move |record| refused.lock().unwrap().push(record)
    };
    let options = BufferOptions { on_refused: Some(Arc::new(on_refused)), ..BufferOptions::default() };
    let buffered = publisher.buffered(options);
    for index in 0..100 {
        let organization = if index % 10 == 0 { "other" } else { "acme" };
        let body = format!(r#"{{"event_type":"x","run_id":"{index}"}}"#);
        buffered.try_push_prepared(publisher.prepare_json(Kind::Events, Some(organization), body).unwrap()).unwrap();
    }
    tokio::time::timeout(BOUND, buffered.flush()).await.unwrap().unwrap();
    let stats = buffered.stats();
    assert_eq!((stats.published, stats.refused, stats.buffered_records), (90, 10, 0));
    assert_eq!(world.stored(Kind::Events).await, 90);
    let refused = refused.lock().unwrap();
    assert_eq!(refused.len(), 10);
    assert!(refused.iter().all(|refused| matches!(refused.error, PublishError::NotPermitted { .. })));
    assert!(refused.iter().all(|refused| refused.record.message.subject().contains(".other.")));
}

#[tokio::test]
async fn closing_publishes_what_there_is_and_takes_no_more() {
    let world = World::with_events().await;
    let buffered = world.publisher().await.buffered(BufferOptions { linger: BOUND * 10, ..BufferOptions::default() });
    for index in 0..10 {
        buffered.try_push(event(index)).unwrap();
    }
    buffered.close(BOUND).await.unwrap();
    assert_eq!(world.stored(Kind::Events).await, 10);
    assert!(matches!(buffered.try_push(event(0)), Err(PushError::Closed(_))));
    assert!(matches!(buffered.push(event(0)).await, Err(PushError::Closed(_))));
    buffered.flush().await.unwrap();
    buffered.close(BOUND).await.unwrap();
}

#[tokio::test]
async fn closing_in_an_outage_says_how_many_are_left() {
    let world = World::with_events().await;
    let buffered = world.publisher().await.buffered(BufferOptions::default());
    world.nats.kill().await.unwrap();
    for index in 0..10 {
        buffered.try_push(event(index)).unwrap();
    }
    let unflushed = buffered.close(Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(unflushed.left, 10);
    assert_eq!(buffered.flush().await.unwrap_err().left, 10);
}

#[tokio::test]
async fn a_dropped_buffer_is_published_all_the_same() {
    let world = World::with_events().await;
    let buffered = world.publisher().await.buffered(BufferOptions { linger: BOUND * 10, ..BufferOptions::default() });
    for index in 0..10 {
        buffered.try_push(event(index)).unwrap();
    }
    drop(buffered);
    until("all records are stored", async || world.stored(Kind::Events).await == 10).await;
}

#[tokio::test]
async fn a_buffer_on_a_closed_connection_ends() {
    let world = World::with_events().await;
    let publisher = world.publisher().await;
    let buffered = publisher.buffered(BufferOptions::default());
    publisher.client().drain().await.unwrap();
    until("the buffer is closed", async || matches!(buffered.try_push(event(0)), Err(PushError::Closed(_)))).await;
    assert!(buffered.flush().await.is_err(), "the loss of buffered records must be reported");
}
