//! Settings of alerts and health. The crate `alerting` parses rules, receivers and routes, and checks them together.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Config, Ratio};

/// How alerts are evaluated and delivered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Alerts {
    /// Interval at which all rules are evaluated, with or without new records.
    #[serde(with = "humantime_serde")]
    pub tick: Duration,
    /// New records are evaluated as soon as no more have arrived for this time.
    #[serde(with = "humantime_serde")]
    pub debounce: Duration,
    /// The longest time that new records wait for `debounce`.
    #[serde(with = "humantime_serde")]
    pub debounce_at_most: Duration,
    /// Maximum groups of a rule. Records of further groups are left out and counted.
    pub max_groups: usize,
    /// Notifications per minute to a receiver for people (Slack, email). Further ones are sent as a digest.
    pub storm_after: u32,
    /// How long a failed delivery is retried before it is given up, kept and shown.
    #[serde(with = "humantime_serde")]
    pub deliver_within: Duration,
    /// Time limit for a receiver's response.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// Interval at which a canary is sent through the pipeline, if there is a heartbeat receiver.
    #[serde(with = "humantime_serde")]
    pub canary_every: Duration,
    /// Time limit for a canary.
    #[serde(with = "humantime_serde")]
    pub canary_within: Duration,
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            tick: Duration::from_secs(1),
            debounce: Duration::from_millis(150),
            debounce_at_most: Duration::from_millis(400),
            max_groups: 10_000,
            storm_after: 10,
            deliver_within: DAY,
            request_timeout: Duration::from_secs(10),
            canary_every: Duration::from_secs(60),
            canary_within: Duration::from_secs(30),
        }
    }
}

/// When a strategy, a project, a container or an organization counts as healthy.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthThresholds {
    /// Length of the window of executions.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// An entity is degraded if a larger share of its executions failed.
    pub degraded_above: Ratio,
    /// An entity is failing if a larger share of its executions failed.
    pub failing_above: Ratio,
    /// Below this number of executions, a share counts only if its 95 % interval is above the threshold.
    pub min_samples: u64,
    /// An entity is silent after this time without records.
    #[serde(with = "humantime_serde")]
    pub silent_after: Duration,
    /// A container is degraded if its average CPU usage is above this, in percent of one core.
    pub cpu_degraded_percent: f64,
}

impl Default for HealthThresholds {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(60 * 60),
            degraded_above: Ratio::percent(10),
            failing_above: Ratio::percent(30),
            min_samples: 10,
            silent_after: Duration::from_secs(15 * 60),
            cpu_degraded_percent: 90.0,
        }
    }
}

/// An alert rule: a source, a condition and the alert's labels.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Unique name.
    pub name: String,
    /// `executions`, `audit`, `errors`, `events`, `metrics`, `logs`, or `ingest` for the lag of their writers.
    pub source: String,
    /// The condition under which a record counts as failed, such as `success == false`.
    pub failed_when: Option<String>,
    /// The level that is measured, such as `avg(cpu_usage_percent)`.
    pub value: Option<String>,
    /// Fires if a group had records, and then none for this time.
    #[serde(default, with = "humantime_serde")]
    pub silent_for: Option<Duration>,
    /// Fires if a group appears for the first time, or after `forget_after` without records.
    #[serde(default)]
    pub first_seen: bool,
    /// The time without records after which `first_seen` treats a group as new.
    #[serde(default, with = "humantime_serde")]
    pub forget_after: Option<Duration>,
    /// Compares the count with that of the same window this long ago.
    #[serde(default, with = "humantime_serde")]
    pub compared_with: Option<Duration>,
    /// Only records with these labels count.
    #[serde(default, rename = "where")]
    pub filter: BTreeMap<String, String>,
    /// One alert for each combination of values of these labels.
    #[serde(default)]
    pub group_by: Vec<String>,
    /// Length of the window.
    #[serde(default, with = "humantime_serde")]
    pub window: Option<Duration>,
    /// Fires above this: a share (`30%`), a count (`100`), a rate (`5/s`), a level (`90`) or a time (`30s`).
    pub threshold: Option<String>,
    /// Below this number of records, a share fires only if its 95 % interval is above the threshold; the minimum count
    /// of a comparison.
    pub min_samples: Option<u64>,
    /// How long the condition must hold before the alert fires.
    #[serde(default, rename = "for", with = "humantime_serde")]
    pub hold_for: Option<Duration>,
    /// The alert recovers below this.
    pub recover_below: Option<String>,
    /// How long the alert must have recovered before it resolves.
    #[serde(default, with = "humantime_serde")]
    pub keep_firing_for: Option<Duration>,
    /// `info`, `warning` or `critical`.
    pub severity: Option<String>,
    /// Labels added to the alert; routes match by them.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Texts for people, with placeholders such as `{{ labels.strategy_id }}`.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// A route from alerts to receivers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Labels with the values that an alert must have. Empty matches every alert.
    #[serde(default, rename = "match")]
    pub matches: BTreeMap<String, String>,
    /// Labels with the regular expressions that must match the whole value.
    #[serde(default)]
    pub match_re: BTreeMap<String, String>,
    /// Names of receivers.
    pub to: Vec<String>,
    /// Alerts with the same values of these labels share a notification.
    pub group_by: Option<Vec<String>>,
    /// How long a notification waits for more alerts of its group.
    #[serde(default, with = "humantime_serde")]
    pub group_wait: Option<Duration>,
    /// Time after which a notification about a firing alert is repeated.
    #[serde(default, with = "humantime_serde")]
    pub repeat_interval: Option<Duration>,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MINUTE: Duration = Duration::from_secs(60);
