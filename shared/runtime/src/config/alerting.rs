//! Alerts and health, as the file writes them. What rules, receivers and routes mean together is checked by the
//! crate `alerting`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Config, Ratio};

/// How alerts are evaluated and delivered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Alerts {
    /// How often everything is evaluated, whether anything was counted or not.
    #[serde(with = "humantime_serde")]
    pub tick: Duration,
    /// After so much quiet what was counted is evaluated,
    #[serde(with = "humantime_serde")]
    pub debounce: Duration,
    /// and after so long in any case.
    #[serde(with = "humantime_serde")]
    pub debounce_at_most: Duration,
    /// Groups of a rule at the most. Records of more are left out, and counted.
    pub max_groups: usize,
    /// Notifications a minute to a receiver; what is more goes into a digest.
    pub storm_after: u32,
    /// For how long a delivery is tried again before it is given up, kept and shown.
    #[serde(with = "humantime_serde")]
    pub deliver_within: Duration,
    /// How long a receiver may take to answer.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// How often a canary goes through the pipeline, where a heartbeat receiver waits for it.
    #[serde(with = "humantime_serde")]
    pub canary_every: Duration,
    /// How long it may take.
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
    /// How far back it looks.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// Degraded when a larger share of its executions failed.
    pub degraded_above: Ratio,
    /// Failing when a larger share of its executions failed.
    pub failing_above: Ratio,
    /// Below so many executions only a share that leaves no doubt counts.
    pub min_samples: u64,
    /// Silent when nothing was heard of it for so long.
    #[serde(with = "humantime_serde")]
    pub silent_after: Duration,
    /// A container is degraded when its average CPU usage is above, in percent of one core.
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

/// A rule: what is watched, and when it is too much.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name, unique.
    pub name: String,
    /// `executions`, `audit`, `errors`, `events`, `metrics`, `logs`, or `ingest` for how far their writing is behind.
    pub source: String,
    /// Which records count as failures, such as `success == false`.
    pub failed_when: Option<String>,
    /// The level that is measured, such as `avg(cpu_usage_percent)`.
    pub value: Option<String>,
    /// It fires when a group was heard of, and then not for so long.
    #[serde(default, with = "humantime_serde")]
    pub silent_for: Option<Duration>,
    /// It fires when a group is seen that was never seen before,
    #[serde(default)]
    pub first_seen: bool,
    /// or not for so long.
    #[serde(default, with = "humantime_serde")]
    pub forget_after: Option<Duration>,
    /// The count is compared with that of the same window so long ago.
    #[serde(default, with = "humantime_serde")]
    pub compared_with: Option<Duration>,
    /// Which records count at all, by label.
    #[serde(default, rename = "where")]
    pub filter: BTreeMap<String, String>,
    /// One alert for each value of these labels.
    #[serde(default)]
    pub group_by: Vec<String>,
    /// How far back it looks.
    #[serde(default, with = "humantime_serde")]
    pub window: Option<Duration>,
    /// Above this it fires: a share (`30%`), a count (`100`), a rate (`5/s`), a level (`90`) or a time (`30s`).
    pub threshold: Option<String>,
    /// Below so many records it does not judge.
    pub min_samples: Option<u64>,
    /// How long the condition must hold before it fires.
    #[serde(default, rename = "for", with = "humantime_serde")]
    pub hold_for: Option<Duration>,
    /// Below this it recovers.
    pub recover_below: Option<String>,
    /// How long it must have recovered before it is over.
    #[serde(default, with = "humantime_serde")]
    pub keep_firing_for: Option<Duration>,
    /// `info`, `warning` or `critical`.
    pub severity: Option<String>,
    /// Added to the alert, and matched by routes.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Texts for people, with placeholders such as `{{ labels.strategy_id }}`.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// Which alert goes to whom.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Labels that must be equal; none matches all.
    #[serde(default, rename = "match")]
    pub matches: BTreeMap<String, String>,
    /// Labels that must match a regular expression as a whole.
    #[serde(default)]
    pub match_re: BTreeMap<String, String>,
    /// Names of receivers.
    pub to: Vec<String>,
    /// Alerts that agree in these labels share a notification.
    pub group_by: Option<Vec<String>>,
    /// How long a notification waits for more alerts of its group.
    #[serde(default, with = "humantime_serde")]
    pub group_wait: Option<Duration>,
    /// After how long an alert that still fires is told again.
    #[serde(default, with = "humantime_serde")]
    pub repeat_interval: Option<Duration>,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MINUTE: Duration = Duration::from_secs(60);
/// A group takes some kilobytes: this many are as much as a process may take for one rule.
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
            "longer than `debounce_at_most`, so it would never be waited for",
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
            "between 1m and 30d: what is older is no news",
        );
        check(
            (short..=MINUTE).contains(&alerts.request_timeout),
            "alerts.request_timeout",
            "between 100ms and 1m: what comes after in a group waits for it",
        );
        check((short..=DAY).contains(&alerts.canary_every), "alerts.canary_every", "between 100ms and 1d");
        check((short..=DAY).contains(&alerts.canary_within), "alerts.canary_within", "between 100ms and 1d");
        let health = &self.health;
        check((MINUTE..=DAY).contains(&health.window), "health.window", "between 1m and 24h, which is kept in memory");
        check(
            health.degraded_above <= health.failing_above,
            "health.degraded_above",
            "above `failing_above`, so nothing would ever be degraded",
        );
        check(
            health.failing_above < Ratio::percent(100),
            "health.failing_above",
            "below 100%: more than all cannot fail",
        );
        check(health.min_samples > 0, "health.min_samples", "at least 1: no executions are no share");
        check((MINUTE..=DAY).contains(&health.silent_after), "health.silent_after", "between 1m and 24h");
        check(
            health.cpu_degraded_percent.is_finite() && health.cpu_degraded_percent > 0.0,
            "health.cpu_degraded_percent",
            "above 0",
        );
    }
}
