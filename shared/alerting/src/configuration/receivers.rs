//! Checks receivers: each has exactly one channel, and all secrets are set.

use std::time::Duration;

use runtime::Config;
use runtime::config::{Receiver as Written, Secret, SecretUrl};

use super::Problems;
use super::addresses::{check_subject, check_url, is_mail_address};
use super::rules::is_name;
use crate::receiver::{Alertmanager, Channel, Email, Heartbeat, Nats, Pagerduty, Receiver, Slack, Webhook};

const HTTP: &[&str] = &["http", "https"];
const SMTP: &[&str] = &["smtp", "smtps"];
/// The longest refresh interval: Alertmanager resolves an alert after five minutes without an update.
const LONGEST_REFRESH: Duration = Duration::from_secs(4 * 60);
const SHORTEST_REFRESH: Duration = Duration::from_secs(1);

struct Checked<'c> {
    written: &'c Written,
    number: usize,
    prefix: &'c str,
    environment: &'c dyn Fn(&str) -> Option<String>,
    problems: &'c mut Problems,
}

/// Returns the valid receivers. Reports a problem for each of the others.
pub(super) fn check(
    config: &Config,
    environment: &dyn Fn(&str) -> Option<String>,
    problems: &mut Problems,
) -> Vec<Receiver> {
    let mut receivers = Vec::new();
    for (number, written) in config.receivers.iter().enumerate() {
        let prefix = config.nats.prefix.as_str();
        let mut checked = Checked { written, number, prefix, environment, problems };
        if !is_name(&written.name) {
            let name = &written.name;
            checked.problem("name", format!("`{name}` cannot be a name: 1 to 64 of A-Z a-z 0-9 _ -"));
        }
        if config.receivers.iter().take(number).any(|earlier| earlier.name == written.name) {
            checked.problem("name", format!("another receiver is called `{}`", written.name));
        }
        if let Some(channel) = checked.channel() {
            receivers.push(Receiver { name: written.name.clone(), channel, send_resolved: written.send_resolved });
        }
    }
    receivers
}

impl Checked<'_> {
    fn problem(&mut self, key: &str, message: impl Into<String>) {
        self.problems.add(format!("receivers.{}.{key}", self.number), message);
    }

    fn channel(&mut self) -> Option<Channel> {
        let written = self.written;
        let ways = [
            written.webhook.is_some(),
            written.alertmanager.is_some(),
            written.slack.is_some(),
            written.pagerduty.is_some(),
            written.email.is_some(),
            written.nats.is_some(),
            written.heartbeat.is_some(),
        ];
        if ways.iter().filter(|way| **way).count() != 1 {
            let ways = "`webhook`, `alertmanager`, `slack`, `pagerduty`, `email`, `nats` and `heartbeat`";
            self.problem("name", format!("`{}` needs exactly one of {ways}", written.name));
            return None;
        }
        if let Some(webhook) = &written.webhook {
            let url = self.url("webhook", webhook.url.as_ref(), webhook.url_env.as_ref());
            let secret = webhook.secret_env.as_ref().map(|name| self.variable("webhook.secret_env", name));
            let secret = match secret {
                Some(secret) => Some(Secret::new(secret?)),
                None => None,
            };
            return Some(Channel::Webhook(Webhook { url: url?, secret, max_alerts: webhook.max_alerts }));
        }
        if let Some(alertmanager) = &written.alertmanager {
            if !(SHORTEST_REFRESH..=LONGEST_REFRESH).contains(&alertmanager.refresh) {
                self.problem("alertmanager.refresh", "between 1s and 4m: Alertmanager resolves an alert after 5m");
            }
            let url = self.url("alertmanager", alertmanager.url.as_ref(), alertmanager.url_env.as_ref())?;
            return Some(Channel::Alertmanager(Alertmanager { url, refresh: alertmanager.refresh }));
        }
        if let Some(slack) = &written.slack {
            let url = self.url("slack", slack.url.as_ref(), slack.url_env.as_ref())?;
            return Some(Channel::Slack(Slack { url }));
        }
        if let Some(pagerduty) = &written.pagerduty {
            self.check_url("pagerduty.url", &pagerduty.url, HTTP);
            let key = self.variable("pagerduty.routing_key_env", &pagerduty.routing_key_env)?;
            return Some(Channel::Pagerduty(Pagerduty { routing_key: Secret::new(key), url: pagerduty.url.clone() }));
        }
        if let Some(email) = &written.email {
            return self.email(email);
        }
        if let Some(nats) = &written.nats {
            let wrong = nats.subject.as_ref().and_then(|subject| check_subject(subject, self.prefix).err());
            if let Some(wrong) = wrong {
                self.problem("nats.subject", wrong);
            }
            return Some(Channel::Nats(Nats { subject: nats.subject.clone() }));
        }
        let heartbeat = written.heartbeat.as_ref()?;
        let url = self.url("heartbeat", heartbeat.url.as_ref(), heartbeat.url_env.as_ref())?;
        Some(Channel::Heartbeat(Heartbeat { url }))
    }

    fn email(&mut self, email: &runtime::config::receivers::Email) -> Option<Channel> {
        self.check_url("email.server", &email.server, SMTP);
        if email.to.is_empty() {
            self.problem("email.to", "names nobody");
        }
        let wrong = email.to.iter().map(|to| ("email.to", to)).chain([("email.from", &email.from)]);
        for (key, address) in wrong.filter(|(_, address)| !is_mail_address(address)) {
            self.problem(key, format!("`{}` is no mail address", address.escape_debug()));
        }
        if email.user.is_some() != email.password_env.is_some() {
            let key = if email.user.is_some() { "email.user" } else { "email.password_env" };
            self.problem(key, "`user` and `password_env` go together");
        }
        let password = match &email.password_env {
            Some(name) => Some(Secret::new(self.variable("email.password_env", name)?)),
            None => None,
        };
        Some(Channel::Email(Email {
            server: email.server.clone(),
            user: email.user.clone(),
            password,
            from: email.from.clone(),
            to: email.to.clone(),
        }))
    }

    /// Returns the URL that is set directly or held by a variable.
    fn url(&mut self, way: &str, url: Option<&SecretUrl>, variable: Option<&String>) -> Option<Secret> {
        let (key, url) = match (url, variable) {
            (Some(url), None) => (format!("{way}.url"), url.reveal().to_owned()),
            (None, Some(name)) => {
                let key = format!("{way}.url_env");
                let url = self.variable(&key, name)?;
                (key, url)
            }
            (Some(_), Some(_)) => {
                self.problem(&format!("{way}.url_env"), "set `url` or `url_env`, not both");
                return None;
            }
            (None, None) => {
                self.problem(&format!("{way}.url"), "missing: `url`, or `url_env` with the name of a variable");
                return None;
            }
        };
        self.check_url(&key, &url, HTTP);
        Some(Secret::new(url))
    }

    // The URL itself is never part of a problem: it can be a secret.
    fn check_url(&mut self, key: &str, url: &str, schemes: &[&str]) {
        if let Err(problem) = check_url(url, schemes) {
            self.problem(key, problem);
        }
    }

    fn variable(&mut self, key: &str, name: &str) -> Option<String> {
        let value = (self.environment)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        if value.is_none() {
            self.problem(key, format!("the environment variable `{name}` is not set, or empty"));
        }
        value
    }
}
