//! Publishing single records.

use std::sync::atomic::Ordering;
use std::time::Duration;

use publisher::{PublishError, Publisher};
use records::{ErrorRecord, Kind, Reason};
use serde_json::json;

use crate::world::{BOUND, USERS, World, event, until};

#[tokio::test]
async fn each_record_is_acknowledged_with_its_sequence() {
    let world = World::with_events().await;
    let publisher = world.publisher().await;
    for sequence in 1..=3 {
        let receipt = publisher.publish(event(0)).await.unwrap();
        assert_eq!((receipt.sequence, &*receipt.stream, receipt.duplicate), (sequence, "WATCHBOOK_EVENTS", false));
        assert!(world.ids(Kind::Events).await.contains(&receipt.id.to_string()));
    }
}

#[tokio::test]
async fn a_record_goes_to_its_organization_with_its_source_and_attributes() {
    let world = World::with_events().await;
    let publisher = Publisher::builder().source("tests").connect(world.nats.url()).await.unwrap();
    let mut outgoing = publisher.outgoing(event(7));
    outgoing.attributes.insert("build".to_owned(), json!(42));
    publisher.for_organization("acme").unwrap().publish_outgoing(&outgoing).await.unwrap();
    let stream = world.jetstream().await.get_stream("WATCHBOOK_EVENTS").await.unwrap();
    let message = stream.get_raw_message(1).await.unwrap();
    assert_eq!(message.subject.as_str(), "watchbook.events.acme.test.event");
    let body: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
    assert_eq!((&body["source"], &body["attributes"]["build"]), (&json!("tests"), &json!(42)));
    assert!(publisher.for_organization("a.b").is_err(), "a dot would shift the tokens of the subject");
}

#[tokio::test]
async fn only_the_domain_that_was_asked_for_acknowledges() {
    let world = World::with(|options| options.domain = Some("hub".to_owned())).await;
    world.create(Kind::Events, |_| {}).await;
    let publisher =
        async |domain: &str| Publisher::builder().jetstream_domain(domain).connect(world.nats.url()).await.unwrap();
    publisher("hub").await.publish(event(0)).await.unwrap();
    publisher("hub").await.publish_batch([event(1), event(2)]).await.unwrap();

    let elsewhere = publisher("leaf").await;
    let error = elsewhere.publish(event(3)).await.unwrap_err();
    assert!(matches!(&error, PublishError::OtherDomain { domain, wanted, .. } if domain == "hub" && wanted == "leaf"));
    assert!(error.to_string().contains("WATCHBOOK_EVENTS"), "{error}");
    let error = elsewhere.publish_batch([event(4), event(5)]).await.unwrap_err();
    assert!(matches!(error.error(), PublishError::OtherDomain { .. }), "{error}");
    assert_eq!(error.acknowledged(), 0);
}

