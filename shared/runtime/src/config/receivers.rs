//! Whom alerts go to, as the file writes it.
//!
//! A secret is in the environment: what ends in `_env` names the variable.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

/// Whom alerts go to: a name and one way to reach it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receiver {
    /// Its name, unique.
    pub name: String,
    /// Whether it is told that an alert is over.
    #[serde(default = "yes")]
    pub send_resolved: bool,
    /// By HTTP.
    pub webhook: Option<Webhook>,
    /// To an Alertmanager.
    pub alertmanager: Option<Alertmanager>,
    /// To Slack.
    pub slack: Option<Slack>,
    /// To PagerDuty.
    pub pagerduty: Option<Pagerduty>,
    /// By mail.
    pub email: Option<Email>,
    /// To a NATS subject.
    pub nats: Option<Nats>,
    /// A dead man's switch that is pinged while everything works.
    pub heartbeat: Option<Heartbeat>,
}

const fn yes() -> bool {
    true
}

/// By HTTP, with the body of Alertmanager's webhooks.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Where to POST.
    pub url: Option<SecretUrl>,
    /// The variable that holds `url`.
    pub url_env: Option<String>,
    /// The variable with the secret that signs bodies, as Standard Webhooks has it.
    pub secret_env: Option<String>,
    /// Alerts in one body at the most; 0 for all.
    #[serde(default)]
    pub max_alerts: usize,
}

/// To the API of an Alertmanager.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alertmanager {
    /// Its base URL.
    pub url: Option<SecretUrl>,
    /// The variable that holds `url`.
    pub url_env: Option<String>,
    /// How often a firing alert is told again: an Alertmanager forgets what is not repeated.
    #[serde(default = "refresh", with = "humantime_serde")]
    pub refresh: Duration,
}

/// A fifth of the time after which an Alertmanager counts an alert as over by default.
const fn refresh() -> Duration {
    Duration::from_secs(60)
}

/// To Slack's incoming webhooks.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slack {
    /// The webhook's URL, which is its secret.
    pub url: Option<SecretUrl>,
    /// The variable that holds `url`.
    pub url_env: Option<String>,
}

/// To PagerDuty's Events API v2.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pagerduty {
    /// The variable with the integration's key.
    pub routing_key_env: String,
    /// Where events go.
    #[serde(default = "pagerduty_url")]
    pub url: String,
}

fn pagerduty_url() -> String {
    "https://events.pagerduty.com/v2/enqueue".to_owned()
}

/// By mail.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Email {
    /// `smtp://host:port`, or `smtps://host:port` for TLS from the first byte.
    pub server: String,
    /// The recipients' addresses.
    pub to: Vec<String>,
    /// The sender's address.
    pub from: String,
    /// Who signs in.
    pub user: Option<String>,
    /// The variable with the password of `user`.
    pub password_env: Option<String>,
}

/// To a NATS subject.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nats {
    /// Instead of `<prefix>.alerts.<organization>.<rule>`.
    pub subject: Option<String>,
}

/// To a dead man's switch.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// What is pinged.
    pub url: Option<SecretUrl>,
    /// The variable that holds `url`.
    pub url_env: Option<String>,
}

/// A URL of which only scheme and host are shown: its path, its parameters or its user may be a secret.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// Wraps a URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The URL itself, for whoever has to use it.
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
