//! The evaluator: the rule engine, kept in sync with Postgres.
//!
//! Each cycle adds the roll-ups written since the last one, evaluates, and commits the changes in one transaction:
//! alert, transition and notifications. If the evaluator fails, or finds that another process changed an alert, it is
//! dropped and a new one is opened: the state in Postgres is authoritative.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ::metrics::{counter, gauge};
use alerting::Alerting;
use alerting::evaluation::{Condition, State, explain};
use alerting::rule::Check;
use alerting::rule_engine::{Change, Discovery, RuleEngine, Scope, alert_id};
use alerting::silence::Silence;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use store::alerts::{AlertRow, TransitionRow};
use store::rollups::{self, SNAPSHOT_VALID_FOR, Snapshot};
use store::{Connection, PgConnection};
use tokio::time::Instant;
use uuid::Uuid;

use crate::loading::{Baseline, Loaded, RollupObserver, load, same_minute, view};
use crate::metrics;
use crate::notifications::{NotificationBuilder, Suppression, fires, labels_of};

/// How often the groups that were seen are stored, for rules on first-seen values.
pub(crate) const SAVE_GROUPS_EVERY: TimeDelta = TimeDelta::hours(1);

/// The number of alerts above which repetitions are not checked in every cycle.
const MANY_ALERTS: usize = 500;
/// How often repetitions are checked above [`MANY_ALERTS`].
const MANY_ALERTS_REPEAT_CHECK_EVERY: std::time::Duration = std::time::Duration::from_secs(10);

/// Why a new evaluator has to be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EvaluatorError {
    #[error("Postgres does not answer: {0}")]
    Store(#[from] store::Error),
    #[error("another process changed an alert")]
    VersionConflict,
    #[error("the clock was set")]
    ClockSet,
    #[error("the last evaluation was too long ago to know which roll-ups are new")]
    SnapshotExpired,
}

/// The evaluator; see the module.
#[derive(Debug)]
pub(crate) struct Evaluator {
    pub(crate) engine: RuleEngine,
    alerting: Arc<Alerting>,
    rows: HashMap<Uuid, AlertRow>,
    seen: Snapshot,
    evaluated_at: Instant,
    silences: Vec<Silence>,
    acknowledged: HashMap<Uuid, Option<DateTime<Utc>>>,
    baselines: Vec<Baseline>,
    /// Rules on first-seen values that have just started.
    learning: HashSet<String>,
    storm_after: u32,
    /// When firing alerts are next checked for repetitions.
    repeat_check_at: Instant,
}

/// The outcome of a cycle.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct CycleOutcome {
    /// Whether notifications were enqueued.
    pub(crate) has_notifications: bool,
}

/// Everything that is committed in one transaction.
#[derive(Debug, Default)]
struct ChangeSet {
    rows: Vec<AlertRow>,
    transitions: Vec<TransitionRow>,
    notifications: NotificationBuilder,
    discoveries: Vec<Discovery>,
}

/// Returns the evaluation state of a stored alert. If it cannot be decoded, or contradicts the columns that were written
/// with it, the state is rebuilt from these: a firing alert stays one until an evaluation resolves it.
pub(crate) fn state_of(row: &AlertRow) -> State {
    let from_columns = || State {
        condition: row.condition.parse().unwrap_or_default(),
        data: row.data.parse().unwrap_or_default(),
        since: Some(row.changed_at),
        started_at: row.started_at,
        ..State::default()
    };
    let error = match serde_json::from_value::<State>(row.state.clone()) {
        Ok(state) if state.condition.to_string() == row.condition => return state,
        Ok(state) => format!("its condition is `{}`", state.condition),
        Err(error) => error.to_string(),
    };
    tracing::error!(
        alert = %row.id,
        rule = row.rule,
        condition = row.condition,
        error,
        "cannot decode the stored state of an alert; continuing with its condition"
    );
    from_columns()
}

