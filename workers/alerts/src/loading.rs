//! Loads a rule engine with everything that its rules look back on: for example the last hour of roll-ups, the same
//! hour a week ago, and the known groups.

use std::collections::HashSet;

use alerting::Alerting;
use alerting::rule::{Check, Rule, Source};
use alerting::rule_engine::{Discovery, RuleEngine, alert_id};
use alerting::series::{Minute, Series, Shape};
use chrono::{DateTime, TimeDelta, Utc};
use records::Kind;
use store::PgConnection;
use store::rollups::{self, Snapshot, StoredMinute};

/// A past window that spikes of a kind are compared with.
#[derive(Debug)]
pub(crate) struct Baseline {
    pub(crate) kind: Kind,
    pub(crate) distance: TimeDelta,
    pub(crate) window: TimeDelta,
    /// Up to when it was read.
    pub(crate) known_until: DateTime<Utc>,
}

/// Sees the same roll-ups as the rule engine, each exactly once.
pub(crate) trait RollupObserver {
    /// Returns how far back it needs roll-ups.
    fn lookback(&self) -> TimeDelta;
    /// Observes roll-ups. `new_at` is the time of the evaluation that found them, `None` for roll-ups of the past.
    fn observe(&mut self, minute: &StoredMinute, new_at: Option<DateTime<Utc>>);
}

/// Observes nothing.
impl RollupObserver for () {
    fn lookback(&self) -> TimeDelta {
        TimeDelta::zero()
    }

    fn observe(&mut self, _: &StoredMinute, _: Option<DateTime<Utc>>) {}
}

impl<W: RollupObserver> RollupObserver for &mut W {
    fn lookback(&self) -> TimeDelta {
        W::lookback(self)
    }

    fn observe(&mut self, minute: &StoredMinute, new_at: Option<DateTime<Utc>>) {
        W::observe(self, minute, new_at);
    }
}

/// A rule engine that is loaded with the past.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) engine: RuleEngine,
    pub(crate) seen: Snapshot,
    pub(crate) baselines: Vec<Baseline>,
    pub(crate) learning: HashSet<String>,
    /// Groups that rules which have just started learned from the past.
    pub(crate) learned: Vec<Discovery>,
}

/// Loads a rule engine.
pub(crate) async fn load(
    connection: &mut PgConnection,
    alerting: &Alerting,
    max_groups: usize,
    now: DateTime<Utc>,
    mut observer: impl RollupObserver,
) -> store::Result<Loaded> {
    let mut engine = RuleEngine::new(&alerting.rules, max_groups);
    let mut lookback = engine.lookback();
    for kind in Kind::ALL {
        let known = lookback.entry(*kind).or_default();
        *known = observer.lookback().max(*known);
    }
    let since: Vec<_> = lookback.into_iter().map(|(kind, lookback)| (kind, now - lookback)).collect();
    let seen = rollups::load(connection, &since, |minute| {
        observer.observe(&minute, None);
        engine.add_past(view(&minute), now);
    })
    .await?;
    let mut baselines = Vec::new();
    for (kind, distance, window) in engine.baselines() {
        let until = same_minute(now, distance);
        rollups::between(connection, kind, until - window, until, |minute| {
            engine.add_baseline(view(&minute), distance);
        })
        .await?;
        let is_known = rollups::is_known(connection, kind, until - window, until).await?;
        engine.set_baseline_known(kind, distance, is_known);
        baselines.push(Baseline { kind, distance, window, known_until: until });
    }
    let (mut learning, mut learned) = (HashSet::new(), Vec::new());
    for rule in &alerting.rules {
        let Check::FirstSeen { forget_after } = rule.check else { continue };
        let mut known = store::alerts::known_groups(connection, &rule.name).await?;
        if known.is_empty() {
            learning.insert(rule.name.clone());
            let past = learn(connection, rule, max_groups, now - forget_after, now).await?;
            known.extend(past.iter().map(|discovery| (discovery.group, discovery.at)));
            learned.extend(past);
        }
        engine.set_known_groups(&rule.name, known);
    }
    Ok(Loaded { engine, seen, baselines, learning, learned })
}

/// Returns the groups that a rule on first-seen values would know if it had existed before. They count as known, not
/// as new.
async fn learn(
    connection: &mut PgConnection,
    rule: &Rule,
    max_groups: usize,
    since: DateTime<Utc>,
    now: DateTime<Utc>,
) -> store::Result<Vec<Discovery>> {
    let Source::Records(kind) = rule.source else { return Ok(Vec::new()) };
    let mut series = Series::new(Shape::of(rule), max_groups);
    rollups::between(connection, kind, since, now, |minute| series.add(view(&minute))).await?;
    let learned = series.slots().map(|slot| {
        let labels = series.labels(slot);
        let group = alert_id(&rule.name, &labels);
        Discovery { rule: rule.name.clone(), group, labels, at: DateTime::UNIX_EPOCH }
    });
    Ok(learned.collect())
}

/// Returns the end of the minute that corresponds to `now`, `distance` ago. That minute is compared as a whole while
/// the current one still grows, so a doubtful case is not a spike.
pub(crate) fn same_minute(now: DateTime<Utc>, distance: TimeDelta) -> DateTime<Utc> {
    crate::whole_minute(now - distance) + TimeDelta::minutes(1)
}

/// Converts a stored minute to the input of the rule engine.
pub(crate) fn view(minute: &StoredMinute) -> Minute<'_> {
    Minute {
        kind: minute.kind,
        minute: minute.minute,
        label_names: &minute.label_names,
        level_names: &minute.level_names,
        groups: &minute.groups,
    }
}
