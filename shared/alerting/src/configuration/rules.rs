//! Checks rules.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::TimeDelta;
use records::Kind;
use runtime::config::Rule as Written;

use super::checks::Form;
use super::{Problems, thresholds};
use crate::annotation;
use crate::labels::{self, ALERTNAME, SEVERITY};
use crate::rule::{Check, Rule, Severity, Source};
use crate::rule_engine::KIND;

/// The shortest window: windows are kept in memory by the minute.
const SHORTEST_WINDOW: Duration = Duration::from_secs(60);
const LONGEST_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);
/// The default of `keep_firing_for`.
const KEEP_FIRING_FOR: TimeDelta = TimeDelta::minutes(5);
const NEWS_WINDOW: TimeDelta = TimeDelta::hours(1);
/// The maximum length of a name, in bytes: it is a token of a subject.
const NAME_BYTES: usize = 64;

/// A rule whose check is in progress.
pub(super) struct Checked<'c> {
    pub(super) written: &'c Written,
    pub(super) number: usize,
    pub(super) problems: &'c mut Problems,
}

/// Returns the valid rules. Reports a problem for each of the others.
pub(super) fn check(written: &[Written], problems: &mut Problems) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for (number, rule) in written.iter().enumerate() {
        let before = problems.found.len();
        let mut checked = Checked { written: rule, number, problems };
        let rule = checked.rule();
        if let Some(earlier) = written.iter().take(number).position(|earlier| earlier.name == checked.written.name) {
            checked.problem("name", format!("the rule {} has the same name", earlier + 1));
        }
        if let Some(rule) = rule.filter(|_| problems.found.len() == before) {
            rules.push(rule);
        }
    }
    rules
}

/// Checks whether text is a valid name of a rule or a receiver: `[A-Za-z0-9_-]{1,64}`.
pub(super) fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

