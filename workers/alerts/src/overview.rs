//! The current state of every rule and group, with reasons: the worker's evaluation, once, on demand.

use std::collections::HashMap;
use std::sync::Arc;

use alerting::Alerting;
use alerting::evaluation::{Condition, Data, explain};
use alerting::notification::Labels;
use alerting::rule_engine::{RuleEngine, alert_id};
use alerting::sample::Sample;
use bus::Bus;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use store::PgConnection;
use store::alerts::AlertRow;
use uuid::Uuid;

use crate::evaluator::state_of;
use crate::ingest::Ingest;
use crate::loading::load;
use crate::notifications::labels_of;

/// The current state of a group of a rule.
#[derive(Debug, Clone, Serialize)]
pub struct AlertStatus {
    /// The alert's id, derived from rule and group.
    pub id: Uuid,
    /// The rule's name.
    pub rule: String,
    /// The organization; `_` if the group has none.
    pub organization_id: String,
    /// The group's labels.
    pub labels: Labels,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// The condition.
    pub condition: Condition,
    /// The data quality.
    pub data: Data,
    /// Why it does or does not fire, with figures.
    pub reason: String,
    /// The figures behind it.
    pub figures: Sample,
    /// When it started to fire, in the current or the last episode.
    pub started_at: Option<DateTime<Utc>>,
    /// When it resolved.
    pub ended_at: Option<DateTime<Utc>>,
    /// The silence that matches it.
    pub silenced_by: Option<Uuid>,
    /// The acknowledgement, if there is one.
    pub acknowledgement: Option<Value>,
    /// The last notification to each receiver.
    pub told: Value,
}

/// Evaluates every group of every rule. The lag of ingest is measured if there is a bus to query.
///
/// # Errors
/// Fails if Postgres does not answer.
pub async fn evaluate_all(
    connection: &mut PgConnection,
    bus: &Bus,
    alerting: &Arc<Alerting>,
    max_groups: usize,
    now: DateTime<Utc>,
) -> store::Result<Vec<AlertStatus>> {
    let mut loaded = load(connection, alerting, max_groups, now, ()).await?;
    for (kind, lag) in Ingest::new().measure(bus, connection).await? {
        loaded.engine.set_lag(kind, lag);
    }
    for row in store::alerts::open(connection).await? {
        loaded.engine.restore(row.id, &row.rule, &labels_of(&row.labels), state_of(&row));
    }
    // New groups of rules on first-seen values are for the worker to find.
    loaded.engine.discover(now, |_| true);
    let silences = store::silences::current(connection, now).await?;
    let silences: Vec<_> = silences.into_iter().filter_map(crate::silences::silence_from_row).collect();
    let mut acknowledgements: HashMap<Uuid, Value> =
        store::alerts::acknowledgements(connection).await?.into_iter().collect();
    let mut statuses = Vec::new();
    let evaluated = loaded.engine.evaluate_all(now);
    let id_of = |group| loaded.engine.rule(group).map(|rule| alert_id(&rule.name, &loaded.engine.labels(group)));
    let ids: Vec<Uuid> = evaluated.iter().filter_map(|(group, _, _)| id_of(*group)).collect();
    let rows: HashMap<Uuid, AlertRow> =
        store::alerts::with_ids(connection, &ids).await?.into_iter().map(|row| (row.id, row)).collect();
    for (group, sample, state) in evaluated {
        let Some(rule) = loaded.engine.rule(group).cloned() else { continue };
        let labels = loaded.engine.labels(group);
        let id = alert_id(&rule.name, &labels);
        let row = rows.get(&id);
        let all_labels = rule.alert_labels(&labels);
        let silence = silences.iter().find(|silence| silence.active_at(now) && silence.matches(&all_labels));
        statuses.push(AlertStatus {
            id,
            rule: rule.name.clone(),
            organization_id: RuleEngine::organization(&labels).to_owned(),
            severity: rule.severity.to_string(),
            condition: state.condition,
            data: state.data,
            reason: explain(&rule, &sample, &state, now),
            figures: sample,
            started_at: row.and_then(|row| row.started_at),
            ended_at: row.and_then(|row| row.ended_at),
            silenced_by: silence.map(|silence| silence.id),
            acknowledgement: acknowledgements.remove(&id),
            told: row.map_or_else(|| serde_json::json!({}), |row| row.told.clone()),
            labels,
        });
    }
    Ok(statuses)
}
