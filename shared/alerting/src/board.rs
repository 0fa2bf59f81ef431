//! The board: every rule with its groups, the figures of each and how each stands.
//!
//! Pure: roll-ups come in, changes are proposed, and what was made true elsewhere is put back. So an hour
//! passes in milliseconds in a test, and a backtest is the real evaluation.

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

/// For how long a group is remembered of which nothing is heard, by rules that ask for silence.
const SILENCE_REMEMBERED: TimeDelta = TimeDelta::hours(24);
/// The label of a rule on ingest: which kind is behind.
pub const KIND: &str = "kind";

/// See the module.
#[derive(Debug)]
pub struct Board {
    watches: Vec<Watch>,
    series: Vec<Series>,
    /// What spikes are compared with.
    baselines: Vec<Series>,
    lag: BTreeMap<Kind, Lag>,
    /// Of which kinds, and how long ago, it is known what was counted then.
    known_baselines: BTreeSet<(Kind, TimeDelta)>,
}

/// How far the ingest of a kind is behind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lag {
    /// The age of the oldest record that is not written; `None` where it is not known.
    pub behind: Option<TimeDelta>,
    /// Why the figures of this kind cannot be trusted now.
    pub stale: Option<String>,
}

/// A rule and how each of its groups stands.
#[derive(Debug)]
struct Watch {
    rule: Arc<Rule>,
    series: usize,
    /// For a spike: the same window, so long ago.
    baseline: Option<usize>,
    /// For first-seen values: since when each group is known.
    known: Option<HashMap<Uuid, DateTime<Utc>>>,
    standing: Vec<Standing>,
}

/// How a group stands, as it was made true last.
#[derive(Debug, Clone, Default)]
struct Standing {
    state: State,
    first_seen_at: Option<DateTime<Utc>>,
}

/// A group of a rule: good until groups are forgotten or rules replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    watch: usize,
    slot: usize,
}

/// What an evaluation proposes for a group.
#[derive(Debug, Clone)]
pub struct Change {
    /// Which.
    pub place: Place,
    /// How it stood.
    pub before: State,
    /// How it stands.
    pub after: State,
    /// The change of its condition; `None` where only the data is better or worse.
    pub transition: Option<Transition>,
    /// The figures behind it.
    pub sample: Sample,
}

/// Which groups are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those that were added to since the last evaluation.
    Touched,
    /// All: time alone changes figures.
    All,
}

/// A group that a rule for first-seen values has found.
#[derive(Debug, Clone)]
pub struct Discovery {
    /// The rule's name.
    pub rule: String,
    /// Of rule and labels.
    pub group: Uuid,
    /// The group's labels.
    pub labels: Labels,
    /// When it was found.
    pub at: DateTime<Utc>,
}

/// The id of an alert: of rule and group, the same for ever.
pub fn alert_id(rule: &str, labels: &Labels) -> Uuid {
    /// The namespace of these ids.
    const NAMESPACE: Uuid = Uuid::from_u128(0x7f1c_93a4_52d8_5b0e_a6c3_0e9d_41b7_82f5);
    let mut name = rule.to_owned();
    for (label, value) in labels {
        name.push('\n');
        name.push_str(label);
        name.push('=');
        // A line break in a value must not look like another label.
        name.push_str(&value.replace('\\', "\\\\").replace('\n', "\\n"));
    }
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
}

impl Board {
    /// A board for these rules, of at most `most_groups` groups for each.
    pub fn new(rules: &[Arc<Rule>], most_groups: usize) -> Self {
        let mut board = Self {
            watches: Vec::new(),
            series: Vec::new(),
            baselines: Vec::new(),
            lag: BTreeMap::new(),
            known_baselines: BTreeSet::new(),
        };
        for rule in rules {
            let series = board.series_of(Shape::of(rule), most_groups);
            let baseline = matches!(rule.check, Check::Spike { .. }).then(|| {
                board.baselines.push(Series::new(Shape::of(rule), most_groups));
                board.baselines.len() - 1
            });
            let known = matches!(rule.check, Check::FirstSeen { .. }).then(HashMap::new);
            board.watches.push(Watch { rule: rule.clone(), series, baseline, known, standing: Vec::new() });
        }
        let ingest = board.watches.iter().filter(|watch| watch.rule.source == Source::Ingest);
        for series in ingest.map(|watch| watch.series).collect::<Vec<_>>() {
            for kind in Kind::ALL {
                let labels = Labels::from([(KIND.to_owned(), kind.name().to_owned())]);
                if let Some(series) = board.series.get_mut(series) {
                    series.slot_with(&labels);
                }
            }
        }
        board
    }

    fn series_of(&mut self, shape: Shape, most_groups: usize) -> usize {
        self.series.iter().position(|series| *series.shape() == shape).unwrap_or_else(|| {
            self.series.push(Series::new(shape, most_groups));
            self.series.len() - 1
        })
    }

