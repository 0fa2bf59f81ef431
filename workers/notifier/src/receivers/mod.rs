//! The receivers, one per file. Each makes a single delivery attempt.

mod alertmanager;
mod email;
mod heartbeat;
mod nats;
mod pagerduty;
mod slack;
mod webhook;

use std::time::Duration;

use ::bus::Bus;
use alerting::notification::Notification;
use alerting::receiver::{Channel, Receiver};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::http::Http;
use crate::outcome::Outcome;

/// One attempt to deliver one notification.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'n> {
    /// The id of the notification, the same in every attempt.
    pub id: Uuid,
    /// The content to deliver.
    pub notification: &'n Notification,
    /// When the notification was created, the same in every attempt.
    pub created_at: DateTime<Utc>,
    /// The age of the notification, by the clock of the database.
    pub age: Duration,
    /// The time of this attempt.
    pub now: DateTime<Utc>,
}

/// The clients that receivers use. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sender {
    http: Http,
    bus: Option<Bus>,
    timeout: Duration,
    external_url: String,
}

impl Sender {
    /// Builds a sender that publishes on `bus` and aborts an attempt after `timeout`. `external_url` is the URL of
    /// Watchbook's page, or empty.
    pub fn new(bus: Option<Bus>, timeout: Duration, external_url: impl Into<String>) -> Self {
        Self { http: Http::new(), bus, timeout, external_url: external_url.into() }
    }

    /// Makes one attempt to deliver. Returns within the timeout.
    pub async fn send(&self, receiver: &Receiver, delivery: Delivery<'_>) -> Outcome {
        match tokio::time::timeout(self.timeout, self.dispatch(&receiver.channel, delivery)).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::retry(format!("no answer within {} s", self.timeout.as_secs_f64())),
        }
    }

    async fn dispatch(&self, channel: &Channel, delivery: Delivery<'_>) -> Outcome {
        let url = &self.external_url;
        let call = match channel {
            Channel::Webhook(settings) => webhook::call(settings, delivery, url),
            Channel::Alertmanager(settings) => alertmanager::call(settings, delivery, url),
            Channel::Slack(settings) => slack::call(settings, delivery, url),
            Channel::Pagerduty(settings) => pagerduty::call(settings, delivery, url),
            Channel::Heartbeat(settings) => heartbeat::call(settings, delivery),
            Channel::Email(settings) => return email::send(settings, delivery, url).await,
            Channel::Nats(settings) => return nats::send(settings, self.bus.as_ref(), delivery).await,
        };
        match call {
            Ok(call) => self.http.send(call).await,
            Err(outcome) => outcome,
        }
    }
}

/// Serializes a request body. A failure is permanent.
fn json(body: &impl serde::Serialize) -> Result<Vec<u8>, Outcome> {
    serde_json::to_vec(body).map_err(|error| Outcome::give_up(format!("cannot serialize the body as JSON: {error}")))
}
