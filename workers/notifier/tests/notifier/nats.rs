//! The NATS subject, against a real server.

use alerting::notification::Status;
use alerting::receiver::{Channel, Nats};
use bus::{Bus, Signals};
use harness::servers::start_nats;
use harness::{World, eventually};
use notifier::Outcome;
use notifier::receivers::Sender;
use serde_json::Value;

use crate::table::{PATIENCE, alert, delivery, notification, receiver};

pub(crate) async fn bus(world: &World) -> Bus {
    let config = runtime::config::Nats { prefix: world.name().to_owned(), ..Default::default() };
    Bus::connect(&config, &world.nats_url(), "tests").await.unwrap()
}

#[tokio::test]
async fn each_alert_is_published_on_its_subject() {
    let world = World::builder("no binary").without_setup().start().await;
    let bus = bus(&world).await;
    let mut listener = world.client().subscribe(format!("{}.alerts.>", world.name())).await.unwrap();
    world.client().flush().await.unwrap();
    let mut other = alert(Status::Resolved, "b");
    (other.organization, other.rule) = ("*".to_owned(), "a.rule > all".to_owned());
    let told = notification(vec![alert(Status::Firing, "a"), other]);
    let sender = Sender::new(Some(bus.clone()), PATIENCE, "");
    let delivery = delivery(&told);
    let outcome = sender.send(&receiver(Channel::Nats(Nats { subject: None })), delivery).await;
    assert_eq!(outcome, Outcome::Delivered);
    for (subject, alert) in [("acme.execution-failure-rate", &told.alerts[0]), ("_.a_rule___all", &told.alerts[1])] {
        let message = futures::StreamExt::next(&mut listener).await.unwrap();
        assert_eq!(message.subject.as_str(), format!("{}.alerts.{subject}", world.name()));
        let id = message.headers.as_ref().unwrap().get("Nats-Msg-Id").unwrap().to_string();
        assert_eq!(id, format!("{}:{}", delivery.id, alert.id));
        let body: Value = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(body["notification_id"], delivery.id.to_string());
        assert_eq!(body["group_key"], told.group_key);
        assert_eq!(body["reason"], alert.reason);
        assert_eq!(body["labels"], serde_json::to_value(&alert.labels).unwrap());
        assert_eq!(body["status"], serde_json::to_value(alert.status).unwrap());
    }
    let subject = Some(format!("{}.alerts.elsewhere", world.name()));
    sender.send(&receiver(Channel::Nats(Nats { subject })), delivery).await;
    let message = futures::StreamExt::next(&mut listener).await.unwrap();
    assert!(message.subject.ends_with(".alerts.elsewhere"));
    bus.close().await;
    world.finish([]).await;
}

#[tokio::test]
async fn without_a_server_nothing_is_kept_for_later() {
    let server = start_nats(|_| {}).await;
    let config = runtime::config::Nats::default();
    let bus = Bus::connect(&config, &server.url(), "tests").await.unwrap();
    drop(server);
    let told = notification(vec![alert(Status::Firing, "a")]);
    let sender = Sender::new(Some(bus), PATIENCE, "");
    let receiver = receiver(Channel::Nats(Nats { subject: None }));
    eventually("the lost connection is noticed", async || match sender.send(&receiver, delivery(&told)).await {
        Outcome::Retry { problem, .. } if problem.contains("no connection") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test]
async fn a_message_that_no_server_takes_is_given_up() {
    let world = World::builder("no binary").without_setup().start().await;
    let bus = bus(&world).await;
    let mut told = notification(vec![alert(Status::Firing, "a")]);
    told.alerts[0].reason = "x".repeat(64 * 1024 * 1024);
    let sender = Sender::new(Some(bus.clone()), PATIENCE, "");
    let outcome = sender.send(&receiver(Channel::Nats(Nats { subject: None })), delivery(&told)).await;
    assert!(matches!(outcome, Outcome::GiveUp { .. }), "{outcome:?}");
    bus.close().await;
    world.finish([]).await;
}

#[tokio::test]
async fn signals_are_heard_also_after_the_connection_was_made_anew() {
    let world = World::builder("no binary").without_setup().start().await;
    let bus = bus(&world).await;
    let (mut all, mut outbox) = (bus.signals("*").await, bus.signals(Signals::OUTBOX).await);
    for _ in 0..2 {
        // A subscription to all signals receives each of them.
        for (hears_all, name) in [(true, "rollups"), (false, Signals::OUTBOX), (true, Signals::OUTBOX)] {
            let signals = if hears_all { &mut all } else { &mut outbox };
            // The signal is raised until it is received, because the server learns of a subscription a moment
            // later, and a lost one is renewed only when polled. Each response of the server confirms all that was
            // sent before.
            let raise = async {
                loop {
                    bus.raise(name);
                    bus.client().flush().await.unwrap();
                }
            };
            tokio::select! {
                () = raise => {}
                // Signals of the previous round may arrive first.
                () = async { while signals.next().await.as_deref() != Some(name) {} } => {}
            }
        }
        bus.renew().await.unwrap();
    }
    bus.close().await;
    // Without a connection the signal is dropped and the call does not wait.
    bus.raise("outbox");
    world.finish([]).await;
}