    /// How far back the roll-ups of each kind have to be known, for rules as they are.
    pub fn reach(&self) -> BTreeMap<Kind, TimeDelta> {
        let mut reach = BTreeMap::new();
        for watch in &self.watches {
            let Source::Records(kind) = watch.rule.source else { continue };
            let needs = watch.remembers();
            let known = reach.entry(kind).or_insert(needs);
            *known = needs.max(*known);
        }
        reach
    }

    /// How long ago the windows lie with which spikes are compared: for each kind its distances, and the longest window.
    pub fn baselines(&self) -> Vec<(Kind, TimeDelta, TimeDelta)> {
        let mut found: Vec<(Kind, TimeDelta, TimeDelta)> = Vec::new();
        for watch in &self.watches {
            let (Source::Records(kind), Check::Spike { against, .. }) = (watch.rule.source, &watch.rule.check) else {
                continue;
            };
            match found.iter_mut().find(|(known, distance, _)| *known == kind && distance == against) {
                Some((_, _, window)) => *window = watch.rule.window.max(*window),
                None => found.push((kind, *against, watch.rule.window)),
            }
        }
        found
    }

    /// Adds roll-ups.
    pub fn add(&mut self, minute: Minute<'_>) {
        self.series.iter_mut().for_each(|series| series.add(minute));
    }

    /// Adds roll-ups that were written since the last look, at `now`.
    pub fn add_new(&mut self, minute: Minute<'_>, now: DateTime<Utc>) {
        self.series.iter_mut().for_each(|series| series.add_new(minute, now));
    }

    /// Adds roll-ups of the past, each to what still remembers it at `now`. When their records arrived is not known, so
    /// that nobody is called for a clock that is behind they count as having arrived as late as they may have, but for
    /// groups of which an alert says otherwise: see [`Board::restore`].
    pub fn add_past(&mut self, minute: Minute<'_>, now: DateTime<Utc>) {
        for number in 0..self.series.len() {
            if minute.minute + self.remembered(number) + TimeDelta::minutes(1) >= now {
                self.series[number].add_new(minute, now);
            }
        }
    }

    /// For how long a series remembers a group of which nothing is heard: a group that is only remembered takes the
    /// place of another one.
    fn remembered(&self, series: usize) -> TimeDelta {
        let watches = self.watches.iter().filter(|watch| watch.series == series);
        watches.map(Watch::remembers).max().unwrap_or(SILENCE_REMEMBERED)
    }

    /// Adds roll-ups of so long ago to what spikes are compared with.
    pub fn add_baseline(&mut self, minute: Minute<'_>, distance: TimeDelta) {
        for watch in &self.watches {
            if let (Some(baseline), Check::Spike { against, .. }) = (watch.baseline, &watch.rule.check)
                && *against == distance
                && let Some(series) = self.baselines.get_mut(baseline)
            {
                series.add(Minute { minute: minute.minute + distance, ..minute });
            }
        }
    }

    /// Says whether it is known what was counted of a kind in the windows so long ago: that nothing is there may mean
    /// that nobody counted.
    pub fn set_baseline_known(&mut self, kind: Kind, distance: TimeDelta, is_known: bool) {
        if is_known {
            self.known_baselines.insert((kind, distance));
        } else {
            self.known_baselines.remove(&(kind, distance));
        }
    }

    /// Says how far the ingest of a kind is behind.
    pub fn set_lag(&mut self, kind: Kind, lag: Lag) {
        self.lag.insert(kind, lag);
    }

    /// How far the ingest of a kind is behind.
    pub fn lag(&self, kind: Kind) -> Option<&Lag> {
        self.lag.get(&kind)
    }

    /// Says what a rule for first-seen values knows, instead of what it knew: groups of which nothing was heard for long
    /// are new again.
    pub fn set_known_groups(&mut self, rule: &str, groups: impl IntoIterator<Item = (Uuid, DateTime<Utc>)>) {
        let watch = self.watches.iter_mut().find(|watch| watch.rule.name == rule);
        if let Some(known) = watch.and_then(|watch| watch.known.as_mut()) {
            *known = groups.into_iter().collect();
        }
    }

    /// Groups of a rule for first-seen values of which something was heard since a time.
    pub fn heard(&self, rule: &str, since: DateTime<Utc>) -> Vec<Discovery> {
        let Some(watch) = self.watches.iter().find(|watch| watch.rule.name == rule) else { return Vec::new() };
        let Some(series) = self.series.get(watch.series) else { return Vec::new() };
        let heard = series.slots().filter(|slot| series.last_minute(*slot) >= Some(since)).filter_map(|slot| {
            let at = watch.standing.get(slot)?.first_seen_at?;
            let labels = series.labels(slot);
            Some(Discovery { rule: rule.to_owned(), group: alert_id(rule, &labels), labels, at })
        });
        heard.collect()
    }

