//! The health of strategies, projects, containers and organizations: computed from the same roll-ups, stored next to
//! the alerts, and announced on a subject when it changes.

use std::collections::HashMap;
use std::time::Duration;

use alerting::health::{Entity, Figures, assess};
use alerting::notification::Labels;
use alerting::rule::FailedWhen;
use alerting::rule_engine::RuleEngine;
use alerting::series::{Series, Shape};
use bus::{AnnounceError, Announcement, Bus};
use chrono::{DateTime, TimeDelta, Utc};
use records::Kind;
use records::rollup::ORGANIZATION;
use records::subject::NO_ORGANIZATION;
use runtime::config::HealthThresholds;
use serde_json::{Value, json};
use store::health::HealthRow;
use store::rollups::StoredMinute;
use store::{Connection, PgConnection};

use crate::evaluator::EvaluatorError;
use crate::loading::{RollupObserver, view};

/// How often the figures of an entity are stored if its health does not change.
const REFRESH_AFTER: TimeDelta = TimeDelta::seconds(60);
/// How long NATS may take to accept announcements. Those that it does not accept in time are announced later.
const ANNOUNCE_WITHIN: Duration = Duration::from_secs(2);
/// The level by which containers are assessed.
const CPU: &str = "cpu_usage_percent";

/// Organization, type and id of an entity.
type Key = (String, Entity, String);

/// The health of an entity, as stored.
#[derive(Debug, Clone)]
struct StoredHealth {
    state: String,
    figures: Value,
    updated_at: DateTime<Utc>,
    last_seen_at: DateTime<Utc>,
}

/// What a series measures of an entity.
#[derive(Debug, Clone, Copy)]
enum Measure {
    Executions,
    Critical,
    Errors,
    Warnings,
    Events,
    Cpu,
    Activity,
}

/// The health of all entities; see the module.
#[derive(Debug)]
pub(crate) struct Entities {
    thresholds: HealthThresholds,
    window: TimeDelta,
    series: Vec<(Entity, Measure, Series)>,
    known: HashMap<Key, StoredHealth>,
}

impl Entities {
    /// Creates the series, all empty.
    pub(crate) fn new(thresholds: HealthThresholds, max_groups: usize) -> Self {
        let mut entities =
            Self { window: delta(thresholds.window), thresholds, series: Vec::new(), known: HashMap::new() };
        let mut add = |entity, measure, kind, failed_when| entities.add(entity, measure, kind, failed_when, max_groups);
        add(Entity::Strategy, Measure::Executions, Kind::Executions, None);
        add(Entity::Project, Measure::Critical, Kind::Errors, Some("severity == 'critical'"));
        add(Entity::Project, Measure::Errors, Kind::Errors, Some("severity == 'error'"));
        add(Entity::Project, Measure::Warnings, Kind::Errors, Some("severity == 'warning'"));
        add(Entity::Project, Measure::Events, Kind::Events, None);
        add(Entity::Container, Measure::Cpu, Kind::Metrics, None);
        add(Entity::Container, Measure::Activity, Kind::Logs, None);
        add(Entity::Organization, Measure::Executions, Kind::Executions, None);
        for kind in [Kind::Events, Kind::Errors, Kind::Metrics, Kind::Logs, Kind::Audit] {
            add(Entity::Organization, Measure::Activity, kind, None);
        }
        entities
    }

    fn add(&mut self, entity: Entity, measure: Measure, kind: Kind, failed_when: Option<&str>, max_groups: usize) {
        let mut group_by = vec![ORGANIZATION.to_owned()];
        group_by.extend(label(entity).map(str::to_owned));
        let shape = Shape {
            kind: Some(kind),
            filter: Labels::new(),
            failed_when: failed_when.and_then(|text| FailedWhen::parse(kind, text).ok()),
            group_by,
            window: self.window,
            field: matches!(measure, Measure::Cpu).then(|| CPU.to_owned()),
        };
        self.series.push((entity, measure, Series::new(shape, max_groups)));
    }

    /// Loads the stored health.
    ///
    /// # Errors
    /// Fails if Postgres does not answer.
    pub(crate) async fn load_known(&mut self, connection: &mut PgConnection) -> Result<(), EvaluatorError> {
        for row in store::health::all(connection).await? {
            let Some(entity) = Entity::ALL.into_iter().find(|entity| entity.name() == row.entity) else { continue };
            let known = StoredHealth {
                state: row.state,
                figures: row.figures,
                updated_at: row.updated_at,
                last_seen_at: row.last_seen_at,
            };
            self.known.insert((row.organization_id, entity, row.entity_id), known);
        }
        Ok(())
    }

    /// Assesses every entity, stores what is new, and announces changes.
    ///
    /// # Errors
    /// Fails if Postgres does not answer.
    pub(crate) async fn update_health(
        &mut self,
        connection: &mut PgConnection,
        bus: &Bus,
        engine: &RuleEngine,
        now: DateTime<Utc>,
    ) -> Result<(), EvaluatorError> {
        let mut rows = Vec::new();
        for (key, entity_figures) in self.collect_figures(now) {
            // If records are missing, silence means nothing.
            let is_stale = kinds(key.1).iter().any(|kind| engine.lag(*kind).is_some_and(|lag| lag.stale.is_some()));
            if is_stale {
                continue;
            }
            let Some(last_seen_at) = entity_figures.last_seen_at else { continue };
            let finding = assess(key.1, &entity_figures, &self.thresholds, now);
            let figures = json!(entity_figures);
            let state = finding.health.to_string();
            let is_news = self.known.get(&key).is_none_or(|known| {
                known.state != state || (known.figures != figures && now - known.updated_at >= REFRESH_AFTER)
            });
            if !is_news {
                continue;
            }
            let (organization_id, entity, entity_id) = key.clone();
            rows.push(HealthRow {
                organization_id,
                entity: entity.name().to_owned(),
                entity_id,
                state: state.clone(),
                reason: finding.reason,
                figures: figures.clone(),
                since: now,
                updated_at: now,
                last_seen_at,
            });
            self.known.insert(key, StoredHealth { state, figures, updated_at: now, last_seen_at });
        }
        if !rows.is_empty() {
            let mut transaction = connection.begin().await?;
            store::health::put(&mut transaction, &rows).await?;
            transaction.commit().await?;
        }
        announce(connection, bus).await
    }

