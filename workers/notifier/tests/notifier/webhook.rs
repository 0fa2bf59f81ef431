//! Webhooks: Alertmanager's body and Standard Webhooks' signature.

use std::collections::BTreeMap;
use std::time::Duration;

use alerting::notification::{NotificationReason, Status};
use alerting::receiver::{Channel, Webhook};
use chrono::{DateTime, Utc};
use notifier::Outcome;
use notifier::receivers::{Delivery, Sender};
use runtime::config::Secret;
use serde::Deserialize;

use crate::stub::{Answer, Stub};
use crate::table::{PATIENCE, alert, delivery, labels, nasty, notification, receiver, send, webhook};

/// Alertmanager's body as documented for webhooks and `template.Data`. Missing and unknown fields are errors.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Version4 {
    version: String,
    group_key: String,
    truncated_alerts: u64,
    status: String,
    receiver: String,
    group_labels: BTreeMap<String, String>,
    common_labels: BTreeMap<String, String>,
    common_annotations: BTreeMap<String, String>,
    #[serde(rename = "externalURL")]
    external_url: String,
    alerts: Vec<Version4Alert>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Version4Alert {
    status: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    starts_at: DateTime<Utc>,
    ends_at: DateTime<Utc>,
    #[serde(rename = "generatorURL")]
    generator_url: String,
    fingerprint: String,
}

#[tokio::test]
async fn the_body_is_alertmanagers() {
    let stub = Stub::always(Answer::status(200)).await;
    let mut told = notification(vec![alert(Status::Firing, "a"), alert(Status::Resolved, "b")]);
    told.alerts[1].annotations.insert("reason".to_owned(), "its own".to_owned());
    told.truncated_alerts = 3;
    assert_eq!(send(&webhook(&stub.url(), None), &told).await, Outcome::Delivered);
    let requests = &stub.requests()[0];
    assert_eq!(requests.header("content-type"), "application/json");
    let body: Version4 = serde_json::from_slice(&requests.body).unwrap();
    assert_eq!(body.version, "4");
    assert_eq!((body.status.as_str(), body.receiver.as_str()), ("firing", "ops"));
    assert_eq!((body.group_key.as_str(), body.truncated_alerts), ("execution-failure-rate/acme", 3));
    assert_eq!(body.group_labels, labels([("organization", "acme")]));
    assert!(!body.common_labels.contains_key("strategy"), "labels that differ are not common");
    assert_eq!(body.common_labels["organization"], "acme");
    assert_eq!(body.common_annotations, labels([("summary", "Executions of acme fail")]));
    assert_eq!(body.external_url, "https://watchbook.example/");
    let [firing, resolved] = body.alerts.as_slice() else { panic!("{body:?}") };
    assert_eq!(firing.status, "firing");
    assert_eq!(firing.labels, told.alerts[0].labels);
    assert_eq!(firing.annotations["reason"], told.alerts[0].reason);
    assert_eq!(firing.starts_at, told.alerts[0].starts_at);
    assert_eq!(firing.ends_at.to_rfc3339(), "0001-01-01T00:00:00+00:00");
    assert_eq!(firing.generator_url, "https://watchbook.example/");
    assert_eq!(firing.fingerprint.len(), 16);
    assert_eq!(resolved.status, "resolved");
    assert_eq!(Some(resolved.ends_at), told.alerts[1].ends_at);
    assert_eq!(resolved.annotations["reason"], "its own");
    assert_ne!(resolved.fingerprint, firing.fingerprint);
}

#[tokio::test]
async fn alerts_beyond_the_bound_are_counted() {
    let stub = Stub::always(Answer::status(200)).await;
    let settings = Webhook { url: Secret::new(stub.url()), secret: None, max_alerts: 5 };
    assert_eq!(send(&receiver(Channel::Webhook(settings)), &nasty()).await, Outcome::Delivered);
    let body: Version4 = serde_json::from_slice(&stub.requests()[0].body).unwrap();
    assert_eq!((body.alerts.len(), body.truncated_alerts), (5, 71 - 5 + 12));
}

#[tokio::test]
async fn a_test_says_so() {
    let stub = Stub::always(Answer::status(200)).await;
    let mut told = notification(vec![alert(Status::Firing, "a")]);
    told.why = NotificationReason::Test;
    told.alerts[0].test = true;
    assert_eq!(send(&webhook(&stub.url(), None), &told).await, Outcome::Delivered);
    let body: Version4 = serde_json::from_slice(&stub.requests()[0].body).unwrap();
    assert_eq!(body.alerts[0].annotations["test"], "true");
}

#[tokio::test]
async fn the_signature_is_that_of_standard_webhooks() {
    let stub = Stub::always(Answer::status(503)).await;
    let key = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let spellings = [
        (format!("whsec_{key}"), standardwebhooks::Webhook::new(key).unwrap()),
        (key.to_owned(), standardwebhooks::Webhook::new(key).unwrap()),
        ("no base64!".to_owned(), standardwebhooks::Webhook::from_bytes(b"no base64!".to_vec()).unwrap()),
    ];
    for (number, (secret, verifier)) in spellings.iter().enumerate() {
        assert!(matches!(send(&webhook(&stub.url(), Some(secret)), &nasty()).await, Outcome::Retry { .. }));
        let requests = stub.requests()[number].clone();
        verifier.verify(&requests.body, &requests.headers).unwrap();
        let mut other = requests.body.clone();
        other[10] ^= 1;
        assert!(verifier.verify(&other, &requests.headers).is_err());
    }
    assert_eq!(send(&webhook(&stub.url(), None), &nasty()).await, {
        Outcome::Retry { after: None, problem: format!("{} answered 503 Service Unavailable", stub.url()) }
    });
    assert_eq!(stub.requests()[3].header("webhook-signature"), "", "there is no signature without a secret");
}

#[tokio::test]
async fn a_second_try_has_the_same_id_and_body_and_a_time_of_its_own() {
    let stub = Stub::always(Answer::status(503)).await;
    let told = notification(vec![alert(Status::Firing, "a"), alert(Status::Resolved, "b")]);
    let sender = Sender::new(None, PATIENCE, "");
    let receiver = webhook(&stub.url(), Some("secret"));
    let first = delivery(&told);
    let second = Delivery { now: first.now + Duration::from_secs(60), age: Duration::from_secs(60), ..first };
    sender.send(&receiver, first).await;
    sender.send(&receiver, second).await;
    let [one, two] = &stub.requests()[..] else { panic!() };
    assert_eq!(one.header("webhook-id"), first.id.to_string());
    assert_eq!(one.header("webhook-id"), two.header("webhook-id"));
    assert_eq!(one.body, two.body);
    assert_ne!(one.header("webhook-timestamp"), two.header("webhook-timestamp"));
    assert_ne!(one.header("webhook-signature"), two.header("webhook-signature"));
}
