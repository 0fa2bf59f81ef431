//! Alert rules, receivers and routes, as the file writes them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Config;

/// A rule: what is watched, and when it is too much.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name, unique.
    pub name: String,
    /// `executions`, `audit`, `errors`, `events`, `metrics` or `logs`.
    pub source: String,
    /// Which records count as failures, such as `success == false`.
    pub failed_when: Option<String>,
    /// Which records count at all, by field.
    #[serde(default, rename = "where")]
    pub filter: BTreeMap<String, String>,
    /// One alert for each value of these labels.
    #[serde(default)]
    pub group_by: Vec<String>,
    /// How far back it looks.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// Above this it fires: a share such as `30%`, or a number.
    pub threshold: String,
    /// Below so many records it does not judge.
    pub min_samples: Option<u64>,
    /// How long the condition must hold before it fires.
    #[serde(default, rename = "for", with = "humantime_serde")]
    pub hold_for: Option<Duration>,
    /// Below this it recovers.
    pub recover_below: Option<String>,
    /// How long it stays firing after it recovered.
    #[serde(default, with = "humantime_serde")]
    pub keep_firing_for: Option<Duration>,
    /// `info`, `warning` or `critical`.
    pub severity: Option<String>,
    /// Added to the alert, and matched by routes.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Text for people.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// Whom alerts go to: a name and one way to reach it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receiver {
    /// Its name, unique.
    pub name: String,
    /// By HTTP.
    pub webhook: Option<toml::Table>,
    /// To Slack.
    pub slack: Option<toml::Table>,
    /// To PagerDuty.
    pub pagerduty: Option<toml::Table>,
    /// By mail.
    pub email: Option<toml::Table>,
    /// To an Alertmanager.
    pub alertmanager: Option<toml::Table>,
    /// To a NATS subject.
    pub nats: Option<toml::Table>,
}

/// Which alert goes to whom.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Labels that must match; none matches all.
    #[serde(default, rename = "match")]
    pub matches: BTreeMap<String, String>,
    /// Names of receivers.
    pub to: Vec<String>,
    /// After how long an alert that still fires is told again.
    #[serde(default, with = "humantime_serde")]
    pub repeat_interval: Option<Duration>,
}

impl Config {
    pub(super) fn alerting_problems(&self, problems: &mut Vec<(&'static str, String)>) {
        for route in &self.routes {
            for name in &route.to {
                if !self.receivers.iter().any(|receiver| receiver.name == *name) {
                    problems.push(("routes", format!("a route goes to `{name}`, and no receiver has that name")));
                }
            }
        }
    }
}
