//! Signals: "look again", from one worker to all others, without data and without a promise to arrive.
//!
//! What there is to do stands in Postgres. A signal only spares a worker the wait for its next look, so a lost one
//! costs time and nothing else, and whoever waits for one looks by the clock as well.

use std::time::Duration;

use async_nats::Subscriber;
use async_nats::connection::State;
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::Bus;

/// A client that takes no subscription has ended; somebody else makes it anew, and this is how often we look.
const RESUBSCRIBE_EVERY: Duration = Duration::from_secs(1);

impl Bus {
    /// Raises the signal `<prefix>.signals.<name>`. Never waits: without a connection, or with a client that is
    /// behind, the signal is lost, as it would be with nobody listening.
    pub fn raise(&self, name: &str) {
        let client = self.client();
        // The client would keep it for the time after the outage, and block whoever fills its queue.
        if client.connection_state() != State::Connected {
            return;
        }
        let subject = self.signal_subject(name);
        let sent = tokio::task::unconstrained(client.publish(subject, Bytes::new())).now_or_never();
        match sent {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::debug!(name, %error, "a signal is lost"),
            None => tracing::debug!(name, "a signal is lost: the client has too much to send already"),
        }
    }

    /// Listens for the signal `name`, or for all of them by `*`. What was raised before is not heard.
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

/// Signals as they come. Outlives broken connections and clients that were made anew.
#[derive(Debug)]
pub struct Signals {
    bus: Bus,
    subject: String,
    subscriber: Option<Subscriber>,
    /// A change means that the subscription may hang on a connection or a client that is gone.
    reconnects: watch::Receiver<u64>,
}

impl Signals {
    /// Raised after a commit that put something into the outbox.
    pub const OUTBOX: &str = "outbox";

    /// The name of the next signal. Never `None`: an option only because it stands where the `next` of a stream
    /// would. May be dropped while it waits, and loses nothing by that.
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

    /// The new subscription is made before the old one goes, so that there is no gap between them.
    async fn subscribe(&mut self) {
        self.reconnects.mark_unchanged();
        self.subscriber = match self.bus.client().subscribe(self.subject.clone()).await {
            Ok(subscriber) => Some(subscriber),
            Err(error) => {
                tracing::debug!(subject = self.subject, %error, "cannot listen for signals; trying again");
                None
            }
        };
    }
}