impl Evaluator {
    /// Opens an evaluator for these rules: loads roll-ups as far back as the rules look, and the state of every alert.
    pub(crate) async fn open(
        connection: &mut PgConnection,
        alerting: Arc<Alerting>,
        max_groups: usize,
        storm_after: u32,
        now: DateTime<Utc>,
        observer: impl RollupObserver,
    ) -> Result<Self, EvaluatorError> {
        // Before the snapshot, so that roll-ups folded during a long load are not missed.
        let evaluated_at = Instant::now();
        let Loaded { engine, seen, baselines, learning, learned } =
            load(connection, &alerting, max_groups, now, observer).await?;
        let rows = store::alerts::open(connection).await?.into_iter().map(|row| (row.id, row)).collect();
        let mut evaluator = Self {
            engine,
            alerting,
            rows,
            seen,
            evaluated_at,
            silences: Vec::new(),
            acknowledged: HashMap::new(),
            baselines,
            learning,
            storm_after,
            repeat_check_at: evaluated_at,
        };
        evaluator.refresh_silences(connection, now).await?;
        let mut change_set = ChangeSet { discoveries: learned, ..ChangeSet::default() };
        let mut orphaned = Vec::new();
        for row in evaluator.rows.values_mut() {
            let state = state_of(row);
            let labels = labels_of(&row.labels);
            let restored = evaluator.engine.restore(row.id, &row.rule, &labels, state);
            match restored.and_then(|group| Some((group, evaluator.engine.rule(group)?))) {
                Some((group, rule)) => {
                    // The rule's labels may have changed, and routes and silences use them.
                    row.labels = json!(rule.alert_labels(&evaluator.engine.labels(group)));
                    row.severity = rule.severity.to_string();
                }
                None => orphaned.push(row.clone()),
            }
        }
        for row in orphaned {
            evaluator.close(row, &mut change_set, now);
        }
        evaluator.commit(connection, change_set, now).await?;
        Ok(evaluator)
    }

    /// Resolves an alert whose rule or group is no longer configured: no evaluation would ever resolve it.
    fn close(&self, row: AlertRow, change_set: &mut ChangeSet, now: DateTime<Utc>) {
        let from = row.condition.clone();
        let mut row = AlertRow {
            version: row.version + 1,
            condition: Condition::Inactive.to_string(),
            reason: "the rules do not have this alert any more".to_owned(),
            state: serde_json::to_value(State::default()).unwrap_or_default(),
            ended_at: Some(now),
            changed_at: now,
            ..row
        };
        change_set.transitions.push(TransitionRow {
            alert_id: row.id,
            version: row.version,
            from_condition: from,
            to_condition: row.condition.clone(),
            data: row.data.clone(),
            reason: row.reason.clone(),
            figures: json!({}),
            silenced_by: None,
            at: now,
        });
        change_set.notifications.add(&self.alerting, &mut row, Suppression::default(), now);
        change_set.rows.push(row);
    }

    /// Adds new roll-ups, evaluates, and commits the changes.
    pub(crate) async fn evaluate_and_commit(
        &mut self,
        connection: &mut PgConnection,
        now: DateTime<Utc>,
        scope: Scope,
        mut observer: impl RollupObserver,
    ) -> Result<CycleOutcome, EvaluatorError> {
        if self.evaluated_at.elapsed() > SNAPSHOT_VALID_FOR {
            return Err(EvaluatorError::SnapshotExpired);
        }
        let started = Instant::now();
        let engine = &mut self.engine;
        self.seen = rollups::new_since(connection, &self.seen, |minute| {
            observer.observe(&minute, Some(now));
            engine.add_new(view(&minute), now);
        })
        .await?;
        self.evaluated_at = started;
        if scope == Scope::All {
            self.refresh_silences(connection, now).await?;
            self.refresh_baselines(connection, now).await?;
        }
        let mut change_set = ChangeSet { discoveries: self.discover(now), ..ChangeSet::default() };
        let changes = self.engine.evaluate(now, scope);
        self.load_missing_rows(connection, &changes).await?;
        for change in &changes {
            self.stage_change(change, &mut change_set, now);
        }
        if scope == Scope::All && self.repeat_check_at <= started {
            self.stage_repeats(&mut change_set, now);
            if self.rows.len() > MANY_ALERTS {
                self.repeat_check_at = started + MANY_ALERTS_REPEAT_CHECK_EVERY;
            }
        }
        let has_notifications = !change_set.notifications.is_empty();
        self.commit(connection, change_set, now).await?;
        for change in changes {
            self.engine.apply(change.group, change.after);
        }
        Ok(CycleOutcome { has_notifications })
    }

    /// Loads rows of alerts that were inactive until now: they may have a history, and their versions continue.
    async fn load_missing_rows(
        &mut self,
        connection: &mut PgConnection,
        changes: &[Change],
    ) -> Result<(), EvaluatorError> {
        let id_of = |change: &Change| {
            self.engine.rule(change.group).map(|rule| alert_id(&rule.name, &self.engine.labels(change.group)))
        };
        let unknown: Vec<Uuid> = changes.iter().filter_map(id_of).filter(|id| !self.rows.contains_key(id)).collect();
        if !unknown.is_empty() {
            let rows = store::alerts::with_ids(connection, &unknown).await?;
            // Inactive here but not in Postgres: another process changed it.
            if rows.iter().any(|row| row.condition != Condition::Inactive.to_string()) {
                return Err(EvaluatorError::VersionConflict);
            }
            self.rows.extend(rows.into_iter().map(|row| (row.id, row)));
        }
        Ok(())
    }