    /// Puts back how the group of an alert stands. What it was last heard of is then the last minute of its records: that
    /// rules are loaded anew is no sign of life. `None` where the rules know no such alert any more.
    pub fn restore(&mut self, id: Uuid, rule: &str, labels: &Labels, state: State) -> Option<Place> {
        let number = self.watches.iter().position(|watch| watch.rule.name == rule)?;
        let watch = self.watches.get_mut(number)?;
        let series = self.series.get_mut(watch.series)?;
        let group: Labels =
            series.shape().group_by.iter().filter_map(|name| Some((name.clone(), labels.get(name)?.clone()))).collect();
        // A rule that groups in another way has other alerts, which stand by themselves.
        if alert_id(rule, &group) != id {
            return None;
        }
        let slot = series.slot_with(&group)?;
        if state.condition != Condition::Inactive {
            series.forget_arrival(slot);
        }
        watch.standing_of(slot).state = state;
        Some(Place { watch: number, slot })
    }

    /// The rule of a group.
    pub fn rule(&self, place: Place) -> Option<&Arc<Rule>> {
        self.watches.get(place.watch).map(|watch| &watch.rule)
    }

    /// The labels of a group.
    pub fn labels(&self, place: Place) -> Labels {
        let series = self.watches.get(place.watch).and_then(|watch| self.series.get(watch.series));
        series.map(|series| series.labels(place.slot)).unwrap_or_default()
    }

    /// How a group stands.
    pub fn state(&self, place: Place) -> Option<&State> {
        Some(&self.watches.get(place.watch)?.standing.get(place.slot)?.state)
    }

    /// The organization of a group's labels, `_` where they name none.
    pub fn organization(labels: &Labels) -> &str {
        labels.get(ORGANIZATION).map_or(NO_ORGANIZATION, String::as_str)
    }

    /// Records that rules left out because there are too many groups, by rule.
    pub fn overflow(&self) -> impl Iterator<Item = (&str, u64)> {
        self.watches
            .iter()
            .filter_map(|watch| Some((watch.rule.name.as_str(), self.series.get(watch.series)?.overflow())))
            .filter(|(_, overflow)| *overflow > 0)
    }

    /// How many groups all rules have.
    pub fn groups(&self) -> usize {
        self.watches.iter().filter_map(|watch| self.series.get(watch.series)).map(Series::len).sum()
    }

    /// Looks at groups and proposes what changes. Nothing is changed but what no one else has to know: the caller
    /// makes the rest true and says so by [`Board::accept`].
    pub fn evaluate(&mut self, now: DateTime<Utc>, scope: Scope) -> Vec<Change> {
        let touched: Vec<Vec<usize>> = self.series.iter_mut().map(Series::take_touched).collect();
        let mut changes = Vec::new();
        for number in 0..self.watches.len() {
            let series = self.watches[number].series;
            let slots: Vec<usize> = match (scope, self.series.get(series)) {
                (Scope::Touched, _) => touched.get(series).cloned().unwrap_or_default(),
                (Scope::All, Some(series)) => series.slots().collect(),
                (Scope::All, None) => Vec::new(),
            };
            for slot in slots {
                let place = Place { watch: number, slot };
                let sample = self.sample(place, now);
                let Some(watch) = self.watches.get_mut(number) else { continue };
                let rule = watch.rule.clone();
                let standing = watch.standing_of(slot);
                let verdict = evaluate(&rule, &sample, &standing.state, now);
                let is_news = verdict.transition.is_some()
                    || (verdict.state.data != standing.state.data && standing.state.condition != Condition::Inactive);
                if is_news {
                    changes.push(Change {
                        place,
                        before: standing.state,
                        after: verdict.state,
                        transition: verdict.transition,
                        sample,
                    });
                } else {
                    standing.state = verdict.state;
                }
            }
        }
        changes
    }

    /// A change was made true.
    pub fn accept(&mut self, place: Place, state: State) {
        if let Some(watch) = self.watches.get_mut(place.watch) {
            watch.standing_of(place.slot).state = state;
        }
    }

    /// Every group with its figures and how it stands, for who wants to know why it did or did not fire.
    pub fn survey(&mut self, now: DateTime<Utc>) -> Vec<(Place, Sample, State)> {
        let mut all = Vec::new();
        for number in 0..self.watches.len() {
            let Some(series) = self.watches.get(number).and_then(|watch| self.series.get(watch.series)) else {
                continue;
            };
            for slot in series.slots().collect::<Vec<_>>() {
                let place = Place { watch: number, slot };
                let sample = self.sample(place, now);
                let Some(rule) = self.rule(place).cloned() else { continue };
                let state = self.state(place).copied().unwrap_or_default();
                let verdict = evaluate(&rule, &sample, &state, now);
                all.push((place, sample, verdict.state));
            }
        }
        all
    }