    /// Collects the figures of every entity from all series, including entities that were not seen for a while.
    fn collect_figures(&mut self, now: DateTime<Utc>) -> HashMap<Key, Figures> {
        let mut all: HashMap<Key, Figures> = HashMap::new();
        for (key, known) in &self.known {
            all.insert(key.clone(), Figures { last_seen_at: Some(known.last_seen_at), ..Figures::default() });
        }
        for (entity, measure, series) in &mut self.series {
            for slot in series.slots().collect::<Vec<_>>() {
                let labels = series.labels(slot);
                let organization = labels.get(ORGANIZATION).cloned().unwrap_or_else(|| NO_ORGANIZATION.to_owned());
                let id = match label(*entity) {
                    Some(label) => labels.get(label).cloned(),
                    // Records without an organization do not form one.
                    None => (organization != NO_ORGANIZATION).then(|| organization.clone()),
                };
                let Some(id) = id else { continue };
                let figures = series.figures(slot, now);
                let entity_figures = all.entry((organization, *entity, id)).or_default();
                entity_figures.last_seen_at = entity_figures.last_seen_at.max(figures.last_seen_at);
                match measure {
                    Measure::Executions => {
                        (entity_figures.executions, entity_figures.failed) = (figures.total, figures.failed)
                    }
                    Measure::Critical => entity_figures.critical = figures.failed,
                    Measure::Errors => entity_figures.errors = figures.failed,
                    Measure::Warnings => entity_figures.warnings = figures.failed,
                    Measure::Events => entity_figures.events = figures.total,
                    Measure::Cpu => {
                        (entity_figures.cpu_samples, entity_figures.cpu_sum) =
                            (u64::from(figures.level.samples), figures.level.sum)
                    }
                    Measure::Activity => {}
                }
            }
        }
        all
    }

    /// Forgets entities that were not seen for as long as they are remembered.
    pub(crate) fn forget(&mut self, now: DateTime<Utc>, retention: TimeDelta) {
        self.known.retain(|_, known| now - known.last_seen_at < retention);
        for (_, _, series) in &mut self.series {
            let since = now - series.shape().window;
            series.forget(since, |_| false);
        }
    }
}

impl RollupObserver for Entities {
    fn lookback(&self) -> TimeDelta {
        self.window
    }

    /// For past roll-ups the minute counts as the time of arrival. Stored health adds when records really arrived.
    fn observe(&mut self, minute: &StoredMinute, new_at: Option<DateTime<Utc>>) {
        for (_, _, series) in &mut self.series {
            match new_at {
                Some(now) => series.add_new(view(minute), now),
                None => series.add(view(minute)),
            }
        }
    }
}

/// Returns the label that identifies an entity of this type; `None` for an organization, which has its own.
const fn label(entity: Entity) -> Option<&'static str> {
    match entity {
        Entity::Strategy => Some("strategy_id"),
        Entity::Project => Some("project_id"),
        Entity::Container => Some("container_id"),
        Entity::Organization => None,
    }
}

/// Returns the kinds by which an entity is assessed.
const fn kinds(entity: Entity) -> &'static [Kind] {
    match entity {
        Entity::Strategy | Entity::Organization => &[Kind::Executions],
        Entity::Project => &[Kind::Errors, Kind::Events],
        Entity::Container => &[Kind::Metrics],
    }
}

/// Announces changes and marks them as announced. After a crash in between they are announced again: at least once.
async fn announce(connection: &mut PgConnection, bus: &Bus) -> Result<(), EvaluatorError> {
    let rows = store::health::unannounced(connection).await?;
    if rows.is_empty() {
        return Ok(());
    }
    let announcements = rows.iter().map(|row| Announcement {
        subject: format!("{}.health.{}.{}", bus.prefix(), row.organization_id, row.entity),
        id: format!("{}:{}:{}:{}", row.organization_id, row.entity, row.entity_id, row.updated_at.timestamp_micros()),
        body: json!({
            "organization_id": row.organization_id, "entity": row.entity, "entity_id": row.entity_id,
            "state": row.state, "reason": row.reason, "figures": row.figures, "since": row.since,
        })
        .to_string()
        .into(),
    });
    match tokio::time::timeout(ANNOUNCE_WITHIN, bus.announce(announcements.collect())).await {
        Ok(Ok(())) => {}
        Ok(Err(error @ AnnounceError::Refused { .. })) => {
            // Mark it as announced: it would be refused again, and block everything behind it.
            tracing::warn!(%error, "a health change cannot be announced");
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "health changes will be announced later");
            return Ok(());
        }
        Err(_) => return Ok(()),
    }
    Ok(store::health::announced(connection, &rows).await?)
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}
