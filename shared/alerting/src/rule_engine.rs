//! The rule engine: every rule with its groups, their figures and their states.
//!
//! Pure: the caller adds roll-ups, the engine proposes changes, and the caller applies those that it has committed. So
//! a test runs an hour in milliseconds, and a backtest is the real evaluation.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use records::Kind;
use records::rollup::ORGANIZATION;
use records::subject::NO_ORGANIZATION;
use uuid::Uuid;

use crate::evaluation::{Condition, State, Transition, evaluate};
use crate::notification::Labels;
use crate::rule::{Check, Rule, Source};
use crate::sample::Sample;
use crate::series::{Minute, Series, Shape};

/// How long rules on silence remember a group without records.
const SILENCE_LOOKBACK: TimeDelta = TimeDelta::hours(24);
/// The label of a rule on ingest that holds the kind.
pub const KIND: &str = "kind";

/// All rules with their groups; see the module.
#[derive(Debug)]
pub struct RuleEngine {
    rules: Vec<RuleState>,
    series: Vec<Series>,
    /// Windows of the past that spikes are compared with.
    baselines: Vec<Series>,
    lag: BTreeMap<Kind, Lag>,
    /// The kinds and distances whose past counts are known.
    known_baselines: BTreeSet<(Kind, TimeDelta)>,
}

/// How far the ingest of a kind is behind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lag {
    /// The age of the oldest record that is not written; `None` if unknown.
    pub behind: Option<TimeDelta>,
    /// Why the figures of this kind cannot be trusted now; `None` if they can.
    pub stale: Option<String>,
}

/// A rule with the state of each of its groups.
#[derive(Debug)]
struct RuleState {
    rule: Arc<Rule>,
    series: usize,
    /// For a rule on spikes: the same window in the past, as an index into `RuleEngine::baselines`.
    baseline: Option<usize>,
    /// For a rule on first-seen values: when each known group was first seen.
    known: Option<HashMap<Uuid, DateTime<Utc>>>,
    groups: Vec<GroupState>,
}

/// The state of a group, as last committed.
#[derive(Debug, Clone, Default)]
struct GroupState {
    state: State,
    first_seen_at: Option<DateTime<Utc>>,
}

/// A group of a rule. Valid until groups are forgotten or rules replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupRef {
    rule: usize,
    slot: usize,
}

/// A change of a group that an evaluation proposes.
#[derive(Debug, Clone)]
pub struct Change {
    /// The group.
    pub group: GroupRef,
    /// The state before.
    pub before: State,
    /// The state after.
    pub after: State,
    /// The change of the condition; `None` if only the data quality changed.
    pub transition: Option<Transition>,
    /// The figures behind the change.
    pub sample: Sample,
}

/// The groups to evaluate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Groups with new records since the last evaluation.
    Touched,
    /// All groups, because figures also change with time.
    All,
}

/// A new group, found by a rule on first-seen values.
#[derive(Debug, Clone)]
pub struct Discovery {
    /// The rule's name.
    pub rule: String,
    /// The id, derived from rule and labels.
    pub group: Uuid,
    /// The group's labels.
    pub labels: Labels,
    /// When it was found.
    pub at: DateTime<Utc>,
}

/// Returns the id of an alert, a UUID of version 5. It is derived from rule and labels and never changes.
pub fn alert_id(rule: &str, labels: &Labels) -> Uuid {
    /// The namespace of alert ids.
    const NAMESPACE: Uuid = Uuid::from_u128(0x7f1c_93a4_52d8_5b0e_a6c3_0e9d_41b7_82f5);
    let mut name = rule.to_owned();
    for (label, value) in labels {
        name.push('\n');
        name.push_str(label);
        name.push('=');
        // Escape line breaks, or a value could pass for another label.
        name.push_str(&value.replace('\\', "\\\\").replace('\n', "\\n"));
    }
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
}

