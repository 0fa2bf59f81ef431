//! Alertmanager: `POST /api/v2/alerts`.
//!
//! See <https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml>, `postableAlert`. Alertmanager
//! drops an alert at its `endsAt`, so the `endsAt` of a firing alert lies beyond two missed refreshes.

use std::collections::BTreeMap;

use alerting::notification::{Alert, Labels, Status};
use alerting::receiver::Alertmanager;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::http::Call;
use crate::outcome::Outcome;
use crate::receivers::{Delivery, json, webhook};

/// Number of refresh intervals until a firing alert ends. One refresh may be late and one lost.
const REFRESHES: i32 = 3;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Postable<'d> {
    labels: Labels,
    annotations: Labels,
    starts_at: String,
    ends_at: String,
    /// Left out when empty: the schema requires a URI.
    #[serde(rename = "generatorURL", skip_serializing_if = "str::is_empty")]
    generator_url: &'d str,
}

pub(super) fn call(settings: &Alertmanager, delivery: Delivery<'_>, external_url: &str) -> Result<Call, Outcome> {
    let refresh = TimeDelta::from_std(settings.refresh).unwrap_or(TimeDelta::days(1));
    let forget_at = delivery.now.checked_add_signed(refresh * REFRESHES).unwrap_or(DateTime::<Utc>::MAX_UTC);
    let alerts: Vec<_> = delivery
        .notification
        .alerts
        .iter()
        .map(|alert| Postable {
            labels: labels(alert),
            annotations: valid(&webhook::annotations(alert)),
            starts_at: webhook::time(alert.starts_at),
            ends_at: webhook::time(match alert.status {
                Status::Firing => forget_at,
                Status::Resolved => alert.ends_at.unwrap_or(delivery.created_at),
            }),
            generator_url: external_url,
        })
        .collect();
    let base = settings.url.reveal().trim_end_matches('/');
    Call::post(&format!("{base}/api/v2/alerts"), json(&alerts)?)
}

/// Returns the labels that identify the alert in Alertmanager. They are the same for firing and resolved.
fn labels(alert: &Alert) -> Labels {
    let mut labels = valid(&alert.labels);
    labels.entry("alertname".to_owned()).or_insert_with(|| alert.rule.clone());
    labels
}

/// Makes labels valid for every Prometheus version: names match `[a-zA-Z_][a-zA-Z0-9_]*`, and labels with an empty
/// value are left out because Prometheus treats them as missing. If two names become equal, the one that was valid
/// before is kept.
fn valid(labels: &Labels) -> Labels {
    let mut valid = BTreeMap::new();
    let (good, others): (Vec<_>, Vec<_>) = labels.iter().partition(|(name, _)| valid_name(name) == **name);
    for (name, value) in good.into_iter().chain(others) {
        if !value.is_empty() {
            valid.entry(valid_name(name)).or_insert_with(|| value.clone());
        }
    }
    valid
}

fn valid_name(name: &str) -> String {
    let mut valid: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if valid.starts_with(|c: char| c.is_ascii_digit()) || valid.is_empty() {
        valid.insert(0, '_');
    }
    valid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_become_those_that_prometheus_allows() {
        let labels: Labels =
            [("error.type", "a"), ("error_type", "b"), ("1st", "c"), ("", "d"), ("empty", ""), ("größe", "e")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into();
        let expected: Labels = [("error_type", "b"), ("_1st", "c"), ("_", "d"), ("gr__e", "e")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        assert_eq!(valid(&labels), expected);
    }
}
