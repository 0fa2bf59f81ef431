//! Backtests a rule: the real evaluation, minute by minute, over stored roll-ups.

use std::sync::Arc;

use alerting::evaluation::{Condition, explain};
use alerting::notification::Labels;
use alerting::rule::{Rule, Source};
use alerting::rule_engine::{RuleEngine, Scope};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use store::PgConnection;
use store::rollups::{self, StoredMinute};

use crate::loading::view;
use crate::whole_minute;

/// How much of the past is fetched at once, which bounds memory.
const CHUNK: TimeDelta = TimeDelta::hours(6);

/// A change of the condition that the rule would have made.
#[derive(Debug, Clone, Serialize)]
pub struct SimulatedTransition {
    /// The time: the last second of the evaluated minute.
    pub at: DateTime<Utc>,
    /// The group's labels.
    pub labels: Labels,
    /// The old condition.
    pub from: Condition,
    /// The new condition.
    pub to: Condition,
    /// The reason, with figures.
    pub reason: String,
}

/// Returns the changes that a rule would have made between two times. Calls `tell` with the progress.
///
/// # Errors
/// Fails if Postgres does not answer.
pub async fn backtest(
    connection: &mut PgConnection,
    rule: &Arc<Rule>,
    max_groups: usize,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    mut tell: impl FnMut(DateTime<Utc>),
) -> store::Result<Vec<SimulatedTransition>> {
    let Source::Records(kind) = rule.source else { return Ok(Vec::new()) };
    let mut engine = RuleEngine::new(std::slice::from_ref(rule), max_groups);
    let lookback = engine.lookback().get(&kind).copied().unwrap_or_default();
    let baseline = engine.baselines().first().map(|(_, distance, window)| (*distance, *window));
    let (from, to) = (whole_minute(from), whole_minute(to));
    rollups::between(connection, kind, from - lookback, from, |minute| engine.add(view(&minute))).await?;
    if let Some((distance, window)) = baseline {
        let until = from - distance;
        let is_known = rollups::is_known(connection, kind, until - window, until).await?;
        engine.set_baseline_known(kind, distance, is_known);
        rollups::between(connection, kind, until - window, until, |minute| {
            engine.add_baseline(view(&minute), distance)
        })
        .await?;
    }
    // Groups that exist when a rule starts are not new to it.
    engine.discover(from, |_| true);
    let mut found = Vec::new();
    let mut chunk = from;
    while chunk < to {
        let end = (chunk + CHUNK).min(to);
        let minutes = fetch(connection, kind, chunk, end).await?;
        let before = match baseline {
            Some((distance, _)) => fetch(connection, kind, chunk - distance, end - distance).await?,
            None => Vec::new(),
        };
        let (mut minutes, mut before) = (minutes.iter().peekable(), before.iter().peekable());
        let mut now = chunk;
        while now < end {
            now += TimeDelta::minutes(1);
            while let Some(minute) = minutes.next_if(|minute| minute.minute < now) {
                engine.add(view(minute));
            }
            if let Some((distance, _)) = baseline {
                while let Some(minute) = before.next_if(|minute| minute.minute + distance < now) {
                    engine.add_baseline(view(minute), distance);
                }
            }
            // The last second of the previous minute: windows look back from there.
            step(&mut engine, rule, now - TimeDelta::seconds(1), &mut found);
        }
        tell(end);
        chunk = end;
    }
    Ok(found)
}

async fn fetch(
    connection: &mut PgConnection,
    kind: records::Kind,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> store::Result<Vec<StoredMinute>> {
    let mut minutes = Vec::new();
    rollups::between(connection, kind, from, to, |minute| minutes.push(minute)).await?;
    Ok(minutes)
}

fn step(engine: &mut RuleEngine, rule: &Rule, now: DateTime<Utc>, found: &mut Vec<SimulatedTransition>) {
    engine.discover(now, |_| false);
    for change in engine.evaluate(now, Scope::All) {
        if let Some(transition) = &change.transition {
            found.push(SimulatedTransition {
                at: now,
                labels: engine.labels(change.group),
                from: transition.from,
                to: transition.to,
                reason: explain(rule, &change.sample, &change.after, now),
            });
        }
        engine.apply(change.group, change.after);
    }
    engine.forget(now);
}