#[tokio::test]
async fn json_is_checked_completed_and_otherwise_sent_as_it_is() {
    let world = World::with_events().await;
    let publisher = world.publisher().await;
    let receipt =
        publisher.publish_json(Kind::Events, Some("acme"), r#"{ "event_type":"x",  "extra": 1.50 }"#).await.unwrap();
    let stream = world.jetstream().await.get_stream("WATCHBOOK_EVENTS").await.unwrap();
    let body = String::from_utf8(stream.get_raw_message(1).await.unwrap().payload.to_vec()).unwrap();
    assert!(body.starts_with(r#"{ "event_type":"x",  "extra": 1.50 ,"id":""#), "{body}");
    assert!(body.contains(&receipt.id.to_string()));

    let refused = publisher.publish_json(Kind::Events, None, r#"{"event_type":5}"#).await.unwrap_err();
    assert!(matches!(refused, PublishError::Rejected(reject) if reject.reason == Reason::InvalidField));
    assert_eq!(world.stored(Kind::Events).await, 1, "an invalid record must not be sent");
}

#[tokio::test]
async fn a_typed_record_that_breaks_the_contract_is_never_sent() {
    let world = World::bare("").await;
    world.create(Kind::Errors, |_| {}).await;
    let publisher = world.publisher().await;
    let refused = publisher.publish(ErrorRecord { message: "no trace".into(), ..ErrorRecord::default() }).await;
    assert!(matches!(refused.unwrap_err(), PublishError::Rejected(_)));
    assert_eq!(world.stored(Kind::Errors).await, 0);
}

#[tokio::test]
async fn after_an_unclear_answer_the_same_record_is_sent_again() {
    let world = World::with_events().await;
    let connect = Publisher::builder().ack_timeout(Duration::from_millis(100)).attempts(10_000);
    let publisher = connect.connect(world.nats.url()).await.unwrap();
    publisher.publish(event(0)).await.unwrap();
    world.freeze().await;
    let sent = || publisher.client().statistics().out_messages.load(Ordering::Relaxed);
    let before = sent();
    let publishing = tokio::spawn({
        let publisher = publisher.clone();
        async move { publisher.publish(event(1)).await }
    });
    until("the record was sent three times", async || sent() >= before + 3).await;
    world.thaw();
    let receipt = tokio::time::timeout(BOUND, publishing).await.unwrap().unwrap().unwrap();
    let ids = world.ids(Kind::Events).await;
    assert_eq!(ids.len(), 2, "the same record must keep its id");
    assert!(ids.contains(&receipt.id.to_string()));
    assert!(world.stored(Kind::Events).await > 2, "the stream must hold the record more than once");
}

#[tokio::test]
async fn a_missing_stream_says_what_to_do() {
    let world = World::bare("").await;
    let error = world.publisher().await.publish(event(0)).await.unwrap_err();
    assert!(matches!(error, PublishError::StreamMissing { .. }), "{error:?}");
    assert!(error.to_string().contains("watchbook setup") && error.is_retryable());
}

#[tokio::test]
async fn a_full_stream_refuses() {
    let world = World::with_events_that(|config| config.max_messages = 1).await;
    let publisher = world.publisher().await;
    publisher.publish(event(0)).await.unwrap();
    let error = publisher.publish(event(1)).await.unwrap_err();
    assert!(matches!(error, PublishError::StreamFull { .. }), "{error:?}");
    assert_eq!(world.stored(Kind::Events).await, 1);
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_sent() {
    let world = World::bare("max_payload: 4096").await;
    world.create(Kind::Events, |_| {}).await;
    let mut large = event(0);
    large.payload = records::Json::of(&json!({ "text": "x".repeat(8192) })).unwrap();
    let error = world.publisher().await.publish(large).await.unwrap_err();
    assert!(matches!(error, PublishError::TooLarge { limit: 4096, .. }), "{error:?}");
}

#[tokio::test]
async fn a_forbidden_subject_is_named_at_once() {
    let world = World::bare(USERS).await;
    world.create(Kind::Events, |_| {}).await;
    let connect = Publisher::builder().user_and_password("acme", "secret").organization("acme");
    let connect = connect.ack_timeout(BOUND);
    let publisher = connect.connect(world.nats.url()).await.unwrap();
    publisher.publish(event(0)).await.unwrap();
    let publisher = publisher.for_organization("other").unwrap();
    let forbidden = publisher.publish(event(1));
    // Far below the acknowledgement timeout: the permission error must arrive first.
    let error = tokio::time::timeout(BOUND / 4, forbidden).await.unwrap().unwrap_err();
    assert!(matches!(&error, PublishError::NotPermitted { subject, .. } if subject.contains(".other.")), "{error:?}");
}

#[tokio::test]
async fn without_the_servers_word_a_forbidden_subject_is_a_timeout() {
    let world = World::bare(USERS).await;
    world.create(Kind::Events, |_| {}).await;
    let options = async_nats::ConnectOptions::with_user_and_password("acme".to_owned(), "secret".to_owned());
    let client = options.connect(world.nats.url()).await.unwrap();
    let builder = Publisher::builder().ack_timeout(Duration::from_millis(100));
    let error = builder.from_client(client).unwrap().publish(event(0)).await.unwrap_err();
    assert!(matches!(error, PublishError::TimedOut { .. }), "{error:?}");
    assert!(error.to_string().contains("may publish"), "{error}");
}

#[tokio::test]
async fn without_a_server_nothing_is_sent_and_the_client_keeps_trying() {
    let world = World::with_events().await;
    world.nats.kill().await.unwrap();
    let builder = Publisher::builder().retry_on_initial_connect().ack_timeout(Duration::from_millis(100));
    let publisher = builder.connect(world.nats.url()).await.unwrap();
    let error = publisher.publish(event(0)).await.unwrap_err();
    assert!(matches!(error, PublishError::NotConnected { .. }), "{error:?}");
    world.nats.restart().await.unwrap();
    until("publishing works again", async || publisher.publish(event(1)).await.is_ok()).await;
    assert_eq!(world.stored(Kind::Events).await, 1, "a record reported as not sent must not be sent");
}

#[tokio::test]
async fn a_drained_client_is_closed_for_good() {
    let world = World::with_events().await;
    let publisher = world.publisher().await;
    publisher.publish(event(0)).await.unwrap();
    publisher.client().drain().await.unwrap();
    until("the connection is closed", async || matches!(publisher.publish(event(1)).await, Err(PublishError::Closed)))
        .await;
}