/// The maximum of `max_groups`. A group takes some kilobytes, so this bounds the memory of one rule to some gigabytes.
const MAX_GROUPS: usize = 1_000_000;

impl Config {
    pub(super) fn alerting_problems(&self, problems: &mut Vec<(&'static str, String)>) {
        let mut check = |ok: bool, key: &'static str, problem: &str| {
            if !ok {
                problems.push((key, problem.to_owned()));
            }
        };
        let alerts = &self.alerts;
        let short = Duration::from_millis(100);
        check((short..=MINUTE).contains(&alerts.tick), "alerts.tick", "between 100ms and 1m");
        check(
            alerts.debounce <= alerts.debounce_at_most,
            "alerts.debounce",
            "longer than `debounce_at_most`, so it would have no effect",
        );
        check(
            alerts.debounce_at_most <= Duration::from_secs(10),
            "alerts.debounce_at_most",
            "at most 10s: every alert may wait for it",
        );
        check(
            (1..=MAX_GROUPS).contains(&alerts.max_groups),
            "alerts.max_groups",
            "between 1 and 1000000: each group of each rule takes some kilobytes of memory",
        );
        check(alerts.storm_after > 0, "alerts.storm_after", "at least 1");
        check(
            (MINUTE..=30 * DAY).contains(&alerts.deliver_within),
            "alerts.deliver_within",
            "between 1m and 30d: an older notification is of no use",
        );
        check(
            (short..=MINUTE).contains(&alerts.request_timeout),
            "alerts.request_timeout",
            "between 100ms and 1m: later notifications of the group wait for it",
        );
        check((short..=DAY).contains(&alerts.canary_every), "alerts.canary_every", "between 100ms and 1d");
        check((short..=DAY).contains(&alerts.canary_within), "alerts.canary_within", "between 100ms and 1d");
        let health = &self.health;
        check((MINUTE..=DAY).contains(&health.window), "health.window", "between 1m and 24h: the window is in memory");
        check(
            health.degraded_above <= health.failing_above,
            "health.degraded_above",
            "above `failing_above`, so nothing would ever be degraded",
        );
        check(
            health.failing_above < Ratio::percent(100),
            "health.failing_above",
            "below 100%: no larger share can fail",
        );
        check(health.min_samples > 0, "health.min_samples", "at least 1: zero executions have no share");
        check((MINUTE..=DAY).contains(&health.silent_after), "health.silent_after", "between 1m and 24h");
        check(
            health.cpu_degraded_percent.is_finite() && health.cpu_degraded_percent > 0.0,
            "health.cpu_degraded_percent",
            "above 0",
        );
    }
}
