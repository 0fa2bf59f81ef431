//! Seven days of history for `up --demo`, published through NATS as services would have published it.
//!
//! Every record, including its id, is a function of organization and hour. So publishing it again gives the same
//! record, which is stored once. A file in the data directory marks the history as done, so a later start adds nothing.
//!
//! Records that are older than 15 minutes are counted in the minute in which the stream received them, so all of the
//! history counts in the demo's first minute. Therefore few of its executions fail overall, and none of its errors is
//! critical. It is stored before rule evaluation starts, so its error types are not new to the rules.

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use bus::Bus;
use chrono::{DateTime, Datelike, TimeDelta, Timelike, Utc, Weekday};
use fastrand::Rng;
use futures::future::join_all;

use records::logs::Output;
use records::{AuditRecord, Entity, ErrorRecord, Event, Execution, Kind, LogLine, MetricSample, Outgoing, Record};
use runtime::Config;
use serde_json::json;
use store::{Database, positions};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::world;
use crate::process;
use crate::workers::Writers;

/// Length of the history in days.
const DAYS: i64 = 7;
/// The namespace of the records' ids.
const NAMESPACE: Uuid = Uuid::from_u128(0x1d27_5a0e_84b3_5c61_9e0f_3b7c_52d8_a640);
/// The file in the data directory that marks the history as done.
const DONE: &str = "demo-history";
/// Time limit. Publishing takes two seconds; records that are not stored by then are stored while everything runs.
const WITHIN: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(20);

/// Publishes the history and waits until it is stored, unless that was done before.
///
/// # Errors
/// If NATS rejects it.
pub(crate) async fn provide(config: &Config, bus: &Bus, database: &Database, directory: &Path) -> anyhow::Result<()> {
    let done = directory.join(DONE);
    if done.exists() {
        return Ok(());
    }
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let mut connections = Vec::new();
    Writers { health: &runtime::Health::default(), stop: &stop, tasks: &tasks }
        .start(config, database, Kind::ALL, &[], &mut connections)
        .await?;
    tasks.close();
    let provided = tokio::time::timeout(WITHIN, async {
        publish(config, bus).await?;
        settle(bus, database).await
    })
    .await;
    stop.cancel();
    let _ = tokio::time::timeout(WITHIN, tasks.wait()).await;
    join_all(connections.iter().map(Bus::close)).await;
    match provided {
        Ok(provided) => provided.context("publish the demo's history")?,
        Err(_) => {
            tracing::warn!("the demo's history is not stored yet after {} s; it will be stored later", WITHIN.as_secs())
        }
    }
    std::fs::write(&done, "").with_context(|| format!("create {}", done.display()))
}

async fn publish(config: &Config, bus: &Bus) -> anyhow::Result<()> {
    let publisher = process::publisher_builder(config).source(world::SOURCE).from_client(bus.client())?;
    let until = Utc::now();
    for (number, organization) in world::ORGANIZATIONS.iter().enumerate() {
        let history = History::of(organization, number as u64, until);
        let publisher = publisher.for_organization(organization)?;
        publisher.publish_batch_outgoing(history.directory).await?;
        publisher.publish_batch_outgoing(history.events).await?;
        publisher.publish_batch_outgoing(history.executions).await?;
        publisher.publish_batch_outgoing(history.errors).await?;
        publisher.publish_batch_outgoing(history.audit).await?;
        publisher.publish_batch_outgoing(history.metrics).await?;
        publisher.publish_batch_outgoing(history.logs).await?;
    }
    Ok(())
}

/// Waits until the writers have settled everything in the streams.
async fn settle(bus: &Bus, database: &Database) -> anyhow::Result<()> {
    let mut connection = process::connect(database).await?;
    for &kind in Kind::ALL {
        let last = bus.stream_state(kind).await?.last_sequence;
        while positions::find(&mut connection, &bus.stream_name(kind))
            .await?
            .is_none_or(|account| account.position.settled_up_to() < last)
        {
            tokio::time::sleep(POLL_EVERY).await;
        }
    }
    Ok(())
}

