//! The desk: the board with everything around it, kept in step with Postgres.
//!
//! Each look takes in what was counted since the last one, evaluates, and makes what changed true in one
//! transaction: the alert, its transition, and what is to be told about it. A desk that fails, or finds that
//! somebody else moved an alert, is thrown away and opened anew: nothing in it is the truth.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ::metrics::{counter, gauge};
use alerting::Alerting;
use alerting::board::{Board, Change, Discovery, Scope, alert_id};
use alerting::evaluation::{Condition, State, explain};
use alerting::rule::Check;
use alerting::silence::Silence;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use store::alerts::{AlertRow, TransitionRow};
use store::rollups::{self, LOOK_WITHIN, Snapshot};
use store::{Connection, PgConnection};
use tokio::time::Instant;
use uuid::Uuid;

use crate::loading::{Baseline, Loaded, Watcher, load, same_minute, view};
use crate::metrics;
use crate::telling::{Quiet, Tellings, fires, labels_of};

/// How often it is written down which groups were heard of, for rules that ask for new ones.
pub(crate) const GROUPS_EVERY: TimeDelta = TimeDelta::hours(1);

/// With more alerts than this not each of them is looked at every second for whom to remind,
const MANY: usize = 500;
/// but only so often.
const REMIND_MANY_EVERY: std::time::Duration = std::time::Duration::from_secs(10);

/// Why a desk has to be opened anew.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeskError {
    #[error("Postgres does not answer: {0}")]
    Store(#[from] store::Error),
    #[error("another process moved an alert")]
    Overtaken,
    #[error("the clock was set")]
    ClockSet,
    #[error("the last look was too long ago to know what was missed")]
    TooLate,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) board: Board,
    alerting: Arc<Alerting>,
    rows: HashMap<Uuid, AlertRow>,
    seen: Snapshot,
    looked_at: Instant,
    silences: Vec<Silence>,
    acknowledged: HashMap<Uuid, Option<DateTime<Utc>>>,
    baselines: Vec<Baseline>,
    /// Rules for first-seen values that have just begun.
    learning: HashSet<String>,
    storm_after: u32,
    /// When alerts that fire are looked at again for whom to remind.
    remind_at: Instant,
}

/// What a look did.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Looked {
    /// Somebody is to be told something.
    pub(crate) told: bool,
}

/// Everything that becomes true at once.
#[derive(Debug, Default)]
struct Moves {
    rows: Vec<AlertRow>,
    transitions: Vec<TransitionRow>,
    tellings: Tellings,
    discoveries: Vec<Discovery>,
}

impl Desk {
    /// Opens a desk for these rules: roll-ups as far back as they look, and every alert as it stands.
    pub(crate) async fn open(
        connection: &mut PgConnection,
        alerting: Arc<Alerting>,
        most_groups: usize,
        storm_after: u32,
        now: DateTime<Utc>,
        others: impl Watcher,
    ) -> Result<Self, DeskError> {
        // From before the snapshot: what is folded while a long load runs would be in neither.
        let looked_at = Instant::now();
        let Loaded { board, seen, baselines, learning, learned } =
            load(connection, &alerting, most_groups, now, others).await?;
        let rows = store::alerts::open(connection).await?.into_iter().map(|row| (row.id, row)).collect();
        let mut desk = Self {
            board,
            alerting,
            rows,
            seen,
            looked_at,
            silences: Vec::new(),
            acknowledged: HashMap::new(),
            baselines,
            learning,
            storm_after,
            remind_at: looked_at,
        };
        desk.read_notes(connection, now).await?;
        let mut moves = Moves { discoveries: learned, ..Moves::default() };
        let mut gone = Vec::new();
        for row in desk.rows.values_mut() {
            let state: State = serde_json::from_value(row.state.clone()).unwrap_or_default();
            let labels = labels_of(&row.labels);
            let restored = desk.board.restore(row.id, &row.rule, &labels, state);
            match restored.and_then(|place| Some((place, desk.board.rule(place)?))) {
                Some((place, rule)) => {
                    // The rule may have other labels by now, and routes and silences go by them.
                    row.labels = json!(rule.alert_labels(&desk.board.labels(place)));
                    row.severity = rule.severity.to_string();
                }
                None => gone.push(row.clone()),
            }
        }
        for row in gone {
            desk.close(row, &mut moves, now);
        }
        desk.make_true(connection, moves, now).await?;
        Ok(desk)
    }

