//! HTTP with Alertmanager's webhook body, version 4, signed according to Standard Webhooks.
//!
//! Body: <https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>, with the fields of
//! `template.Data`: <https://prometheus.io/docs/alerting/latest/notifications/>. Signature:
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.

use alerting::notification::{Alert, Labels, Status};
use alerting::receiver::Webhook;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use hmac::{Hmac, KeyInit, Mac};
use runtime::config::Secret;
use serde::Serialize;
use sha2::Sha256;

use crate::http::Call;
use crate::outcome::Outcome;
use crate::receivers::{Delivery, json};
use crate::text;

/// Go's zero time, which means "not ended" in a version 4 body.
const NOT_YET: &str = "0001-01-01T00:00:00Z";
/// Optional prefix of a Standard Webhooks secret.
const SECRET_PREFIX: &str = "whsec_";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'d> {
    version: &'static str,
    group_key: &'d str,
    truncated_alerts: u64,
    status: &'static str,
    receiver: &'d str,
    group_labels: &'d Labels,
    common_labels: Labels,
    common_annotations: Labels,
    #[serde(rename = "externalURL")]
    external_url: &'d str,
    alerts: Vec<BodyAlert<'d>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BodyAlert<'d> {
    status: &'static str,
    labels: &'d Labels,
    annotations: Labels,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: &'d str,
    fingerprint: String,
}

pub(super) fn call(settings: &Webhook, delivery: Delivery<'_>, external_url: &str) -> Result<Call, Outcome> {
    let body = json(&body(settings.max_alerts, delivery, external_url))?;
    let (id, timestamp) = (delivery.id.to_string(), delivery.now.timestamp().to_string());
    let signature = settings.secret.as_ref().map(|secret| sign(secret, &id, &timestamp, &body)).transpose()?;
    let mut call =
        Call::post(settings.url.reveal(), body)?.header("webhook-id", id).header("webhook-timestamp", timestamp);
    if let (Some(signature), Some(secret)) = (signature, &settings.secret) {
        call =
            call.hiding(secret.reveal()).hiding(bare(secret)).hiding(&signature).header("webhook-signature", signature);
    }
    Ok(call)
}

/// Builds the body. It does not depend on the time of the attempt, so every attempt sends the same bytes.
fn body<'d>(max_alerts: usize, delivery: Delivery<'d>, external_url: &'d str) -> Body<'d> {
    let notification = delivery.notification;
    let listed = if max_alerts == 0 { notification.alerts.len() } else { max_alerts };
    let alerts: Vec<_> = notification.alerts.iter().take(listed).collect();
    let annotations: Vec<Labels> = alerts.iter().map(|alert| annotations(alert)).collect();
    Body {
        version: "4",
        group_key: &notification.group_key,
        truncated_alerts: text::left_out(notification, listed),
        // The status of all alerts, including those left out, as Alertmanager does.
        status: text::status(notification.status()),
        receiver: &notification.receiver,
        group_labels: &notification.group_labels,
        common_labels: common(alerts.iter().map(|alert| &alert.labels)),
        common_annotations: common(annotations.iter()),
        external_url,
        alerts: alerts
            .iter()
            .zip(&annotations)
            .map(|(alert, annotations)| BodyAlert {
                status: text::status(alert.status),
                labels: &alert.labels,
                annotations: annotations.clone(),
                starts_at: time(alert.starts_at),
                ends_at: match (alert.status, alert.ends_at) {
                    (Status::Resolved, Some(end)) => time(end),
                    (Status::Resolved, None) => time(delivery.created_at),
                    (Status::Firing, _) => NOT_YET.to_owned(),
                },
                generator_url: external_url,
                fingerprint: format!("{:016x}", fingerprint(&alert.labels)),
            })
            .collect(),
    }
}

/// Returns the annotations of an alert with its reason, and with `test` for a test alert.
pub(super) fn annotations(alert: &Alert) -> Labels {
    let mut annotations = alert.annotations.clone();
    annotations.entry("reason".to_owned()).or_insert_with(|| alert.reason.clone());
    if alert.test {
        annotations.insert("test".to_owned(), "true".to_owned());
    }
    annotations
}

/// Returns the labels that all sets have in common, or none if there are no sets.
fn common<'l>(mut sets: impl Iterator<Item = &'l Labels>) -> Labels {
    let mut common = sets.next().cloned().unwrap_or_default();
    for set in sets {
        common.retain(|name, value| set.get(name) == Some(value));
    }
    common
}

/// Computes the label set fingerprint of Prometheus and Alertmanager: FNV-1a over the sorted names and values, each
/// followed by 0xff, <https://github.com/prometheus/common/blob/main/model/fnv.go>. So alerts from here can be
/// joined with alerts from there.
fn fingerprint(labels: &Labels) -> u64 {
    const OFFSET: u64 = 14_695_981_039_346_656_037;
    const PRIME: u64 = 1_099_511_628_211;
    let texts = labels.iter().flat_map(|(name, value)| [name, value]);
    let bytes = texts.flat_map(|text| text.bytes().chain([0xff]));
    bytes.fold(OFFSET, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(PRIME))
}

pub(super) fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

fn bare(secret: &Secret) -> &str {
    secret.reveal().strip_prefix(SECRET_PREFIX).unwrap_or(secret.reveal())
}

fn sign(secret: &Secret, id: &str, timestamp: &str, body: &[u8]) -> Result<String, Outcome> {
    let key = STANDARD.decode(bare(secret)).unwrap_or_else(|_| bare(secret).as_bytes().to_vec());
    let mut mac = Hmac::<Sha256>::new_from_slice(&key)
        .map_err(|_| Outcome::give_up("the webhook secret cannot be used as a signing key".to_owned()))?;
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    Ok(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}
