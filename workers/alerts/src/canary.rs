//! The dead man's switch: a record goes through the whole pipeline, and only its arrival sends the ping.
//!
//! Runs only if a heartbeat receiver is configured. By default, a canary is published every minute, like any other
//! record. When its roll-up has reached the evaluation and its row can be read, both in time, each heartbeat receiver
//! gets a row in the outbox. If any part of the pipeline fails, there is no ping, and the service that expects it
//! raises an alarm.

use std::time::Duration;

use ::metrics::{counter, histogram};
use alerting::Alerting;
use alerting::notification::{Labels, Notification, NotificationReason};
use alerting::receiver::Channel;
use chrono::{DateTime, Utc};
use publisher::Publisher;
use records::rollup::CANARY_EVENT;
use records::{Event, Kind};
use store::PgConnection;
use store::enqueue::{self, NewNotification};
use store::rollups::StoredMinute;
use tokio::time::Instant;
use uuid::Uuid;

use crate::metrics;

/// A canary in flight.
#[derive(Debug)]
struct SentCanary {
    id: Uuid,
    created_at: DateTime<Utc>,
    at: Instant,
    /// Whether its roll-up has been seen.
    counted: bool,
}

/// Sends canaries and pings; see the module.
#[derive(Debug)]
pub(crate) struct Canary {
    publisher: Publisher,
    every: Duration,
    within: Duration,
    due: Instant,
    sent: Option<SentCanary>,
}

impl Canary {
    pub(crate) fn new(publisher: Publisher, every: Duration, within: Duration) -> Self {
        Self { publisher, every, within, due: Instant::now(), sent: None }
    }

    /// Publishes the next canary if it is due, and gives up one that is late.
    pub(crate) fn send(&mut self, alerting: &Alerting) {
        if heartbeats(alerting).next().is_none() {
            self.sent = None;
            return;
        }
        if self.sent.as_ref().is_some_and(|sent| sent.at.elapsed() > self.within) {
            counter!(metrics::CANARIES, "outcome" => "late").increment(1);
            tracing::warn!(within = ?self.within, "the canary did not come through in time; no heartbeat is sent");
            self.sent = None;
        }
        if Instant::now() < self.due || self.sent.is_some() {
            return;
        }
        self.due = Instant::now() + self.every;
        let mut outgoing = self.publisher.outgoing(Event { event_type: CANARY_EVENT.into(), ..Event::default() });
        outgoing.source = Some("watchbook".to_owned());
        self.sent =
            Some(SentCanary { id: outgoing.id, created_at: outgoing.created_at, at: Instant::now(), counted: false });
        let publisher = self.publisher.clone();
        tokio::spawn(async move {
            // A failure shows anyway: the canary does not arrive.
            if let Err(error) = publisher.publish_outgoing(&outgoing).await {
                tracing::debug!(%error, "the canary was not published");
            }
        });
    }

    /// Looks for the canary in new roll-ups.
    pub(crate) fn observe(&mut self, minute: &StoredMinute) {
        if let Some(sent) = &mut self.sent
            && minute.kind == Kind::Events
            && minute.groups.dictionary.iter().any(|word| word == CANARY_EVENT)
        {
            sent.counted = true;
        }
    }

    /// Enqueues the pings if the canary arrived in time: it was counted and evaluated, and its row is stored.
    ///
    /// # Errors
    /// Fails if Postgres does not answer.
    pub(crate) async fn ping(&mut self, connection: &mut PgConnection, alerting: &Alerting) -> store::Result<bool> {
        let Some(sent) = self.sent.as_ref().filter(|sent| sent.counted) else { return Ok(false) };
        if !store::batch::is_stored(connection, Kind::Events, sent.created_at, sent.id).await? {
            return Ok(false);
        }
        let took = sent.at.elapsed();
        self.sent = None;
        if took > self.within {
            counter!(metrics::CANARIES, "outcome" => "late").increment(1);
            return Ok(false);
        }
        counter!(metrics::CANARIES, "outcome" => "through").increment(1);
        histogram!(metrics::CANARY_SECONDS).record(took.as_secs_f64());
        for receiver in heartbeats(alerting) {
            let notification = Notification {
                receiver: receiver.to_owned(),
                group_key: "heartbeat".to_owned(),
                group_labels: Labels::new(),
                why: NotificationReason::Heartbeat,
                alerts: Vec::new(),
                truncated_alerts: 0,
                still_firing: 0,
            };
            let new = NewNotification {
                id: Uuid::now_v7(),
                receiver: receiver.to_owned(),
                group_key: notification.group_key.clone(),
                notification: serde_json::to_value(&notification).unwrap_or_default(),
                wait: Duration::ZERO,
            };
            enqueue::insert(connection, &new).await?;
        }
        Ok(true)
    }
}

fn heartbeats(alerting: &Alerting) -> impl Iterator<Item = &str> {
    let is_heartbeat = |channel: &Channel| matches!(channel, Channel::Heartbeat(_));
    alerting
        .receivers
        .iter()
        .filter(move |receiver| is_heartbeat(&receiver.channel))
        .map(|receiver| receiver.name.as_str())
}