    /// An alert whose rule, or group, is not in the configuration any more is over: nobody would ever say so again.
    fn close(&self, row: AlertRow, moves: &mut Moves, now: DateTime<Utc>) {
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
        moves.transitions.push(TransitionRow {
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
        moves.tellings.add(&self.alerting, &mut row, Quiet::default(), now);
        moves.rows.push(row);
    }

    /// Takes in what is new, evaluates, and makes what changed true.
    pub(crate) async fn look(
        &mut self,
        connection: &mut PgConnection,
        now: DateTime<Utc>,
        scope: Scope,
        mut others: impl Watcher,
    ) -> Result<Looked, DeskError> {
        if self.looked_at.elapsed() > LOOK_WITHIN {
            return Err(DeskError::TooLate);
        }
        let started = Instant::now();
        let board = &mut self.board;
        self.seen = rollups::new_since(connection, &self.seen, |minute| {
            others.watch(&minute, Some(now));
            board.add_new(view(&minute), now);
        })
        .await?;
        self.looked_at = started;
        if scope == Scope::All {
            self.read_notes(connection, now).await?;
            self.read_baselines(connection, now).await?;
        }
        let mut moves = Moves { discoveries: self.discover(now), ..Moves::default() };
        let changes = self.board.evaluate(now, scope);
        self.read_rows_of(connection, &changes).await?;
        for change in &changes {
            self.propose(change, &mut moves, now);
        }
        if scope == Scope::All && self.remind_at <= started {
            self.remind(&mut moves, now);
            if self.rows.len() > MANY {
                self.remind_at = started + REMIND_MANY_EVERY;
            }
        }
        let told = !moves.tellings.is_empty();
        self.make_true(connection, moves, now).await?;
        for change in changes {
            self.board.accept(change.place, change.after);
        }
        Ok(Looked { told })
    }

    /// Alerts that were quiet until now may have been anything before: their versions go on.
    async fn read_rows_of(&mut self, connection: &mut PgConnection, changes: &[Change]) -> Result<(), DeskError> {
        let id_of = |change: &Change| {
            self.board.rule(change.place).map(|rule| alert_id(&rule.name, &self.board.labels(change.place)))
        };
        let unknown: Vec<Uuid> = changes.iter().filter_map(id_of).filter(|id| !self.rows.contains_key(id)).collect();
        if !unknown.is_empty() {
            let rows = store::alerts::with_ids(connection, &unknown).await?;
            // Here it is quiet, and there it is not: somebody else moved it.
            if rows.iter().any(|row| row.condition != Condition::Inactive.to_string()) {
                return Err(DeskError::Overtaken);
            }
            self.rows.extend(rows.into_iter().map(|row| (row.id, row)));
        }
        Ok(())
    }

    fn discover(&mut self, now: DateTime<Utc>) -> Vec<Discovery> {
        let mut found = self.board.discover(now, |rule| self.learning.contains(rule));
        for rule in self.learning.drain() {
            // That the rule has begun is remembered as well, or it would learn again after a restart.
            found.push(Discovery { group: Uuid::nil(), labels: Default::default(), at: now, rule });
        }
        found
    }

    /// How an alert stands after a change.
    fn propose(&self, change: &Change, moves: &mut Moves, now: DateTime<Utc>) {
        let Some(rule) = self.board.rule(change.place) else { return };
        let group = self.board.labels(change.place);
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
            organization_id: Board::organization(&group).to_owned(),
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
        let quiet = self.quiet(&row, now);
        if let Some(transition) = &change.transition {
            counter!(metrics::TRANSITIONS, "rule" => rule.name.clone(), "to" => row.condition.clone()).increment(1);
            tracing::info!(
                rule = rule.name,
                organization = row.organization_id,
                to = row.condition,
                reason = row.reason,
                "alert"
            );
            moves.transitions.push(TransitionRow {
                alert_id: id,
                version: row.version,
                from_condition: transition.from.to_string(),
                to_condition: transition.to.to_string(),
                data: row.data.clone(),
                reason: row.reason.clone(),
                figures: serde_json::to_value(&change.sample).unwrap_or_default(),
                silenced_by: quiet.silenced_by,
                at: now,
            });
        }
        moves.tellings.add(&self.alerting, &mut row, quiet, now);
        moves.rows.push(row);
    }

    /// Alerts that fire and of which somebody has to hear again, or for the first time because a silence is over.
    fn remind(&self, moves: &mut Moves, now: DateTime<Utc>) {
        let moved: HashSet<Uuid> = moves.rows.iter().map(|row| row.id).collect();
        for known in self.rows.values().filter(|row| fires(row) && !moved.contains(&row.id)) {
            let mut row = AlertRow { version: known.version + 1, ..known.clone() };
            if moves.tellings.add(&self.alerting, &mut row, self.quiet(known, now), now) {
                moves.rows.push(row);
            }
        }
    }

    fn quiet(&self, row: &AlertRow, now: DateTime<Utc>) -> Quiet {
        let labels = labels_of(&row.labels);
        let silence = self.silences.iter().find(|silence| silence.active_at(now) && silence.matches(&labels));
        let acknowledged = self.acknowledged.get(&row.id).is_some_and(|until| until.is_none_or(|until| now < until));
        Quiet { silenced_by: silence.map(|silence| silence.id), acknowledged }
    }

    /// One transaction: alerts, transitions, outbox, and what first-seen rules know by now.
    async fn make_true(
        &mut self,
        connection: &mut PgConnection,
        mut moves: Moves,
        now: DateTime<Utc>,
    ) -> Result<(), DeskError> {
        if moves.rows.is_empty() && moves.discoveries.is_empty() {
            return Ok(());
        }
        let moved: HashSet<Uuid> = moves.rows.iter().map(|row| row.id).collect();
        let unmoved = self.rows.values().filter(|row| !moved.contains(&row.id));
        moves.tellings.count_others(unmoved.chain(&moves.rows));
        let mut transaction = connection.begin().await?;
        if !store::alerts::move_to(&mut transaction, &moves.rows).await? {
            transaction.rollback().await?;
            return Err(DeskError::Overtaken);
        }
        store::alerts::record(&mut transaction, &moves.transitions).await?;
        moves.tellings.enqueue(&mut transaction, &self.alerting, self.storm_after).await?;
        let mut by_rule: HashMap<&str, Vec<_>> = HashMap::new();
        for discovery in &moves.discoveries {
            by_rule.entry(&discovery.rule).or_default().push((discovery.group, json!(discovery.labels), discovery.at));
        }
        for (rule, groups) in by_rule {
            store::alerts::know_groups(&mut transaction, rule, &groups, now).await?;
        }
        transaction.commit().await?;
        self.rows.extend(moves.rows.into_iter().map(|row| (row.id, row)));
        Ok(())
    }

    /// Silences and acknowledgements, which people add at any time.
    async fn read_notes(&mut self, connection: &mut PgConnection, now: DateTime<Utc>) -> Result<(), DeskError> {
        let silences = store::silences::current(connection, now).await?;
        self.silences = silences.into_iter().filter_map(crate::notes::silence_of).collect();
        let acknowledgements = store::alerts::acknowledgements(connection).await?;
        self.acknowledged =
            acknowledgements.into_iter().map(|(id, note)| (id, crate::notes::acknowledged_until(&note))).collect();
        Ok(())
    }

    /// The minutes that have come into the window with which spikes are compared.
    async fn read_baselines(&mut self, connection: &mut PgConnection, now: DateTime<Utc>) -> Result<(), DeskError> {
        for Baseline { kind, distance, window, known_until } in &mut self.baselines {
            let until = same_minute(now, *distance);
            if until <= *known_until {
                continue;
            }
            let is_known = rollups::is_known(connection, *kind, until - *window, until).await?;
            self.board.set_baseline_known(*kind, *distance, is_known);
            let board = &mut self.board;
            rollups::between(connection, *kind, *known_until, until, |minute| {
                board.add_baseline(view(&minute), *distance);
            })
            .await?;
            *known_until = until;
        }
        Ok(())
    }

    /// Remembers which groups were heard of, and forgets those that were not for long, as rules for first-seen values
    /// ask for it.
    pub(crate) async fn remember_groups(
        &mut self,
        connection: &mut PgConnection,
        now: DateTime<Utc>,
    ) -> Result<(), DeskError> {
        for rule in &self.alerting.rules {
            let Check::FirstSeen { forget_after } = rule.check else { continue };
            // Twice as far back as this is done, so that nothing falls between.
            let since = now - GROUPS_EVERY * 2;
            let heard: Vec<_> =
                self.board.heard(&rule.name, since).into_iter().map(|g| (g.group, json!(g.labels), g.at)).collect();
            store::alerts::know_groups(connection, &rule.name, &heard, now).await?;
            store::alerts::forget_groups(connection, &rule.name, now - forget_after).await?;
            let known = store::alerts::known_groups(connection, &rule.name).await?;
            self.board.set_known_groups(&rule.name, known);
        }
        Ok(())
    }

    /// What is done every minute or so: gauges, and groups that nobody hears of any more.
    pub(crate) fn tidy(&mut self, now: DateTime<Utc>) {
        self.board.forget(now);
        self.rows.retain(|_, row| row.condition != Condition::Inactive.to_string());
        for condition in [Condition::Pending, Condition::Firing, Condition::Recovering] {
            let count = self.rows.values().filter(|row| row.condition == condition.to_string()).count();
            gauge!(metrics::ALERTS, "condition" => condition.to_string()).set(count as f64);
        }
        gauge!(metrics::GROUPS).set(self.board.groups() as f64);
        for (rule, overflow) in self.board.overflow() {
            gauge!(metrics::OVERFLOW, "rule" => rule.to_owned()).set(overflow as f64);
        }
    }
}