impl Checked<'_> {
    pub(super) fn problem(&mut self, key: &str, message: impl Into<String>) {
        self.problems.add(format!("rules.{}.{key}", self.number), message);
    }

    /// Returns the rule, or `None` if it has problems.
    fn rule(&mut self) -> Option<Rule> {
        let written = self.written;
        if !is_name(&written.name) {
            let name = &written.name;
            self.problem("name", format!("`{name}` cannot be a name: 1 to 64 of A-Z a-z 0-9 _ -, for subjects"));
        }
        let source = self.source();
        let form = Form::of(written);
        form.refuse_other_keys(self);
        let window = self.window(form);
        let filter = self.filter(source);
        let group_by = self.group_by(source, form);
        let severity = self.severity();
        self.labels(&group_by);
        let hold_for = self.bounded("for", written.hold_for).unwrap_or_default();
        let keep = self.bounded("keep_firing_for", written.keep_firing_for);
        self.annotations(&group_by);
        let check = source.and_then(|source| thresholds::check(self, source, form));
        if form == Form::FirstSeen && window.is_some_and(|window| hold_for >= window) {
            self.problem("for", "never reached: a group is new for one `window` only");
        }
        let keep_firing_for = keep.unwrap_or(match form {
            // A group that was seen again is not silent, and a group that is no longer new stays so.
            Form::Silence | Form::FirstSeen => TimeDelta::zero(),
            _ => KEEP_FIRING_FOR,
        });
        let (source, check) = (source?, check?);
        let window = match check {
            Check::Silence { after } => after,
            // The lag is measured now and has no window.
            Check::Lag { .. } => TimeDelta::minutes(1),
            _ => window?,
        };
        Some(Rule {
            name: written.name.clone(),
            source,
            check,
            filter,
            group_by,
            window,
            hold_for,
            keep_firing_for,
            severity,
            labels: written.labels.clone(),
            annotations: written.annotations.clone(),
        })
    }

    fn source(&mut self) -> Option<Source> {
        let name = &self.written.source;
        if name == "ingest" {
            return Some(Source::Ingest);
        }
        let kind = labels::watched_kinds().find(|kind| kind.name() == name);
        if kind.is_none() {
            let known: Vec<_> = labels::watched_kinds().map(|kind| format!("`{kind}`")).collect();
            self.problem("source", format!("unknown source `{name}`; there is {} and `ingest`", known.join(", ")));
        }
        kind.map(Source::Records)
    }

    fn window(&mut self, form: Form) -> Option<TimeDelta> {
        if !form.allows("window") {
            return None;
        }
        match self.written.window {
            None if form == Form::FirstSeen => Some(NEWS_WINDOW),
            None => {
                self.problem("window", "missing: how far back the rule looks, such as \"1h\"");
                None
            }
            Some(window) => self.minutes("window", window),
        }
    }

    /// Checks a duration of whole minutes for which figures are kept.
    pub(super) fn minutes(&mut self, key: &str, time: Duration) -> Option<TimeDelta> {
        if time < SHORTEST_WINDOW || !time.as_nanos().is_multiple_of(SHORTEST_WINDOW.as_nanos()) {
            self.problem(key, "whole minutes, at least one: records are counted by the minute");
            return None;
        }
        if time > LONGEST_WINDOW {
            self.problem(key, "at most 24h: the window of every group is kept in memory");
            return None;
        }
        TimeDelta::from_std(time).ok()
    }

    fn bounded(&mut self, key: &str, time: Option<Duration>) -> Option<TimeDelta> {
        let time = time?;
        if time > LONGEST_WINDOW {
            self.problem(key, "at most 24h");
            return None;
        }
        TimeDelta::from_std(time).ok()
    }

    fn filter(&mut self, source: Option<Source>) -> BTreeMap<String, String> {
        let mut filter = BTreeMap::new();
        let written = self.written;
        for (name, value) in &written.filter {
            let key = format!("where.{name}");
            let Some(Source::Records(kind)) = source else { continue };
            let Some(label) = self.label(kind, &key, name) else { continue };
            if labels::is_boolean(kind, label) && !matches!(value.as_str(), "true" | "false") {
                self.problem(&key, format!("`{name}` is \"true\" or \"false\", never `{value}`"));
            }
            if filter.insert(label.to_owned(), value.clone()).is_some() {
                self.problem(&key, format!("`{label}` is asked for twice"));
            }
        }
        filter
    }

    fn group_by(&mut self, source: Option<Source>, form: Form) -> Vec<String> {
        let kind = match source {
            Some(Source::Records(kind)) => kind,
            // There is always one group for each kind.
            Some(Source::Ingest) => return vec![KIND.to_owned()],
            None => return Vec::new(),
        };
        let written = self.written;
        let mut group_by = Vec::new();
        for name in &written.group_by {
            let Some(label) = self.label(kind, "group_by", name) else { continue };
            if group_by.iter().any(|known| known == label) {
                self.problem("group_by", format!("`{label}` stands there twice"));
            } else {
                group_by.push(label.to_owned());
            }
        }
        if form == Form::FirstSeen && written.group_by.is_empty() {
            self.problem("group_by", "missing: `first_seen` finds new values of these labels");
        }
        group_by
    }

    fn label(&mut self, kind: Kind, key: &str, name: &str) -> Option<&'static str> {
        let label = labels::canonical(kind, name);
        if label.is_none() {
            let known: Vec<_> = labels::labels_of(kind).map(|label| format!("`{label}`")).collect();
            self.problem(key, format!("{kind} have no label `{name}`; there is {}", known.join(", ")));
        }
        label
    }

    fn severity(&mut self) -> Severity {
        let Some(text) = &self.written.severity else { return Severity::default() };
        text.parse().unwrap_or_else(|problem: String| {
            self.problem("severity", problem);
            Severity::default()
        })
    }

    fn labels(&mut self, group_by: &[String]) {
        let written = self.written;
        for name in written.labels.keys() {
            let key = format!("labels.{name}");
            if !labels::is_label_name(name) {
                self.problem(&key, "a label's name has letters, digits and `_`, and does not begin with a digit");
            }
            if [ALERTNAME, SEVERITY].contains(&name.as_str()) || group_by.contains(name) {
                self.problem(&key, format!("alerts of this rule have a label `{name}` already"));
            }
        }
    }

    fn annotations(&mut self, group_by: &[String]) {
        let written = self.written;
        let labels: BTreeSet<String> = group_by
            .iter()
            .chain(written.labels.keys())
            .cloned()
            .chain([ALERTNAME.to_owned(), SEVERITY.to_owned()])
            .collect();
        for (name, template) in &written.annotations {
            if let Err(problem) = annotation::check(template, &labels) {
                self.problem(&format!("annotations.{name}"), problem);
            }
        }
    }
}
