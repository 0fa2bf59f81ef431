//! The receivers: each file is one, and does one try.

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

/// One try to deliver one notification.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'n> {
    /// The notification's id, the same at each try.
    pub id: Uuid,
    /// What is told.
    pub notification: &'n Notification,
    /// When it was written, the same at each try.
    pub created_at: DateTime<Utc>,
    /// How long ago that was, by the clock of whoever wrote it.
    pub age: Duration,
    /// When this try is made.
    pub now: DateTime<Utc>,
}

/// What the receivers need to reach anybody. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sender {
    http: Http,
    bus: Option<Bus>,
    timeout: Duration,
    external_url: String,
}

impl Sender {
    /// Reaches NATS by `bus`, gives up a try after `timeout`, and tells receivers that Watchbook's page is at
    /// `external_url` (empty where there is none).
    pub fn new(bus: Option<Bus>, timeout: Duration, external_url: impl Into<String>) -> Self {
        Self { http: Http::new(), bus, timeout, external_url: external_url.into() }
    }

    /// Tries once to deliver. Ends within the time-out, whatever the receiver does.
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

/// A body as it goes out. What cannot be serialized now never can.
fn json(body: &impl serde::Serialize) -> Result<Vec<u8>, Outcome> {
    serde_json::to_vec(body).map_err(|error| Outcome::give_up(format!("the body cannot be written as JSON: {error}")))
}
