//! PagerDuty, Events API v2.
//!
//! See <https://developer.pagerduty.com/docs/events-api-v2-overview>. Each notification is one event, and each
//! group one incident.

use std::collections::BTreeMap;

use alerting::notification::Status;
use alerting::receiver::Pagerduty;
use serde::Serialize;
use serde_json::{Value, json as value};
use sha2::{Digest, Sha256};

use crate::http::Call;
use crate::outcome::Outcome;
use crate::receivers::{Delivery, json, webhook};
use crate::text::{self, clip};

/// PagerDuty's limit on `dedup_key`, in characters.
const KEY_CHARACTERS: usize = 255;
/// PagerDuty's limit on `payload.summary`, in characters.
const SUMMARY_CHARACTERS: usize = 1024;
/// Maximum length of one text among the details. An event is limited to 512 KB.
const DETAIL_CHARACTERS: usize = 2000;
/// The `client` field.
const CLIENT: &str = "Watchbook";

#[derive(Serialize)]
struct Event<'d> {
    routing_key: &'d str,
    event_action: &'static str,
    dedup_key: String,
    client: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    client_url: &'d str,
    payload: Payload,
}

#[derive(Serialize)]
struct Payload {
    summary: String,
    source: String,
    severity: &'static str,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    component: Option<String>,
    custom_details: BTreeMap<&'static str, Value>,
}

pub(super) fn call(settings: &Pagerduty, delivery: Delivery<'_>, external_url: &str) -> Result<Call, Outcome> {
    let notification = delivery.notification;
    let first = notification.alerts.first();
    let event = Event {
        routing_key: settings.routing_key.reveal(),
        event_action: match notification.status() {
            Status::Firing => "trigger",
            Status::Resolved => "resolve",
        },
        dedup_key: dedup_key(&notification.receiver, &notification.group_key),
        client: CLIENT,
        client_url: external_url,
        payload: Payload {
            summary: clip(&text::headline(notification), SUMMARY_CHARACTERS),
            source: first
                .map(|alert| alert.organization.clone())
                .filter(|name| !name.is_empty() && name != "_")
                .unwrap_or_else(|| CLIENT.to_owned()),
            severity: severity(text::severity(notification)),
            timestamp: webhook::time(delivery.created_at),
            component: first.map(|alert| alert.rule.clone()),
            custom_details: details(delivery),
        },
    };
    Ok(Call::post(&settings.url, json(&event)?)?.hiding(settings.routing_key.reveal()))
}

/// Returns the receiver and the group key if they fit, so that people recognise them, or else a hash. All summaries of
/// alert storms (group `*`) of a receiver share one incident.
fn dedup_key(receiver: &str, group_key: &str) -> String {
    let key = format!("watchbook/{receiver}/{group_key}");
    if key.chars().count() <= KEY_CHARACTERS {
        return key;
    }
    let sum: String = Sha256::digest(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("watchbook/{sum}")
}

/// Maps a severity to one of the four that PagerDuty accepts.
fn severity(ours: &str) -> &'static str {
    match ours {
        "critical" => "critical",
        "error" => "error",
        "warning" => "warning",
        _ => "info",
    }
}

fn details(delivery: Delivery<'_>) -> BTreeMap<&'static str, Value> {
    let notification = delivery.notification;
    let shown = notification.alerts.iter().take(text::ALERTS_SHOWN).map(|alert| {
        value!({
            "status": text::status(alert.status),
            "alert": text::name(alert),
            "reason": clip(&alert.reason, DETAIL_CHARACTERS),
            "labels": alert.labels,
            "annotations": alert.annotations.iter().map(|(name, text)| (name, clip(text, DETAIL_CHARACTERS))).collect::<BTreeMap<_, _>>(),
            "starts_at": webhook::time(alert.starts_at),
            "ends_at": alert.ends_at.map(webhook::time),
        })
    });
    let mut details = BTreeMap::from([
        ("alerts", Value::Array(shown.collect())),
        ("group", value!(notification.group_labels)),
        ("notification", value!(delivery.id)),
    ]);
    let left_out = text::left_out(notification, text::ALERTS_SHOWN);
    if left_out > 0 {
        details.insert("alerts_left_out", value!(left_out));
    }
    details
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_fit_and_stay_apart() {
        assert_eq!(dedup_key("ops", "rate/acme"), "watchbook/ops/rate/acme");
        let (one, other) = ("x".repeat(300), "x".repeat(301));
        assert!(dedup_key("ops", &one).len() <= KEY_CHARACTERS);
        assert_eq!(dedup_key("ops", &one), dedup_key("ops", &one));
        assert_ne!(dedup_key("ops", &one), dedup_key("ops", &other));
    }
}