impl RuleEngine {
    /// Creates an engine for these rules, with at most `max_groups` groups for each rule.
    pub fn new(rules: &[Arc<Rule>], max_groups: usize) -> Self {
        let mut engine = Self {
            rules: Vec::new(),
            series: Vec::new(),
            baselines: Vec::new(),
            lag: BTreeMap::new(),
            known_baselines: BTreeSet::new(),
        };
        for rule in rules {
            let series = engine.series_of(Shape::of(rule), max_groups);
            let baseline = matches!(rule.check, Check::Spike { .. }).then(|| {
                engine.baselines.push(Series::new(Shape::of(rule), max_groups));
                engine.baselines.len() - 1
            });
            let known = matches!(rule.check, Check::FirstSeen { .. }).then(HashMap::new);
            engine.rules.push(RuleState { rule: rule.clone(), series, baseline, known, groups: Vec::new() });
        }
        let ingest = engine.rules.iter().filter(|rule_state| rule_state.rule.source == Source::Ingest);
        for series in ingest.map(|rule_state| rule_state.series).collect::<Vec<_>>() {
            for kind in Kind::ALL {
                let labels = Labels::from([(KIND.to_owned(), kind.name().to_owned())]);
                if let Some(series) = engine.series.get_mut(series) {
                    series.slot_with(&labels);
                }
            }
        }
        engine
    }

    fn series_of(&mut self, shape: Shape, max_groups: usize) -> usize {
        self.series.iter().position(|series| *series.shape() == shape).unwrap_or_else(|| {
            self.series.push(Series::new(shape, max_groups));
            self.series.len() - 1
        })
    }

    /// Returns how far back the roll-ups of each kind have to be loaded for these rules.
    pub fn lookback(&self) -> BTreeMap<Kind, TimeDelta> {
        let mut lookback = BTreeMap::new();
        for rule_state in &self.rules {
            let Source::Records(kind) = rule_state.rule.source else { continue };
            let needs = rule_state.lookback();
            let known = lookback.entry(kind).or_insert(needs);
            *known = needs.max(*known);
        }
        lookback
    }

    /// Returns the past windows that spikes are compared with: for each kind and distance, the longest window.
    pub fn baselines(&self) -> Vec<(Kind, TimeDelta, TimeDelta)> {
        let mut found: Vec<(Kind, TimeDelta, TimeDelta)> = Vec::new();
        for rule_state in &self.rules {
            let (Source::Records(kind), Check::Spike { against, .. }) =
                (rule_state.rule.source, &rule_state.rule.check)
            else {
                continue;
            };
            match found.iter_mut().find(|(known, distance, _)| *known == kind && distance == against) {
                Some((_, _, window)) => *window = rule_state.rule.window.max(*window),
                None => found.push((kind, *against, rule_state.rule.window)),
            }
        }
        found
    }

    /// Adds roll-ups.
    pub fn add(&mut self, minute: Minute<'_>) {
        self.series.iter_mut().for_each(|series| series.add(minute));
    }

    /// Adds roll-ups that were written since the last evaluation.
    pub fn add_new(&mut self, minute: Minute<'_>, now: DateTime<Utc>) {
        self.series.iter_mut().for_each(|series| series.add_new(minute, now));
    }

    /// Adds roll-ups of the past to each series that still remembers their minute at `now`. When their records arrived
    /// is not known. They count as having arrived as late as possible, so that no alert fires only because a
    /// producer's clock is behind. Groups with an alert are the exception: see [`RuleEngine::restore`].
    pub fn add_past(&mut self, minute: Minute<'_>, now: DateTime<Utc>) {
        for number in 0..self.series.len() {
            if minute.minute + self.lookback_of(number) + TimeDelta::minutes(1) >= now {
                self.series[number].add_new(minute, now);
            }
        }
    }

    /// Returns how long a series remembers a group without records. A remembered group counts against `max_groups`.
    fn lookback_of(&self, series: usize) -> TimeDelta {
        let rules = self.rules.iter().filter(|rule_state| rule_state.series == series);
        rules.map(RuleState::lookback).max().unwrap_or(SILENCE_LOOKBACK)
    }

    /// Adds roll-ups from `distance` ago to the windows that spikes are compared with.
    pub fn add_baseline(&mut self, minute: Minute<'_>, distance: TimeDelta) {
        for rule_state in &self.rules {
            if let (Some(baseline), Check::Spike { against, .. }) = (rule_state.baseline, &rule_state.rule.check)
                && *against == distance
                && let Some(series) = self.baselines.get_mut(baseline)
            {
                series.add(Minute { minute: minute.minute + distance, ..minute });
            }
        }
    }

