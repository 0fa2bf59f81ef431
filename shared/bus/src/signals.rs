//! Signals: messages without data that wake other workers up. Delivery is not guaranteed.
//!
//! The work itself is in Postgres. A signal only shortens the time until a worker polls, and workers also poll without
//! signals. So a lost signal only costs time.

use std::time::Duration;

use async_nats::Subscriber;
use async_nats::connection::State;
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::Bus;

/// Time between attempts to subscribe. A client that accepts no subscription has ended, and another task replaces it.
const RESUBSCRIBE_EVERY: Duration = Duration::from_secs(1);

impl Bus {
    /// Publishes the signal `<prefix>.signals.<name>`. Never waits: the signal is lost if there is no connection or the
    /// client's queue is full, as it is without subscribers.
    pub fn raise(&self, name: &str) {
        let client = self.client();
        // The client would buffer it until the outage ends, and block when its queue is full.
        if client.connection_state() != State::Connected {
            return;
        }
        let subject = self.signal_subject(name);
        let sent = tokio::task::unconstrained(client.publish(subject, Bytes::new())).now_or_never();
        match sent {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::debug!(name, %error, "a signal is lost"),
            None => tracing::debug!(name, "a signal is lost: the client's queue is full"),
        }
    }

    /// Subscribes to the signal `name`, or to all signals with `*`. Earlier signals are not received.
    pub async fn signals(&self, name: &str) -> Signals {
        let subject = self.signal_subject(name);
        let mut signals = Signals { bus: self.clone(), subject, subscriber: None, reconnects: self.reconnects() };
        signals.subscribe().await;
        signals
    }

    fn signal_subject(&self, name: &str) -> String {
        format!("{}.signals.{name}", self.prefix)
    }
}

/// A subscription to signals. It survives broken connections and replaced clients.
#[derive(Debug)]
pub struct Signals {
    bus: Bus,
    subject: String,
    subscriber: Option<Subscriber>,
    /// A change means that the subscription may belong to a connection or a client that has ended.
    reconnects: watch::Receiver<u64>,
}

impl Signals {
    /// The signal after a commit that added rows to the outbox.
    pub const OUTBOX: &str = "outbox";

    /// Returns the name of the next signal. Never returns `None`: it is an option so that it can replace the `next` of
    /// a stream. Cancel-safe: dropping the future loses no signal.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            let Some(subscriber) = &mut self.subscriber else {
                tokio::select! {
                    _ = self.reconnects.changed() => {}
                    () = sleep(RESUBSCRIBE_EVERY) => {}
                }
                self.subscribe().await;
                continue;
            };
            tokio::select! {
                message = subscriber.next() => match message {
                    Some(message) => {
                        let start = self.bus.prefix.len() + ".signals.".len();
                        return Some(message.subject.get(start..).unwrap_or_default().to_owned());
                    }
                    None => self.subscriber = None,
                },
                _ = self.reconnects.changed() => self.subscribe().await,
            }
        }
    }

    /// Replaces the subscription. The new one starts before the old one ends, so there is no gap.
    async fn subscribe(&mut self) {
        self.reconnects.mark_unchanged();
        self.subscriber = match self.bus.client().subscribe(self.subject.clone()).await {
            Ok(subscriber) => Some(subscriber),
            Err(error) => {
                tracing::debug!(subject = self.subject, %error, "cannot subscribe to signals; trying again");
                None
            }
        };
    }
}
