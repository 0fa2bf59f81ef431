//! A NATS subject: each alert is published as one JSON message.

use ::bus::{AnnounceError, Announcement, Bus};
use alerting::notification::{Alert, NotificationReason};
use alerting::receiver::Nats;
use serde::Serialize;
use uuid::Uuid;

use crate::outcome::Outcome;
use crate::receivers::{Delivery, json};

#[derive(Serialize)]
struct Message<'d> {
    /// Identifies this message together with the alert's id.
    notification_id: Uuid,
    group_key: &'d str,
    why: NotificationReason,
    #[serde(flatten)]
    alert: &'d Alert,
}

pub(super) async fn send(settings: &Nats, bus: Option<&Bus>, delivery: Delivery<'_>) -> Outcome {
    let Some(bus) = bus else {
        return Outcome::retry("no connection to NATS");
    };
    let notification = delivery.notification;
    let announcements = notification.alerts.iter().map(|alert| {
        let message =
            Message { notification_id: delivery.id, group_key: &notification.group_key, why: notification.why, alert };
        Ok(Announcement {
            subject: settings.subject.clone().unwrap_or_else(|| subject(bus.prefix(), alert)),
            id: format!("{}:{}", delivery.id, alert.id),
            body: json(&message)?.into(),
        })
    });
    let announcements = match announcements.collect::<Result<Vec<_>, Outcome>>() {
        Ok(announcements) => announcements,
        Err(outcome) => return outcome,
    };
    match bus.announce(announcements).await {
        Ok(()) => Outcome::Delivered,
        Err(error @ AnnounceError::Away(_)) => Outcome::retry(error.to_string()),
        Err(error @ AnnounceError::Refused { .. }) => Outcome::give_up(error.to_string()),
    }
}

fn subject(prefix: &str, alert: &Alert) -> String {
    format!("{prefix}.alerts.{}.{}", token(&alert.organization), token(&alert.rule))
}

/// Makes a text one valid subject token: replaces separators, wildcards and all characters that a server might
/// treat specially.
fn token(text: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' };
    if text.is_empty() { "_".to_owned() } else { text.chars().map(safe).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_cannot_become_two_or_a_wildcard() {
        for (text, expected) in
            [("acme", "acme"), ("a.b", "a_b"), ("*", "_"), (">", "_"), ("a b\r\n", "a_b__"), ("", "_")]
        {
            assert_eq!(token(text), expected);
        }
    }
}