/// The history of an organization.
#[derive(Debug, Default)]
struct History {
    directory: Vec<Outgoing<Entity<'static>>>,
    events: Vec<Outgoing<Event<'static>>>,
    executions: Vec<Outgoing<Execution<'static>>>,
    errors: Vec<Outgoing<ErrorRecord<'static>>>,
    audit: Vec<Outgoing<AuditRecord<'static>>>,
    metrics: Vec<Outgoing<MetricSample<'static>>>,
    logs: Vec<Outgoing<LogLine<'static>>>,
}

/// One hour of an organization's history.
struct Hour {
    organization: &'static str,
    starts_at: DateTime<Utc>,
    until: DateTime<Utc>,
    rng: Rng,
    /// Number of the last record in this hour, for ids.
    number: u32,
}

impl History {
    /// Returns the history of the seven days before `until`.
    fn of(organization: &'static str, number: u64, until: DateTime<Utc>) -> Self {
        let mut history = Self::default();
        let last = until.timestamp().div_euclid(3_600);
        for hour in last - 24 * DAYS..=last {
            let seed = hour.unsigned_abs() * world::ORGANIZATIONS.len() as u64 + number;
            let Some(starts_at) = DateTime::from_timestamp(hour * 3_600, 0) else { continue };
            let mut hour = Hour { organization, starts_at, until, rng: Rng::with_seed(seed), number: 0 };
            if history.directory.is_empty() {
                history.introduce(&mut hour);
                // Reset, so that the ids of the hour's other records do not depend on whether it is the first.
                hour.number = 0;
            }
            history.runs(&mut hour);
            history.deployment(&mut hour);
            history.executions(&mut hour);
            history.errors(&mut hour);
            history.actions(&mut hour);
            history.containers(&mut hour);
        }
        history
    }

    fn introduce(&mut self, hour: &mut Hour) {
        for (second, entity) in super::entities(hour.organization).into_iter().enumerate() {
            hour.push(&mut self.directory, second as u32, entity);
        }
    }