    fn sample(&mut self, place: Place, now: DateTime<Utc>) -> Sample {
        let Some(watch) = self.watches.get(place.watch) else { return Sample::default() };
        let (series, baseline, source) = (watch.series, watch.baseline, watch.rule.source);
        let is_counted = matches!(watch.rule.check, Check::Count { .. } | Check::Rate { .. } | Check::Spike { .. });
        let first_seen_at = watch.standing.get(place.slot).and_then(|standing| standing.first_seen_at);
        let Some(figures) = self.series.get_mut(series).map(|series| series.figures(place.slot, now)) else {
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
                    sample.baseline = self.baseline(place, kind, series, baseline, now);
                }
            }
            Source::Ingest => {
                let labels = self.labels(place);
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
        place: Place,
        kind: Kind,
        series: usize,
        baseline: usize,
        now: DateTime<Utc>,
    ) -> Option<u64> {
        let watch = self.watches.get(place.watch)?;
        let Check::Spike { against, .. } = watch.rule.check else { return None };
        if !self.known_baselines.contains(&(kind, against)) {
            return None;
        }
        let labels = self.series.get(series)?.labels(place.slot);
        let baseline = self.baselines.get_mut(baseline)?;
        let slot = baseline.slot_with(&labels)?;
        Some(baseline.figures(slot, now).total)
    }

    /// Groups that rules for first-seen values meet for the first time. They fire from the next evaluation on, unless
    /// `learning`: what is there when a rule begins is not news.
    pub fn discover(&mut self, now: DateTime<Utc>, learning: impl Fn(&str) -> bool) -> Vec<Discovery> {
        let mut found = Vec::new();
        for watch in &mut self.watches {
            let Some(series) = self.series.get(watch.series) else { continue };
            let Some(known) = &mut watch.known else { continue };
            let learns = learning(&watch.rule.name);
            for slot in series.slots() {
                if watch.standing.len() <= slot {
                    watch.standing.resize_with(slot + 1, Standing::default);
                }
                let Some(standing) = watch.standing.get_mut(slot) else { continue };
                if standing.first_seen_at.is_some() {
                    continue;
                }
                let labels = series.labels(slot);
                let group = alert_id(&watch.rule.name, &labels);
                if let Some(since) = known.get(&group) {
                    standing.first_seen_at = Some(*since);
                    continue;
                }
                let at = if learns { DateTime::UNIX_EPOCH } else { now };
                known.insert(group, at);
                standing.first_seen_at = Some(at);
                found.push(Discovery { rule: watch.rule.name.clone(), group, labels, at });
            }
        }
        found
    }

    /// Forgets groups of which nothing was heard for as long as their rules look back and that stand as if nothing had
    /// ever been.
    pub fn forget(&mut self, now: DateTime<Utc>) {
        for baseline in &mut self.baselines {
            let since = now - baseline.shape().window;
            baseline.forget(since, |_| false);
        }
        for number in 0..self.series.len() {
            let busy: HashSet<usize> = self
                .watches
                .iter()
                .filter(|watch| watch.series == number)
                .flat_map(|watch| {
                    let stands = |(slot, standing): (usize, &Standing)| {
                        (standing.state.condition != Condition::Inactive).then_some(slot)
                    };
                    watch.standing.iter().enumerate().filter_map(stands)
                })
                .collect();
            // Some more, so that what `heard` asks for hourly is still there.
            let since = now - self.remembered(number) - TimeDelta::hours(2);
            let Some(series) = self.series.get_mut(number) else { continue };
            let gone = series.forget(since, |slot| busy.contains(&slot));
            for watch in self.watches.iter_mut().filter(|watch| watch.series == number) {
                for slot in &gone {
                    if let Some(standing) = watch.standing.get_mut(*slot) {
                        *standing = Standing::default();
                    }
                }
            }
        }
    }
}

impl Watch {
    /// How far back the rule looks for a group.
    fn remembers(&self) -> TimeDelta {
        match self.rule.check {
            Check::Silence { after } => after.max(SILENCE_REMEMBERED),
            _ => self.rule.window,
        }
    }

    fn standing_of(&mut self, slot: usize) -> &mut Standing {
        if self.standing.len() <= slot {
            self.standing.resize_with(slot + 1, Standing::default);
        }
        &mut self.standing[slot]
    }
}

impl Shape {
    /// What a rule has to count.
    pub fn of(rule: &Rule) -> Self {
        let (failed_when, field) = match &rule.check {
            Check::Share { failed_when, .. } => (Some(failed_when.clone()), None),
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