    fn discover(&mut self, now: DateTime<Utc>) -> Vec<Discovery> {
        let mut found = self.engine.discover(now, |rule| self.learning.contains(rule));
        for rule in self.learning.drain() {
            // Store that the rule has started; otherwise it would learn again after a restart.
            found.push(Discovery { group: Uuid::nil(), labels: Default::default(), at: now, rule });
        }
        found
    }

    /// Stages the new row of an alert after a change, with its transition and notifications.
    fn stage_change(&self, change: &Change, change_set: &mut ChangeSet, now: DateTime<Utc>) {
        let Some(rule) = self.engine.rule(change.group) else { return };
        let group = self.engine.labels(change.group);
        let id = alert_id(&rule.name, &group);
        let known = self.rows.get(&id);
        let labels = rule.alert_labels(&group);
        let reason = explain(rule, &change.sample, &change.after, now);
        let is_over = change.after.condition == Condition::Inactive;
        let fired = matches!(change.before.condition, Condition::Firing | Condition::Recovering);
        let begins = change.after.condition == Condition::Firing && !fired;
        let mut row = AlertRow {
            id,
            rule: rule.name.clone(),
            organization_id: RuleEngine::organization(&group).to_owned(),
            annotations: json!(rule.annotations(&labels, &change.sample, &reason)),
            labels: json!(labels),
            severity: rule.severity.to_string(),
            version: known.map_or(0, |known| known.version) + 1,
            condition: change.after.condition.to_string(),
            data: change.after.data.to_string(),
            reason,
            state: serde_json::to_value(change.after).unwrap_or_default(),
            told: known.map_or_else(|| json!({}), |known| known.told.clone()),
            started_at: if begins { Some(now) } else { known.and_then(|known| known.started_at) },
            ended_at: match (is_over, begins) {
                (true, _) if fired => Some(now),
                (_, true) => None,
                _ => known.and_then(|known| known.ended_at),
            },
            changed_at: now,
        };
        let suppression = self.suppression(&row, now);
        if let Some(transition) = &change.transition {
            counter!(metrics::TRANSITIONS, "rule" => rule.name.clone(), "to" => row.condition.clone()).increment(1);
            tracing::info!(
                rule = rule.name,
                organization = row.organization_id,
                to = row.condition,
                reason = row.reason,
                "alert"
            );
            change_set.transitions.push(TransitionRow {
                alert_id: id,
                version: row.version,
                from_condition: transition.from.to_string(),
                to_condition: transition.to.to_string(),
                data: row.data.clone(),
                reason: row.reason.clone(),
                figures: serde_json::to_value(&change.sample).unwrap_or_default(),
                silenced_by: suppression.silenced_by,
                at: now,
            });
        }
        change_set.notifications.add(&self.alerting, &mut row, suppression, now);
        change_set.rows.push(row);
    }

    /// Stages notifications of firing alerts that are due for a repetition, or for a first one because a silence
    /// ended.
    fn stage_repeats(&self, change_set: &mut ChangeSet, now: DateTime<Utc>) {
        let changed: HashSet<Uuid> = change_set.rows.iter().map(|row| row.id).collect();
        for known in self.rows.values().filter(|row| fires(row) && !changed.contains(&row.id)) {
            let mut row = AlertRow { version: known.version + 1, ..known.clone() };
            if change_set.notifications.add(&self.alerting, &mut row, self.suppression(known, now), now) {
                change_set.rows.push(row);
            }
        }
    }

    fn suppression(&self, row: &AlertRow, now: DateTime<Utc>) -> Suppression {
        let labels = labels_of(&row.labels);
        let silence = self.silences.iter().find(|silence| silence.active_at(now) && silence.matches(&labels));
        let acknowledged = self.acknowledged.get(&row.id).is_some_and(|until| until.is_none_or(|until| now < until));
        Suppression { silenced_by: silence.map(|silence| silence.id), acknowledged }
    }