    /// Sets whether the counts of a kind in the windows `distance` ago are known. If they are not, missing counts must
    /// not be taken for zero.
    pub fn set_baseline_known(&mut self, kind: Kind, distance: TimeDelta, is_known: bool) {
        if is_known {
            self.known_baselines.insert((kind, distance));
        } else {
            self.known_baselines.remove(&(kind, distance));
        }
    }

    /// Sets how far the ingest of a kind is behind.
    pub fn set_lag(&mut self, kind: Kind, lag: Lag) {
        self.lag.insert(kind, lag);
    }

    /// Returns how far the ingest of a kind is behind.
    pub fn lag(&self, kind: Kind) -> Option<&Lag> {
        self.lag.get(&kind)
    }

    /// Replaces the groups that a rule on first-seen values knows. Groups that were not seen for a long time are new
    /// again.
    pub fn set_known_groups(&mut self, rule: &str, groups: impl IntoIterator<Item = (Uuid, DateTime<Utc>)>) {
        let rule_state = self.rules.iter_mut().find(|rule_state| rule_state.rule.name == rule);
        if let Some(known) = rule_state.and_then(|rule_state| rule_state.known.as_mut()) {
            *known = groups.into_iter().collect();
        }
    }

    /// Returns the groups of a rule on first-seen values that were seen since a time.
    pub fn groups_seen_since(&self, rule: &str, since: DateTime<Utc>) -> Vec<Discovery> {
        let Some(rule_state) = self.rules.iter().find(|rule_state| rule_state.rule.name == rule) else {
            return Vec::new();
        };
        let Some(series) = self.series.get(rule_state.series) else { return Vec::new() };
        let heard = series.slots().filter(|slot| series.last_minute(*slot) >= Some(since)).filter_map(|slot| {
            let at = rule_state.groups.get(slot)?.first_seen_at?;
            let labels = series.labels(slot);
            Some(Discovery { rule: rule.to_owned(), group: alert_id(rule, &labels), labels, at })
        });
        heard.collect()
    }

    /// Restores the state of an alert's group after rules were loaded. The group then counts as last seen in the last
    /// minute of its records: a reload is not a sign of life. Returns `None` if the rules no longer have this alert.
    pub fn restore(&mut self, id: Uuid, rule: &str, labels: &Labels, state: State) -> Option<GroupRef> {
        let number = self.rules.iter().position(|rule_state| rule_state.rule.name == rule)?;
        let rule_state = self.rules.get_mut(number)?;
        let series = self.series.get_mut(rule_state.series)?;
        let group: Labels =
            series.shape().group_by.iter().filter_map(|name| Some((name.clone(), labels.get(name)?.clone()))).collect();
        // A rule with another `group_by` has other alerts.
        if alert_id(rule, &group) != id {
            return None;
        }
        let slot = series.slot_with(&group)?;
        if state.condition != Condition::Inactive {
            series.forget_arrival(slot);
        }
        rule_state.group_state(slot).state = state;
        Some(GroupRef { rule: number, slot })
    }

    /// Returns the rule of a group.
    pub fn rule(&self, group: GroupRef) -> Option<&Arc<Rule>> {
        self.rules.get(group.rule).map(|rule_state| &rule_state.rule)
    }

    /// Returns the labels of a group.
    pub fn labels(&self, group: GroupRef) -> Labels {
        let series = self.rules.get(group.rule).and_then(|rule_state| self.series.get(rule_state.series));
        series.map(|series| series.labels(group.slot)).unwrap_or_default()
    }

    /// Returns the state of a group.
    pub fn state(&self, group: GroupRef) -> Option<&State> {
        Some(&self.rules.get(group.rule)?.groups.get(group.slot)?.state)
    }

    /// Returns the organization in a group's labels; `_` if they have none.
    pub fn organization(labels: &Labels) -> &str {
        labels.get(ORGANIZATION).map_or(NO_ORGANIZATION, String::as_str)
    }

    /// Returns, by rule, the number of records left out because there are too many groups. Omits rules without any.
    pub fn overflow(&self) -> impl Iterator<Item = (&str, u64)> {
        self.rules
            .iter()
            .filter_map(|rule_state| {
                Some((rule_state.rule.name.as_str(), self.series.get(rule_state.series)?.overflow()))
            })
            .filter(|(_, overflow)| *overflow > 0)
    }

    /// Returns the number of groups of all rules.
    pub fn groups(&self) -> usize {
        self.rules.iter().filter_map(|rule_state| self.series.get(rule_state.series)).map(Series::len).sum()
    }

