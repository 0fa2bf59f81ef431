//! Checks replayed events as Watchbook's own writers will.

use bus::Bus;
use chrono::{TimeDelta, Utc};
use publisher::Encoded;
use records::{Kind, Message, Reject};
use runtime::Config;

use super::target;

/// The checks of the writers that read the target subject. Events that they would dead-letter are not sent.
#[derive(Debug)]
pub(super) struct Precheck {
    prefix: String,
    stream: String,
    keep: Option<TimeDelta>,
}

impl Precheck {
    /// Returns the checks for a subject; `None` if it is not one of Watchbook's own.
    ///
    /// # Errors
    /// As [`target::organization`].
    pub(super) fn of(config: &Config, bus: &Bus, subject: &str) -> anyhow::Result<Option<Self>> {
        if target::organization(subject, bus.prefix())?.is_none() {
            return Ok(None);
        }
        let keep = config.retention.keep.of(Kind::Events.name()).duration();
        Ok(Some(Self {
            prefix: bus.prefix().to_owned(),
            stream: bus.stream_name(Kind::Events),
            keep: keep.and_then(|keep| TimeDelta::from_std(keep).ok()),
        }))
    }

    /// Checks whether the writers would store the message.
    ///
    /// # Errors
    /// The reason why it would become a dead letter.
    pub(super) fn check(&self, message: &Encoded) -> Result<(), Reject> {
        let message = Message {
            kind: Kind::Events,
            prefix: &self.prefix,
            subject: message.subject(),
            stream: &self.stream,
            sequence: 0,
            published_at: Utc::now(),
            headers: message.headers(),
            body: message.body(),
        };
        records::encode(&message, self.keep, &mut Vec::new()).map(drop)
    }
}
