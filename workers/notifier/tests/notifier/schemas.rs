//! Checks the bodies for Slack and PagerDuty against JSON Schemas written from their public documentation.

use alerting::notification::{Notification, NotificationReason, Status};
use alerting::receiver::{Channel, Pagerduty, Slack};
use notifier::Outcome;
use runtime::config::Secret;
use serde_json::{Value, json};

use crate::stub::{Answer, Stub};
use crate::table::{alert, labels, nasty, notification, receiver, send};

/// <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>,
/// <https://docs.slack.dev/reference/block-kit/blocks>, <https://docs.slack.dev/legacy/legacy-messaging/legacy-secondary-message-attachments>.
fn slack_schema() -> Value {
    let text = |kind: &str, most: u32| {
        json!({
            "type": "object", "required": ["type", "text"], "additionalProperties": false,
            "properties": { "type": { "const": kind }, "text": { "type": "string", "minLength": 1, "maxLength": most } }
        })
    };
    let block = |kind: &str, member: &str, content: Value| {
        json!({
            "type": "object", "required": ["type", member], "additionalProperties": false,
            "properties": { "type": { "const": kind }, member: content }
        })
    };
    json!({
        "type": "object", "required": ["text", "attachments"], "additionalProperties": false,
        "properties": {
            "text": { "type": "string", "minLength": 1, "maxLength": 40000 },
            "attachments": { "type": "array", "maxItems": 20, "items": {
                "type": "object", "required": ["color", "blocks"], "additionalProperties": false,
                "properties": {
                    "color": { "type": "string", "pattern": "^#[0-9a-f]{6}$" },
                    "blocks": { "type": "array", "minItems": 1, "maxItems": 50, "items": { "oneOf": [
                        block("header", "text", text("plain_text", 150)),
                        block("section", "text", text("mrkdwn", 3000)),
                        block("context", "elements", json!({
                            "type": "array", "minItems": 1, "maxItems": 10, "items": text("mrkdwn", 3000)
                        })),
                    ] } }
                }
            } }
        }
    })
}

/// <https://developer.pagerduty.com/docs/send-alert-event>.
fn pagerduty_schema() -> Value {
    json!({
        "type": "object", "required": ["routing_key", "event_action", "dedup_key", "payload"],
        "additionalProperties": false,
        "properties": {
            "routing_key": { "type": "string", "minLength": 32, "maxLength": 32 },
            "event_action": { "enum": ["trigger", "acknowledge", "resolve"] },
            "dedup_key": { "type": "string", "minLength": 1, "maxLength": 255 },
            "client": { "type": "string" },
            "client_url": { "type": "string", "minLength": 1 },
            "payload": {
                "type": "object", "required": ["summary", "source", "severity"], "additionalProperties": false,
                "properties": {
                    "summary": { "type": "string", "minLength": 1, "maxLength": 1024 },
                    "source": { "type": "string", "minLength": 1 },
                    "severity": { "enum": ["critical", "error", "warning", "info"] },
                    "timestamp": {
                        "type": "string", "pattern": "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d(\\.\\d+)?Z$"
                    },
                    "component": { "type": "string" },
                    "custom_details": { "type": "object" }
                }
            }
        }
    })
}

fn check(schema: &Value, body: &Value) {
    let problems: Vec<_> =
        jsonschema::validator_for(schema).unwrap().iter_errors(body).map(|error| error.to_string()).collect();
    assert!(problems.is_empty(), "{problems:#?}\n{body:#}");
}

/// Returns what a receiver sends for each type of notification.
async fn bodies(channel: impl Fn(&str) -> Channel) -> Vec<(&'static str, Value)> {
    let stub = Stub::always(Answer::status(202)).await;
    let mut test = notification(vec![alert(Status::Firing, "a")]);
    test.why = NotificationReason::Test;
    test.alerts[0].test = true;
    let mut digest = nasty();
    digest.why = NotificationReason::Digest;
    digest.group_key = "*".to_owned();
    digest.group_labels = labels([]);
    let empty = Notification { why: NotificationReason::Digest, truncated_alerts: 7, ..notification(vec![]) };
    let cases = [
        ("firing", notification(vec![alert(Status::Firing, "a")])),
        ("resolved", notification(vec![alert(Status::Resolved, "a"), alert(Status::Resolved, "b")])),
        ("mixed", notification(vec![alert(Status::Firing, "a"), alert(Status::Resolved, "b")])),
        ("nasty", nasty()),
        ("digest", digest),
        ("empty", empty),
        ("test", test),
    ];
    let mut bodies = Vec::new();
    for (number, (name, told)) in cases.into_iter().enumerate() {
        assert_eq!(send(&receiver(channel(&stub.url())), &told).await, Outcome::Delivered, "{name}");
        let body = stub.requests()[number].json();
        assert!(body.to_string().len() < 512 * 1024, "{name} exceeds the size limit of an event");
        bodies.push((name, body));
    }
    bodies
}