    /// Evaluates groups and returns the proposed changes. States are only updated in place if nothing has to be
    /// stored. The caller commits a change and then calls [`RuleEngine::apply`].
    pub fn evaluate(&mut self, now: DateTime<Utc>, scope: Scope) -> Vec<Change> {
        let touched: Vec<Vec<usize>> = self.series.iter_mut().map(Series::take_touched).collect();
        let mut changes = Vec::new();
        for number in 0..self.rules.len() {
            let series = self.rules[number].series;
            let slots: Vec<usize> = match (scope, self.series.get(series)) {
                (Scope::Touched, _) => touched.get(series).cloned().unwrap_or_default(),
                (Scope::All, Some(series)) => series.slots().collect(),
                (Scope::All, None) => Vec::new(),
            };
            for slot in slots {
                let group = GroupRef { rule: number, slot };
                let sample = self.sample(group, now);
                let Some(rule_state) = self.rules.get_mut(number) else { continue };
                let rule = rule_state.rule.clone();
                let group_state = rule_state.group_state(slot);
                let verdict = evaluate(&rule, &sample, &group_state.state, now);
                let is_news = verdict.transition.is_some()
                    || (verdict.state.data != group_state.state.data
                        && group_state.state.condition != Condition::Inactive);
                if is_news {
                    changes.push(Change {
                        group,
                        before: group_state.state,
                        after: verdict.state,
                        transition: verdict.transition,
                        sample,
                    });
                } else {
                    group_state.state = verdict.state;
                }
            }
        }
        changes
    }

    /// Applies a change that was committed.
    pub fn apply(&mut self, group: GroupRef, state: State) {
        if let Some(rule_state) = self.rules.get_mut(group.rule) {
            rule_state.group_state(group.slot).state = state;
        }
    }

    /// Evaluates every group without changing any state: shows why an alert did or did not fire.
    pub fn evaluate_all(&mut self, now: DateTime<Utc>) -> Vec<(GroupRef, Sample, State)> {
        let mut all = Vec::new();
        for number in 0..self.rules.len() {
            let Some(series) = self.rules.get(number).and_then(|rule_state| self.series.get(rule_state.series)) else {
                continue;
            };
            for slot in series.slots().collect::<Vec<_>>() {
                let group = GroupRef { rule: number, slot };
                let sample = self.sample(group, now);
                let Some(rule) = self.rule(group).cloned() else { continue };
                let state = self.state(group).copied().unwrap_or_default();
                let verdict = evaluate(&rule, &sample, &state, now);
                all.push((group, sample, verdict.state));
            }
        }
        all
    }

    fn sample(&mut self, group: GroupRef, now: DateTime<Utc>) -> Sample {
        let Some(rule_state) = self.rules.get(group.rule) else { return Sample::default() };
        let (series, baseline, source) = (rule_state.series, rule_state.baseline, rule_state.rule.source);
        let is_counted =
            matches!(rule_state.rule.check, Check::Count { .. } | Check::Rate { .. } | Check::Spike { .. });
        let first_seen_at = rule_state.groups.get(group.slot).and_then(|group_state| group_state.first_seen_at);
        let Some(figures) = self.series.get_mut(series).map(|series| series.figures(group.slot, now)) else {
            return Sample::default();
        };
        let mut sample = Sample {
            total: figures.total + if is_counted { figures.fading } else { 0 },
            failed: figures.failed,
            samples: u64::from(figures.level.samples),
            sum: figures.level.sum,
            peak: (figures.level.samples > 0).then_some(figures.level.peak),
            last_seen_at: figures.last_seen_at,
            first_seen_at,
            ..Sample::default()
        };
        match source {
            Source::Records(kind) => {
                if let Some(lag) = self.lag.get(&kind) {
                    sample.stale.clone_from(&lag.stale);
                }
                if let Some(baseline) = baseline {
                    sample.baseline = self.baseline(group, kind, series, baseline, now);
                }
            }
            Source::Ingest => {
                let labels = self.labels(group);
                let kind: Option<Kind> = labels.get(KIND).and_then(|kind| kind.parse().ok());
                match kind.and_then(|kind| self.lag.get(&kind)) {
                    Some(lag) => sample.lag = lag.behind,
                    None => sample.lag = None,
                }
            }
        }
        sample
    }

