//! Notifications to send, and one receiver of each HTTP type.

use std::time::Duration;

use alerting::notification::{Alert, Labels, Notification, NotificationReason, Status};
use alerting::receiver::{Alertmanager, Channel, Heartbeat, Pagerduty, Receiver, Slack, Webhook};
use chrono::{DateTime, TimeDelta, Utc};
use notifier::Outcome;
use notifier::receivers::{Delivery, Sender};
use runtime::config::Secret;
use uuid::Uuid;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn labels<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// Rounds to whole milliseconds, the precision that all receivers keep.
pub(crate) fn minutes_ago(minutes: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis((Utc::now() - TimeDelta::minutes(minutes)).timestamp_millis()).unwrap()
}

pub(crate) fn alert(status: Status, strategy: &str) -> Alert {
    Alert {
        id: Uuid::new_v5(&Uuid::NAMESPACE_OID, strategy.as_bytes()),
        version: 1,
        status,
        rule: "execution-failure-rate".to_owned(),
        organization: "acme".to_owned(),
        severity: "critical".to_owned(),
        labels: labels([
            ("alertname", "execution-failure-rate"),
            ("severity", "critical"),
            ("organization", "acme"),
            ("strategy", strategy),
        ]),
        annotations: labels([("summary", "Executions of acme fail")]),
        reason: "31 of 100 failed, 31.0 %: above 30 %".to_owned(),
        starts_at: minutes_ago(5),
        ends_at: (status == Status::Resolved).then(|| minutes_ago(1)),
        test: false,
    }
}

pub(crate) fn notification(alerts: Vec<Alert>) -> Notification {
    let mut notification = Notification {
        receiver: "ops".to_owned(),
        group_key: "execution-failure-rate/acme".to_owned(),
        group_labels: labels([("organization", "acme")]),
        why: NotificationReason::Firing,
        alerts,
        truncated_alerts: 0,
        still_firing: 0,
    };
    if notification.status() == Status::Resolved {
        notification.why = NotificationReason::Resolved;
    }
    notification
}

/// A notification whose texts try to break out of every format.
pub(crate) fn nasty() -> Notification {
    let mut alert = alert(Status::Firing, "<!channel> & \"quotes\"\r\nBcc: everybody@example.com\u{0}\u{202e}");
    alert.reason = "<script>alert('&')</script> ".repeat(400);
    alert.annotations.insert("summary".to_owned(), "& ".repeat(4000));
    alert.labels.insert("1.not-a-name".to_owned(), "x".repeat(5000));
    alert.labels.insert("empty".to_owned(), String::new());
    let mut many: Vec<_> = (0..70).map(|n| super::table::alert(Status::Firing, &format!("strategy-{n}"))).collect();
    many.insert(0, alert);
    let mut notification = notification(many);
    notification.group_key = "k".repeat(600);
    notification.truncated_alerts = 12;
    notification
}

pub(crate) fn delivery(notification: &Notification) -> Delivery<'_> {
    let now = Utc::now();
    Delivery { id: Uuid::now_v7(), notification, created_at: now, age: Duration::ZERO, now }
}

pub(crate) fn receiver(channel: Channel) -> Receiver {
    Receiver { name: "ops".to_owned(), channel, send_resolved: true }
}

pub(crate) fn webhook(url: &str, secret: Option<&str>) -> Receiver {
    receiver(Channel::Webhook(Webhook { url: Secret::new(url), secret: secret.map(Secret::new), max_alerts: 0 }))
}

/// Returns one receiver of each HTTP type, with `secret` wherever the type has one.
pub(crate) fn all(host: &str, secret: &str) -> Vec<(&'static str, Receiver)> {
    let url = format!("http://us%20er:{secret}1@{host}/in/{secret}2?key={secret}3");
    vec![
        ("webhook", webhook(&url, Some(&format!("whsec_{secret}4")))),
        (
            "alertmanager",
            receiver(Channel::Alertmanager(Alertmanager {
                // The base URL cannot have a query.
                url: Secret::new(format!("http://us%20er:{secret}1@{host}/in/{secret}2/")),
                refresh: Duration::from_secs(60),
            })),
        ),
        ("slack", receiver(Channel::Slack(Slack { url: Secret::new(&url) }))),
        (
            "pagerduty",
            receiver(Channel::Pagerduty(Pagerduty {
                routing_key: Secret::new(format!("{secret}5")),
                url: format!("http://{host}/v2/enqueue"),
            })),
        ),
        ("heartbeat", receiver(Channel::Heartbeat(Heartbeat { url: Secret::new(&url) }))),
    ]
}

/// Makes one attempt with a new sender.
pub(crate) async fn send(receiver: &Receiver, notification: &Notification) -> Outcome {
    Sender::new(None, PATIENCE, "https://watchbook.example/").send(receiver, delivery(notification)).await
}
