//! Checks routes: each can match an alert and has existing receivers.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::TimeDelta;
use runtime::Config;
use runtime::config::Route as Written;

use super::Problems;
use crate::labels::{self, ALERTNAME, SEVERITY};
use crate::matcher::{Matcher, Operation};
use crate::receiver::{Channel, Receiver};
use crate::routing::{REPEAT_INTERVAL, Route, default_group_by};
use crate::rule::{Rule, Severity};
use crate::rule_engine::KIND;

const SHORTEST_REPEAT: Duration = Duration::from_secs(1);
const LONGEST_REPEAT: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// The longest `group_wait`: a notification that waits longer comes too late.
const LONGEST_WAIT: Duration = Duration::from_secs(10 * 60);

struct Checked<'c> {
    config: &'c Config,
    rules: &'c [Rule],
    receivers: &'c [Receiver],
    /// Every label that an alert can have.
    labels: BTreeSet<String>,
    problems: &'c mut Problems,
}

/// Returns the valid routes. Reports a problem for each of the others.
pub(super) fn check(config: &Config, rules: &[Rule], receivers: &[Receiver], problems: &mut Problems) -> Vec<Route> {
    let of_kinds = labels::watched_kinds().flat_map(labels::labels_of).map(str::to_owned);
    let of_rules = config.rules.iter().flat_map(|rule| rule.labels.keys().cloned());
    let own = [ALERTNAME, SEVERITY, KIND].map(str::to_owned);
    let labels = of_kinds.chain(of_rules).chain(own).collect();
    let mut checked = Checked { config, rules, receivers, labels, problems };
    let mut routes = Vec::new();
    let mut catches_all = None;
    for (number, written) in config.routes.iter().enumerate() {
        if let Some(earlier) = catches_all {
            checked.problem(number, "to", format!("never taken: the route {earlier} before it catches all"));
        }
        if written.matches.is_empty() && written.match_re.is_empty() {
            catches_all = catches_all.or(Some(number + 1));
        }
        routes.extend(checked.route(number, written));
    }
    routes
}

impl Checked<'_> {
    fn problem(&mut self, number: usize, key: &str, message: impl Into<String>) {
        self.problems.add(format!("routes.{number}.{key}"), message);
    }

    fn route(&mut self, number: usize, written: &Written) -> Option<Route> {
        let mut matchers = Vec::new();
        let equal = written.matches.iter().map(|(name, value)| ("match", Operation::Equal, name, value));
        let regex = written.match_re.iter().map(|(name, value)| ("match_re", Operation::Matches, name, value));
        for (table, operation, name, value) in equal.chain(regex) {
            let key = format!("{table}.{name}");
            let Some(label) = self.label(number, &key, name) else { continue };
            if operation == Operation::Equal {
                self.check_value(number, &key, &label, value);
            }
            match Matcher::new(label, operation, value) {
                Ok(matcher) => matchers.push(matcher),
                Err(error) => self.problem(number, &key, error.to_string()),
            }
        }
        let group_by = match &written.group_by {
            Some(names) => names.iter().filter_map(|name| self.label(number, "group_by", name)).collect(),
            None => default_group_by(),
        };
        let to = self.receivers_of(number, written);
        let repeat_interval = match written.repeat_interval {
            Some(time) if !(SHORTEST_REPEAT..=LONGEST_REPEAT).contains(&time) => {
                self.problem(number, "repeat_interval", "between 1s and 366d");
                return None;
            }
            Some(time) => TimeDelta::from_std(time).ok()?,
            None => REPEAT_INTERVAL,
        };
        let group_wait = written.group_wait.unwrap_or_default();
        if group_wait > LONGEST_WAIT {
            self.problem(number, "group_wait", "at most 10m: every alert waits for it");
            return None;
        }
        Some(Route { matchers, to, group_by, group_wait: TimeDelta::from_std(group_wait).ok()?, repeat_interval })
    }

    /// Resolves a name, with or without `_id`, to a label.
    fn label(&mut self, number: usize, key: &str, name: &str) -> Option<String> {
        let exact = self.labels.get(name);
        let label = exact.or_else(|| self.labels.iter().find(|label| labels::is_named(label, name))).cloned();
        if label.is_none() {
            let known: Vec<_> = self.labels.iter().map(|label| format!("`{label}`")).collect();
            self.problem(number, key, format!("no alert has a label `{name}`; there is {}", known.join(", ")));
        }
        label
    }

    /// Checks the values of labels whose possible values are all known.
    fn check_value(&mut self, number: usize, key: &str, label: &str, value: &str) {
        match label {
            SEVERITY => {
                if let Err(problem) = value.parse::<Severity>() {
                    self.problem(number, key, problem);
                }
            }
            // A rule with a problem of its own must not cause a second one here.
            ALERTNAME => {
                let is_written = self.config.rules.iter().any(|rule| rule.name == value);
                if !is_written && !self.rules.iter().any(|rule| rule.name == value) {
                    self.problem(number, key, format!("no rule is called `{value}`"));
                }
            }
            _ => {}
        }
    }

    fn receivers_of(&mut self, number: usize, written: &Written) -> Vec<String> {
        if written.to.is_empty() {
            self.problem(number, "to", "names no receiver");
        }
        let mut to: Vec<String> = Vec::new();
        for name in &written.to {
            if !self.config.receivers.iter().any(|receiver| receiver.name == *name) {
                let known: Vec<_> = self.config.receivers.iter().map(|known| format!("`{}`", known.name)).collect();
                let known = if known.is_empty() {
                    "there is none".to_owned()
                } else {
                    format!("there is {}", known.join(", "))
                };
                self.problem(number, "to", format!("no receiver has the name `{name}`; {known}"));
            }
            let is_heartbeat = |receiver: &Receiver| matches!(receiver.channel, Channel::Heartbeat(_));
            if self.receivers.iter().any(|receiver| receiver.name == *name && is_heartbeat(receiver)) {
                self.problem(number, "to", format!("`{name}` is a heartbeat, which receives no alerts"));
            }
            if !to.contains(name) {
                to.push(name.clone());
            }
        }
        to
    }
}