    /// Adds runs, each from start to end.
    fn runs(&mut self, hour: &mut Hour) {
        for _ in 0..hour.count(3.0) {
            let run = format!("run-{:08x}", hour.rng.u32(..));
            let project = pick(&mut hour.rng, world::PROJECTS);
            let user = pick(&mut hour.rng, world::PEOPLE).0;
            let mut second = hour.rng.u32(0..3_000);
            let mut event = |hour: &mut Hour, second, event_type: &'static str, payload| {
                let event = super::event(&run, project, user, event_type, payload);
                hour.push(&mut self.events, second, event);
            };
            let trigger = if hour.rng.f64() < 0.7 { "push" } else { "manual" };
            event(hour, second, "run.started", json!({ "trigger": trigger }));
            let breaks_at =
                if hour.rng.f64() < 0.08 { hour.rng.usize(1..world::STEPS.len()) } else { world::STEPS.len() };
            for (number, step) in world::STEPS.iter().enumerate() {
                let took = hour.rng.u32(2..60);
                second += took;
                if number == breaks_at {
                    event(hour, second, "run.failed", json!({ "step": step, "steps": number }));
                    break;
                }
                event(hour, second, "step.finished", json!({ "step": step, "duration_ms": took * 1_000 }));
            }
            if breaks_at == world::STEPS.len() {
                event(hour, second + 1, "run.finished", json!({ "steps": world::STEPS.len() }));
            }
        }
    }

    /// Adds one bad deployment a week, with its rollback.
    fn deployment(&mut self, hour: &mut Hour) {
        if !is_incident(hour.starts_at) {
            return;
        }
        let (minute, phase) = match hour.starts_at.hour() {
            INCIDENT_HOUR => (0, super::Deployment::Finished),
            _ => (ROLLED_BACK_AT, super::Deployment::RolledBack),
        };
        hour.push(&mut self.audit, 60 * minute, phase.audit());
        hour.push(&mut self.events, 60 * minute + 20, phase.event());
    }

    fn executions(&mut self, hour: &mut Hour) {
        for _ in 0..hour.count(10.0) {
            let second = hour.rng.u32(0..3_600);
            let (strategy, _, failing) = *pick(&mut hour.rng, world::STRATEGIES);
            let is_bad =
                is_incident(hour.starts_at) && (hour.starts_at.hour() == INCIDENT_HOUR || second < 60 * ROLLED_BACK_AT);
            let success = hour.rng.f64() >= if is_bad { 0.75 } else { failing };
            let mut execution = super::execution(&mut hour.rng, strategy, success);
            // Executions get faster from day to day, so that trends have something to show.
            let age = (hour.until - hour.starts_at).num_days();
            execution.execution_time_ms = execution.execution_time_ms * (10 + age) / 10;
            hour.push(&mut self.executions, second, execution);
        }
    }

    fn errors(&mut self, hour: &mut Hour) {
        let mut failures: Vec<usize> = (0..hour.count(1.5)).map(|_| hour.rng.usize(1..world::failures())).collect();
        // Each failure at least once a day, so that none is new when rule evaluation starts.
        let of_the_hour = hour.starts_at.hour() as usize;
        failures.extend((of_the_hour < world::failures()).then_some(of_the_hour));
        if is_incident(hour.starts_at) && hour.starts_at.hour() == INCIDENT_HOUR {
            failures.extend([world::OF_A_BAD_DEPLOYMENT; 12]);
        }
        for failure in failures {
            let (second, user) = (hour.rng.u32(0..3_600), pick(&mut hour.rng, world::PEOPLE).0);
            let error = world::error(failure, &mut hour.rng);
            if let Some(outgoing) = hour.outgoing(second, error) {
                let attributes = [("user_id".to_owned(), user.into())].into_iter().collect();
                self.errors.push(Outgoing { attributes, ..outgoing });
            }
        }
    }

    fn actions(&mut self, hour: &mut Hour) {
        for _ in 0..hour.count(1.5) {
            let (second, action) = (hour.rng.u32(0..3_600), super::action(&mut hour.rng));
            hour.push(&mut self.audit, second, action);
        }
    }

    /// Adds a sample of each container every ten minutes, and a log line every half hour.
    fn containers(&mut self, hour: &mut Hour) {
        let busy = busyness(hour.starts_at);
        for container in 1..=world::CONTAINERS {
            let id: Cow<'static, str> = world::container(hour.organization, container).into();
            for minute in (0..60).step_by(10) {
                let rng = &mut hour.rng;
                let sample = MetricSample {
                    container_id: id.clone(),
                    cpu_usage_percent: Some(5.0 + 60.0 * busy + 10.0 * rng.f64()),
                    memory_usage_bytes: Some((180 + rng.i64(0..60) + (200.0 * busy) as i64) << 20),
                    network_rx_bytes: Some(rng.i64(1_000..400_000)),
                    network_tx_bytes: Some(rng.i64(1_000..900_000)),
                };
                hour.push(&mut self.metrics, 60 * minute + container, sample);
                if minute % 30 == 0 {
                    let stream = if hour.rng.f64() < 0.1 { Output::Stderr } else { Output::Stdout };
                    let message = (*pick(&mut hour.rng, world::LOG_LINES)).into();
                    let line = LogLine { container_id: id.clone(), stream, message };
                    hour.push(&mut self.logs, 60 * minute + 7 * container, line);
                }
            }
        }
    }
}

impl Hour {
    /// Returns how often something happens in this hour, from how often it happens in a busy hour.
    fn count(&mut self, often: f64) -> u32 {
        (often * busyness(self.starts_at) + self.rng.f64()) as u32
    }