    fn baseline(
        &mut self,
        group: GroupRef,
        kind: Kind,
        series: usize,
        baseline: usize,
        now: DateTime<Utc>,
    ) -> Option<u64> {
        let rule_state = self.rules.get(group.rule)?;
        let Check::Spike { against, .. } = rule_state.rule.check else { return None };
        if !self.known_baselines.contains(&(kind, against)) {
            return None;
        }
        let labels = self.series.get(series)?.labels(group.slot);
        let baseline = self.baselines.get_mut(baseline)?;
        let slot = baseline.slot_with(&labels)?;
        Some(baseline.figures(slot, now).total)
    }

    /// Returns groups that rules on first-seen values see for the first time. They fire from the next evaluation on,
    /// unless the rule is `learning`: groups that exist when a rule starts are not new.
    pub fn discover(&mut self, now: DateTime<Utc>, learning: impl Fn(&str) -> bool) -> Vec<Discovery> {
        let mut found = Vec::new();
        for rule_state in &mut self.rules {
            let Some(series) = self.series.get(rule_state.series) else { continue };
            let Some(known) = &mut rule_state.known else { continue };
            let learns = learning(&rule_state.rule.name);
            for slot in series.slots() {
                if rule_state.groups.len() <= slot {
                    rule_state.groups.resize_with(slot + 1, GroupState::default);
                }
                let Some(group_state) = rule_state.groups.get_mut(slot) else { continue };
                if group_state.first_seen_at.is_some() {
                    continue;
                }
                let labels = series.labels(slot);
                let group = alert_id(&rule_state.rule.name, &labels);
                if let Some(since) = known.get(&group) {
                    group_state.first_seen_at = Some(*since);
                    continue;
                }
                let at = if learns { DateTime::UNIX_EPOCH } else { now };
                known.insert(group, at);
                group_state.first_seen_at = Some(at);
                found.push(Discovery { rule: rule_state.rule.name.clone(), group, labels, at });
            }
        }
        found
    }

    /// Forgets groups without records within the lookback of their rules, if they are inactive and have no history.
    pub fn forget(&mut self, now: DateTime<Utc>) {
        for baseline in &mut self.baselines {
            let since = now - baseline.shape().window;
            baseline.forget(since, |_| false);
        }
        for number in 0..self.series.len() {
            let active: HashSet<usize> = self
                .rules
                .iter()
                .filter(|rule_state| rule_state.series == number)
                .flat_map(|rule_state| {
                    let stands = |(slot, group_state): (usize, &GroupState)| {
                        (group_state.state.condition != Condition::Inactive).then_some(slot)
                    };
                    rule_state.groups.iter().enumerate().filter_map(stands)
                })
                .collect();
            // One extra margin, so that the hourly call of `groups_seen_since` still finds them.
            let since = now - self.lookback_of(number) - TimeDelta::hours(2);
            let Some(series) = self.series.get_mut(number) else { continue };
            let removed = series.forget(since, |slot| active.contains(&slot));
            for rule_state in self.rules.iter_mut().filter(|rule_state| rule_state.series == number) {
                for slot in &removed {
                    if let Some(group_state) = rule_state.groups.get_mut(*slot) {
                        *group_state = GroupState::default();
                    }
                }
            }
        }
    }
}

impl RuleState {
    /// Returns how far back the rule looks for a group.
    fn lookback(&self) -> TimeDelta {
        match self.rule.check {
            Check::Silence { after } => after.max(SILENCE_LOOKBACK),
            _ => self.rule.window,
        }
    }

    fn group_state(&mut self, slot: usize) -> &mut GroupState {
        if self.groups.len() <= slot {
            self.groups.resize_with(slot + 1, GroupState::default);
        }
        &mut self.groups[slot]
    }
}

impl Shape {
    /// Returns what a rule has to count.
    pub fn of(rule: &Rule) -> Self {
        let (failed_when, field) = match &rule.check {
            Check::Ratio { failed_when, .. } => (Some(failed_when.clone()), None),
            Check::Level { field, .. } => (None, Some(field.clone())),
            _ => (None, None),
        };
        let (kind, group_by) = match rule.source {
            Source::Records(kind) => (Some(kind), rule.group_by.clone()),
            Source::Ingest => (None, vec![KIND.to_owned()]),
        };
        Self { kind, filter: rule.filter.clone(), failed_when, group_by, window: rule.window, field }
    }
}
