//! Whom alerts go to, checked: every address is one, every secret is there.

use std::time::Duration;

use runtime::config::Secret;

/// A receiver: a name and one way to reach it.
#[derive(Debug, Clone)]
pub struct Receiver {
    /// Its name, unique.
    pub name: String,
    /// How it is reached.
    pub channel: Channel,
    /// Whether it is told that an alert is over.
    pub send_resolved: bool,
}

/// A way to reach somebody.
#[derive(Debug, Clone)]
pub enum Channel {
    /// HTTP, with the body of Alertmanager's webhooks and the signature of Standard Webhooks.
    Webhook(Webhook),
    /// An Alertmanager's API.
    Alertmanager(Alertmanager),
    /// Slack's incoming webhooks.
    Slack(Slack),
    /// PagerDuty's Events API v2.
    Pagerduty(Pagerduty),
    /// Mail by SMTP.
    Email(Email),
    /// A NATS subject.
    Nats(Nats),
    /// A dead man's switch: pinged while everything works, and who runs it raises the alarm when no ping comes.
    Heartbeat(Heartbeat),
}

/// See [`Channel::Webhook`].
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Where to POST. May hold secrets, so it is shown nowhere but by its host.
    pub url: Secret,
    /// Signs the body where there is one.
    pub secret: Option<Secret>,
    /// Alerts in one body at the most, as Alertmanager's `max_alerts`; 0 for all.
    pub max_alerts: usize,
}

/// See [`Channel::Alertmanager`].
#[derive(Debug, Clone)]
pub struct Alertmanager {
    /// Its base URL.
    pub url: Secret,
    /// How often a firing alert is told again, because an Alertmanager forgets what is not repeated.
    pub refresh: Duration,
}

/// See [`Channel::Slack`].
#[derive(Debug, Clone)]
pub struct Slack {
    /// The webhook's URL, which is its secret.
    pub url: Secret,
}

/// See [`Channel::Pagerduty`].
#[derive(Debug, Clone)]
pub struct Pagerduty {
    /// The integration's key.
    pub routing_key: Secret,
    /// Where events go; another one for tests and proxies.
    pub url: String,
}

/// See [`Channel::Email`].
#[derive(Debug, Clone)]
pub struct Email {
    /// `smtp://host:port` (STARTTLS where the server offers it; required unless it is loopback) or `smtps://host:port`.
    pub server: String,
    /// Who signs in.
    pub user: Option<String>,
    /// With what.
    pub password: Option<Secret>,
    /// The sender's address.
    pub from: String,
    /// The recipients' addresses.
    pub to: Vec<String>,
}

/// See [`Channel::Nats`].
#[derive(Debug, Clone)]
pub struct Nats {
    /// Instead of `<prefix>.alerts.<organization>.<rule>`.
    pub subject: Option<String>,
}

/// See [`Channel::Heartbeat`].
#[derive(Debug, Clone)]
pub struct Heartbeat {
    /// What is pinged.
    pub url: Secret,
}