    fn outgoing<R: Record>(&mut self, second: u32, record: R) -> Option<Outgoing<R>> {
        let created_at = self.starts_at + TimeDelta::seconds(second.into());
        self.number += 1;
        let name = format!("{} {} {} {}", self.organization, R::KIND, self.starts_at.timestamp(), self.number);
        let id = Uuid::new_v5(&NAMESPACE, name.as_bytes());
        let source = Some(world::SOURCE.to_owned());
        let has_happened = (self.until - TimeDelta::days(DAYS)..=self.until).contains(&created_at);
        has_happened.then(|| Outgoing { id, created_at, source, attributes: serde_json::Map::new(), record })
    }

    fn push<R: Record>(&mut self, into: &mut Vec<Outgoing<R>>, second: u32, record: R) {
        into.extend(self.outgoing(second, record));
    }
}

/// The hour (UTC) of the bad deployment. It is rolled back `ROLLED_BACK_AT` minutes into the next hour.
const INCIDENT_HOUR: u32 = 13;
const ROLLED_BACK_AT: u32 = 20;

/// Returns whether the bad deployment affects this hour: on Wednesday, which occurs once in seven days.
fn is_incident(hour: DateTime<Utc>) -> bool {
    hour.weekday() == Weekday::Wed && (INCIDENT_HOUR..=INCIDENT_HOUR + 1).contains(&hour.hour())
}

/// Returns how busy an hour is, from 0 to 1.
fn busyness(hour: DateTime<Utc>) -> f64 {
    let of_the_day = match hour.hour() {
        6..=9 => 0.7,
        10..=17 => 1.0,
        18..=21 => 0.5,
        _ => 0.15,
    };
    if matches!(hour.weekday(), Weekday::Sat | Weekday::Sun) { 0.4 * of_the_day } else { of_the_day }
}

fn pick<'t, T>(rng: &mut Rng, items: &'t [T]) -> &'t T {
    &items[rng.usize(..items.len())]
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use super::*;

    fn noon() -> DateTime<Utc> {
        "2026-06-19T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn every_day_has_something_of_every_kind_and_little_of_it_failed() {
        fn days<R>(records: &[Outgoing<R>]) -> usize {
            records.iter().map(|record| record.created_at.date_naive()).collect::<BTreeSet<_>>().len()
        }
        for (number, organization) in world::ORGANIZATIONS.iter().enumerate() {
            let history = History::of(organization, number as u64, noon());
            // Seven days from noon to noon touch eight dates.
            assert_eq!(
                [
                    days(&history.events),
                    days(&history.executions),
                    days(&history.errors),
                    days(&history.audit),
                    days(&history.metrics),
                    days(&history.logs)
                ],
                [DAYS as usize + 1; 6],
                "{organization}"
            );
            let failed = history.executions.iter().filter(|execution| !execution.record.success).count();
            assert!(10 * failed < 2 * history.executions.len(), "{failed} of {}", history.executions.len());
            let worst = history.executions.iter().filter(|execution| is_incident(execution.created_at));
            assert!(worst.filter(|execution| !execution.record.success).count() > 5);
            let types: BTreeSet<_> = history.errors.iter().map(|error| error.record.error_type.to_string()).collect();
            let mut rng = Rng::with_seed(1);
            assert!((0..world::failures()).all(|kind| types.contains(&*world::error(kind, &mut rng).error_type)));
        }
    }

    #[test]
    fn published_again_later_it_is_the_same() {
        let ids = |until| -> HashMap<Uuid, DateTime<Utc>> {
            let history = History::of("acme", 0, until);
            history.executions.iter().map(|execution| (execution.id, execution.created_at)).collect()
        };
        let (first, again) = (ids(noon()), ids(noon() + TimeDelta::minutes(90)));
        let missing: Vec<_> = first.iter().filter(|(id, at)| again.get(*id) != Some(at)).collect();
        // Records that are now older than seven days are left out.
        assert!(missing.iter().all(|(_, at)| **at < noon() + TimeDelta::minutes(90) - TimeDelta::days(DAYS)));
        assert!(missing.len() < first.len() / 10 && !first.is_empty());
    }
}
