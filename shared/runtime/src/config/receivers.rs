//! Settings of receivers.
//!
//! Secrets are in the environment: keys that end in `_env` name the variable.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

/// A receiver of notifications: a name, and exactly one of the types below.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receiver {
    /// Unique name.
    pub name: String,
    /// Whether it is notified that an alert resolved.
    #[serde(default = "yes")]
    pub send_resolved: bool,
    /// A webhook.
    pub webhook: Option<Webhook>,
    /// An Alertmanager.
    pub alertmanager: Option<Alertmanager>,
    /// A Slack channel.
    pub slack: Option<Slack>,
    /// A PagerDuty service.
    pub pagerduty: Option<Pagerduty>,
    /// Email addresses.
    pub email: Option<Email>,
    /// A NATS subject.
    pub nats: Option<Nats>,
    /// A dead man's switch, pinged while canaries pass the pipeline in time.
    pub heartbeat: Option<Heartbeat>,
}

const fn yes() -> bool {
    true
}

/// A webhook that receives the body of Alertmanager's webhooks.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// The URL to POST to.
    pub url: Option<SecretUrl>,
    /// The environment variable with the `url`.
    pub url_env: Option<String>,
    /// The environment variable with the secret that signs bodies, as Standard Webhooks specifies.
    pub secret_env: Option<String>,
    /// Maximum alerts in one body; 0 for all.
    #[serde(default)]
    pub max_alerts: usize,
}

/// An Alertmanager, reached by its API.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alertmanager {
    /// The base URL.
    pub url: Option<SecretUrl>,
    /// The environment variable with the `url`.
    pub url_env: Option<String>,
    /// Interval at which a firing alert is sent again, because Alertmanager resolves alerts that are not repeated.
    #[serde(default = "refresh", with = "humantime_serde")]
    pub refresh: Duration,
}

/// A fifth of Alertmanager's default `resolve_timeout`, after which it resolves an alert.
const fn refresh() -> Duration {
    Duration::from_secs(60)
}

/// An incoming webhook of Slack.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slack {
    /// The webhook's URL, which is a secret.
    pub url: Option<SecretUrl>,
    /// The environment variable with the `url`.
    pub url_env: Option<String>,
}

/// A PagerDuty service, reached by the Events API v2.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pagerduty {
    /// The environment variable with the integration key.
    pub routing_key_env: String,
    /// The URL to send events to.
    #[serde(default = "pagerduty_url")]
    pub url: String,
}

fn pagerduty_url() -> String {
    "https://events.pagerduty.com/v2/enqueue".to_owned()
}

/// Email addresses, reached by SMTP.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Email {
    /// `smtp://host:port` for STARTTLS (optional on loopback), or `smtps://host:port` for TLS from the first byte.
    pub server: String,
    /// The recipients' addresses.
    pub to: Vec<String>,
    /// The sender's address.
    pub from: String,
    /// The user to sign in as, with `password_env`.
    pub user: Option<String>,
    /// The environment variable with the password of `user`.
    pub password_env: Option<String>,
}

/// A NATS subject.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nats {
    /// The subject. Default: `<prefix>.alerts.<organization>.<rule>`.
    pub subject: Option<String>,
}

/// A dead man's switch.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// The URL to ping.
    pub url: Option<SecretUrl>,
    /// The environment variable with the `url`.
    pub url_env: Option<String>,
}

/// A URL of which only scheme and host are shown, because its path, its parameters or its user may be secret.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// Wraps a URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// Returns the URL itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://") else { return f.write_str("***") };
        let (authority, path) = rest.find(['/', '?', '#']).map_or((rest, ""), |at| rest.split_at(at));
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let rest = if path.len() > 1 { "/***" } else { path };
        write!(f, "{scheme}://{host}{rest}")
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_url_only_the_host_is_shown() {
        for (url, shown) in [
            ("https://hooks.slack.com/services/T0/B0/secret", "https://hooks.slack.com/***"),
            ("https://me:secret@host:8443/", "https://host:8443/"),
            ("http://host", "http://host"),
            ("http://host?token=secret", "http://host/***"),
            ("http://host#secret", "http://host/***"),
            ("secret", "***"),
        ] {
            assert_eq!(SecretUrl::new(url).to_string(), shown);
            assert_eq!(format!("{:?}", SecretUrl::new(url)), shown);
        }
    }
}