    /// Commits alerts, transitions, outbox rows and known groups of first-seen rules in one transaction.
    async fn commit(
        &mut self,
        connection: &mut PgConnection,
        mut change_set: ChangeSet,
        now: DateTime<Utc>,
    ) -> Result<(), EvaluatorError> {
        if change_set.rows.is_empty() && change_set.discoveries.is_empty() {
            return Ok(());
        }
        let changed: HashSet<Uuid> = change_set.rows.iter().map(|row| row.id).collect();
        let unchanged = self.rows.values().filter(|row| !changed.contains(&row.id));
        change_set.notifications.count_still_firing(unchanged.chain(&change_set.rows));
        let mut transaction = connection.begin().await?;
        if !store::alerts::move_to(&mut transaction, &change_set.rows).await? {
            transaction.rollback().await?;
            return Err(EvaluatorError::VersionConflict);
        }
        store::alerts::record(&mut transaction, &change_set.transitions).await?;
        change_set.notifications.enqueue(&mut transaction, &self.alerting, self.storm_after).await?;
        let mut by_rule: HashMap<&str, Vec<_>> = HashMap::new();
        for discovery in &change_set.discoveries {
            by_rule.entry(&discovery.rule).or_default().push((discovery.group, json!(discovery.labels), discovery.at));
        }
        for (rule, groups) in by_rule {
            store::alerts::know_groups(&mut transaction, rule, &groups, now).await?;
        }
        transaction.commit().await?;
        self.rows.extend(change_set.rows.into_iter().map(|row| (row.id, row)));
        Ok(())
    }

    /// Reloads silences and acknowledgements, which can be added at any time.
    async fn refresh_silences(
        &mut self,
        connection: &mut PgConnection,
        now: DateTime<Utc>,
    ) -> Result<(), EvaluatorError> {
        let silences = store::silences::current(connection, now).await?;
        self.silences = silences.into_iter().filter_map(crate::silences::silence_from_row).collect();
        let acknowledgements = store::alerts::acknowledgements(connection).await?;
        self.acknowledged =
            acknowledgements.into_iter().map(|(id, note)| (id, crate::silences::acknowledged_until(&note))).collect();
        Ok(())
    }

    /// Adds the minutes that have entered the windows that spikes are compared with.
    async fn refresh_baselines(
        &mut self,
        connection: &mut PgConnection,
        now: DateTime<Utc>,
    ) -> Result<(), EvaluatorError> {
        for Baseline { kind, distance, window, known_until } in &mut self.baselines {
            let until = same_minute(now, *distance);
            if until <= *known_until {
                continue;
            }
            let is_known = rollups::is_known(connection, *kind, until - *window, until).await?;
            self.engine.set_baseline_known(*kind, *distance, is_known);
            let engine = &mut self.engine;
            rollups::between(connection, *kind, *known_until, until, |minute| {
                engine.add_baseline(view(&minute), *distance);
            })
            .await?;
            *known_until = until;
        }
        Ok(())
    }

    /// Stores which groups were seen, and forgets those that were not seen for long, as configured by rules on
    /// first-seen values.
    pub(crate) async fn save_known_groups(
        &mut self,
        connection: &mut PgConnection,
        now: DateTime<Utc>,
    ) -> Result<(), EvaluatorError> {
        for rule in &self.alerting.rules {
            let Check::FirstSeen { forget_after } = rule.check else { continue };
            // Twice the interval, so that no group is missed between two calls.
            let since = now - SAVE_GROUPS_EVERY * 2;
            let seen_groups: Vec<_> = self
                .engine
                .groups_seen_since(&rule.name, since)
                .into_iter()
                .map(|g| (g.group, json!(g.labels), g.at))
                .collect();
            store::alerts::know_groups(connection, &rule.name, &seen_groups, now).await?;
            store::alerts::forget_groups(connection, &rule.name, now - forget_after).await?;
            let known = store::alerts::known_groups(connection, &rule.name).await?;
            self.engine.set_known_groups(&rule.name, known);
        }
        Ok(())
    }

    /// Updates gauges and forgets groups that are no longer seen. Called every minute.
    pub(crate) fn prune(&mut self, now: DateTime<Utc>) {
        self.engine.forget(now);
        self.rows.retain(|_, row| row.condition != Condition::Inactive.to_string());
        for condition in [Condition::Pending, Condition::Firing, Condition::Recovering] {
            let count = self.rows.values().filter(|row| row.condition == condition.to_string()).count();
            gauge!(metrics::ALERTS, "condition" => condition.to_string()).set(count as f64);
        }
        gauge!(metrics::GROUPS).set(self.engine.groups() as f64);
        for (rule, overflow) in self.engine.overflow() {
            gauge!(metrics::OVERFLOW, "rule" => rule.to_owned()).set(overflow as f64);
        }
    }
}
