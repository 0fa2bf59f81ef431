//! Receivers after the configuration was checked: addresses are well-formed, and all secrets are set.

use std::time::Duration;

use runtime::config::Secret;

/// A receiver: a name and one channel.
#[derive(Debug, Clone)]
pub struct Receiver {
    /// The name, unique.
    pub name: String,
    /// The channel.
    pub channel: Channel,
    /// Whether it is notified when an alert resolves.
    pub send_resolved: bool,
}

/// A channel for notifications.
#[derive(Debug, Clone)]
pub enum Channel {
    /// HTTP, with the body of Alertmanager's webhooks and the signature of Standard Webhooks.
    Webhook(Webhook),
    /// The API of an Alertmanager.
    Alertmanager(Alertmanager),
    /// Incoming webhooks of Slack.
    Slack(Slack),
    /// The Events API v2 of PagerDuty.
    Pagerduty(Pagerduty),
    /// Mail by SMTP.
    Email(Email),
    /// A NATS subject.
    Nats(Nats),
    /// A dead man's switch: pinged while the pipeline works. The service behind it raises an alarm when pings stop.
    Heartbeat(Heartbeat),
}

/// See [`Channel::Webhook`].
#[derive(Debug, Clone)]
pub struct Webhook {
    /// The URL to POST to. It can hold secrets, so only its host is ever shown.
    pub url: Secret,
    /// Signs the body, if set.
    pub secret: Option<Secret>,
    /// The maximum number of alerts in one body, as Alertmanager's `max_alerts`; 0 for no limit.
    pub max_alerts: usize,
}

/// See [`Channel::Alertmanager`].
#[derive(Debug, Clone)]
pub struct Alertmanager {
    /// The base URL.
    pub url: Secret,
    /// How often a firing alert is sent again, because Alertmanager resolves alerts that are not repeated.
    pub refresh: Duration,
}

/// See [`Channel::Slack`].
#[derive(Debug, Clone)]
pub struct Slack {
    /// The webhook URL, which is itself a secret.
    pub url: Secret,
}

/// See [`Channel::Pagerduty`].
#[derive(Debug, Clone)]
pub struct Pagerduty {
    /// The integration key.
    pub routing_key: Secret,
    /// The endpoint for events; changed for tests and proxies.
    pub url: String,
}

/// See [`Channel::Email`].
#[derive(Debug, Clone)]
pub struct Email {
    /// `smtp://host:port` or `smtps://host:port`. With `smtp`, STARTTLS is used if the server offers it, and is
    /// required unless the host is loopback.
    pub server: String,
    /// The user name, if authentication is needed.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// The sender's address.
    pub from: String,
    /// The recipients' addresses.
    pub to: Vec<String>,
}

/// See [`Channel::Nats`].
#[derive(Debug, Clone)]
pub struct Nats {
    /// The subject; `None` for `<prefix>.alerts.<organization>.<rule>`.
    pub subject: Option<String>,
}

/// See [`Channel::Heartbeat`].
#[derive(Debug, Clone)]
pub struct Heartbeat {
    /// The URL to ping.
    pub url: Secret,
}
