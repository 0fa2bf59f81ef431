//! Contract of all HTTP receivers: the outcome for each response status.

use std::time::Duration;

use alerting::notification::Status;
use notifier::Outcome;
use notifier::receivers::{Delivery, Sender};

use crate::stub::{Answer, Stub};
use crate::table::{PATIENCE, alert, all, delivery, notification};

#[derive(Debug, PartialEq)]
enum Expected {
    Delivered,
    Retry,
    GiveUp,
}

fn expected_of(outcome: &Outcome) -> Expected {
    match outcome {
        Outcome::Delivered => Expected::Delivered,
        Outcome::Retry { .. } => Expected::Retry,
        Outcome::GiveUp { .. } => Expected::GiveUp,
    }
}

#[tokio::test]
async fn each_status_means_the_same_to_every_receiver() {
    let expected = |status| match status {
        200..300 => Expected::Delivered,
        408 | 425 | 429 | 500..600 => Expected::Retry,
        _ => Expected::GiveUp,
    };
    let told = notification(vec![alert(Status::Firing, "a")]);
    let sender = Sender::new(None, PATIENCE, "");
    // All registered statuses, and some unregistered ones.
    for status in
        (200..=208).chain([226, 299]).chain(300..=308).chain(400..=431).chain([451, 499]).chain(500..=511).chain([599])
    {
        let stub = Stub::always(Answer::status(status)).await;
        for (name, receiver) in all(&format!("127.0.0.1:{}", stub.port), "none") {
            let outcome = sender.send(&receiver, delivery(&told)).await;
            assert_eq!(expected_of(&outcome), expected(status), "{name} on {status}: {outcome:?}");
            if let Outcome::Retry { problem, .. } | Outcome::GiveUp { problem } = outcome {
                assert!(problem.contains(&status.to_string()), "{name} does not contain {status}: {problem}");
                assert!(
                    problem.starts_with(&format!("{} answered", stub.url())),
                    "{name} does not name the receiver: {problem}"
                );
            }
        }
        assert_eq!(stub.requests().len(), 5, "one attempt is one request");
    }
}

#[tokio::test]
async fn retry_after_is_passed_on_where_a_retry_makes_sense() {
    let told = notification(vec![alert(Status::Firing, "a")]);
    let sender = Sender::new(None, PATIENCE, "");
    let answers = [
        (429, "120", Some(120)),
        (503, "7", Some(7)),
        (500, "Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
        (503, "soon", None),
        (503, "-5", None),
    ];
    for (status, header, expected) in answers {
        let stub = Stub::always(Answer::Status(status, vec![("retry-after", header.to_owned())], String::new())).await;
        for (name, receiver) in all(&format!("127.0.0.1:{}", stub.port), "none") {
            match sender.send(&receiver, delivery(&told)).await {
                Outcome::Retry { after, .. } => {
                    assert_eq!(after, expected.map(Duration::from_secs), "{name}: {header}")
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn nobody_follows_a_redirect() {
    let elsewhere = Stub::always(Answer::status(200)).await;
    let told = notification(vec![alert(Status::Firing, "a")]);
    for status in [301, 302, 303, 307, 308] {
        let answer = Answer::Status(status, vec![("location", elsewhere.url())], String::new());
        let stub = Stub::always(answer).await;
        for (name, receiver) in all(&format!("127.0.0.1:{}", stub.port), "none") {
            let outcome = Sender::new(None, PATIENCE, "").send(&receiver, delivery(&told)).await;
            assert_eq!(expected_of(&outcome), Expected::GiveUp, "{name} on {status}");
        }
    }
    assert_eq!(elsewhere.requests().len(), 0);
}

#[tokio::test]
async fn a_heartbeat_is_never_late() {
    let stub = Stub::always(Answer::status(200)).await;
    let told = notification(vec![]);
    for (name, receiver) in all(&format!("127.0.0.1:{}", stub.port), "none") {
        let late = Delivery { age: Duration::from_secs(121), ..delivery(&told) };
        let outcome = Sender::new(None, PATIENCE, "").send(&receiver, late).await;
        let expected = if name == "heartbeat" { Expected::GiveUp } else { Expected::Delivered };
        assert_eq!(expected_of(&outcome), expected, "{name}: {outcome:?}");
    }
    let requests = stub.requests();
    assert!(requests.iter().all(|requests| requests.method == "POST"), "the heartbeat must not be sent");
    assert!(requests.iter().all(|requests| requests.header("user-agent").starts_with("watchbook/")));
}