#[tokio::test]
async fn slack_takes_every_message() {
    let bodies = bodies(|url| Channel::Slack(Slack { url: Secret::new(url) })).await;
    for (name, body) in &bodies {
        println!("{name}");
        check(&slack_schema(), body);
    }
    let body = |wanted| &bodies.iter().find(|(name, _)| *name == wanted).unwrap().1;
    let firing = body("firing");
    assert_eq!(firing["text"], "[FIRING] execution-failure-rate (acme, a)");
    assert_eq!(firing["attachments"][0]["color"], "#a30200");
    assert_eq!(body("resolved")["text"], "[RESOLVED] execution-failure-rate: 2 alerts, 0 firing");
    assert_eq!(body("resolved")["attachments"][0]["color"], "#2eb886");
    assert_eq!(body("mixed")["text"], "[FIRING] execution-failure-rate: 2 alerts, 1 firing");
    assert_eq!(body("test")["text"], "[TEST] execution-failure-rate (acme, a)");
    let nasty = body("nasty").to_string();
    assert!(!nasty.contains("<!channel>") && !nasty.contains("<script>"), "foreign text must be escaped");
    assert!(nasty.contains("&lt;!channel&gt; &amp;"), "escaped text must stay readable");
    assert!(nasty.contains("63 more are not listed"), "alerts that are left out must be counted");
}

#[tokio::test]
async fn pagerduty_takes_every_event() {
    let channel = |url: &str| {
        let routing_key = Secret::new("0123456789abcdef0123456789abcdef");
        Channel::Pagerduty(Pagerduty { routing_key, url: url.to_owned() })
    };
    let (bodies, again) = (bodies(channel).await, bodies(channel).await);
    for (name, body) in &bodies {
        println!("{name}");
        check(&pagerduty_schema(), body);
    }
    let body = |wanted| &bodies.iter().find(|(name, _)| *name == wanted).unwrap().1;
    for (name, action) in [("firing", "trigger"), ("mixed", "trigger"), ("resolved", "resolve"), ("nasty", "trigger")] {
        assert_eq!(body(name)["event_action"], action, "{name}");
    }
    assert_eq!(body("firing")["dedup_key"], body("resolved")["dedup_key"], "firing and resolved must share a key");
    assert_ne!(body("firing")["dedup_key"], body("nasty")["dedup_key"], "different groups must have different keys");
    assert_eq!(body("firing")["payload"]["severity"], "critical");
    assert_eq!(body("firing")["payload"]["source"], "acme");
    assert_eq!(body("nasty")["payload"]["custom_details"]["alerts_left_out"], 63);
    for ((name, body), (_, again)) in bodies.iter().zip(&again) {
        assert_eq!(body["dedup_key"], again["dedup_key"], "{name}");
    }
}

#[tokio::test]
async fn severities_are_those_of_the_other_side() {
    let stub = Stub::always(Answer::status(202)).await;
    let routing_key = Secret::new("0123456789abcdef0123456789abcdef");
    let receiver = receiver(Channel::Pagerduty(Pagerduty { routing_key, url: stub.url() }));
    for (number, (ours, theirs)) in
        [("critical", "critical"), ("warning", "warning"), ("info", "info"), ("own", "info")].into_iter().enumerate()
    {
        let mut quiet = alert(Status::Firing, "a");
        quiet.severity = ours.to_owned();
        let mut over = alert(Status::Resolved, "b");
        over.severity = "critical".to_owned();
        send(&receiver, &notification(vec![over, quiet])).await;
        assert_eq!(stub.requests()[number].json()["payload"]["severity"], theirs, "a resolved alert must not count");
    }
}
