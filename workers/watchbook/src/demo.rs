//! Realistic traffic for `up --demo`, published through the publisher crate as a service would do it.
//!
//! It begins with seven days of [`history`]. After that, containers report usage and write logs; runs start, progress
//! and finish; strategies are executed; operators change things and are audited; and errors happen. Once an hour, a
//! deployment goes wrong and is rolled back: more executions fail than the built-in rules allow, so their alerts fire
//! and resolve.

pub(crate) mod history;
mod world;

use std::borrow::Cow;
use std::time::Duration;

use bus::Bus;
use fastrand::Rng;
use publisher::{BufferOptions, Buffered, PushError};
use records::audit::Status;
use records::directory::EntityKind;
use records::errors::Severity;
use records::executions::ExecutionType;
use records::logs::Output;
use records::{ActorType, AuditRecord, Entity, ErrorRecord, Event, Execution, Json, LogLine, MetricSample, Record};
use runtime::Config;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use self::world::{ACTIONS, LOG_LINES, ORGANIZATIONS, PEOPLE, PROJECTS, STEPS, STRATEGIES};
use crate::process;

/// Interval of simulation steps. Ten a second look alive and cost little.
const STEP: Duration = Duration::from_millis(100);
/// Interval of bad deployments: the window of `execution-failure-rate`, which the previous one has left by then.
const CYCLE: Duration = Duration::from_secs(60 * 60);
/// When the bad deployment happens within a cycle.
const DEPLOYED_AT: Duration = Duration::from_secs(2 * 60);
/// When it is rolled back. By then more than 30 % of an hour's executions have failed, including the history that
/// counts in the first minute, and 60 % of those of five minutes. A quarter of an hour later it is less than 25 %
/// again.
const ROLLED_BACK_AT: Duration = Duration::from_secs(5 * 60 + 30);
/// Multiplies executions during a bad deployment, because users try again.
const RETRIES: u32 = 2;
/// How long a stop waits for acknowledgements of the last records.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// The simulation.
pub(crate) struct Demo {
    organizations: Vec<Organization>,
}

struct Organization {
    name: &'static str,
    publisher: Buffered,
    containers: Vec<Container>,
    runs: Vec<BuildRun>,
}

struct Container {
    id: String,
    cpu: f64,
    memory: i64,
    received: i64,
    sent: i64,
}

struct BuildRun {
    id: String,
    project: &'static str,
    user: &'static str,
    step: usize,
}

impl Demo {
    pub(crate) fn new(config: &Config, bus: &Bus) -> anyhow::Result<Self> {
        let publisher = process::publisher_builder(config).source(world::SOURCE).from_client(bus.client())?;
        debug_assert_eq!(publisher.prefix(), process::publisher(config, bus)?.prefix());
        let organizations = ORGANIZATIONS
            .iter()
            .map(|name| {
                let publisher = publisher.for_organization(name)?.buffered(BufferOptions::default());
                let containers = (1..=world::CONTAINERS).map(|number| Container::new(world::container(name, number)));
                let containers = containers.collect();
                Ok(Organization { name, publisher, containers, runs: Vec::new() })
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { organizations })
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        for organization in &self.organizations {
            organization.introduce();
        }
        let (started, mut was_bad) = (Instant::now(), false);
        let mut steps = interval(STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for step in 0_u64.. {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = steps.tick() => {}
            }
            let in_cycle = Duration::from_secs(started.elapsed().as_secs() % CYCLE.as_secs());
            let is_bad = (DEPLOYED_AT..ROLLED_BACK_AT).contains(&in_cycle);
            for organization in &mut self.organizations {
                if is_bad != was_bad {
                    let phase = if is_bad { Deployment::Finished } else { Deployment::RolledBack };
                    organization.push(phase.audit());
                    organization.push(phase.event());
                }
                organization.step(step, is_bad);
            }
            was_bad = is_bad;
        }
        for organization in &self.organizations {
            if let Err(left) = organization.publisher.close(FLUSH_WITHIN).await {
                tracing::debug!(organization = organization.name, ?left, "demo records were not acknowledged");
            }
        }
    }
}

impl Organization {
    fn introduce(&self) {
        entities(self.name).into_iter().for_each(|entity| self.push(entity));
    }

    fn step(&mut self, step: u64, bad: bool) {
        // Each container reports every two seconds, at different times.
        for (index, container) in self.containers.iter_mut().enumerate() {
            if (step + index as u64).is_multiple_of(20) {
                let sample = container.sample();
                push(&self.publisher, sample);
            }
        }
        if chance(0.6) {
            self.log();
        }
        if chance(0.08) {
            self.start_run();
        }
        self.advance_runs();
        if chance(0.25) {
            for _ in 0..if bad { RETRIES } else { 1 } {
                self.execute(bad);
            }
        }
        if chance(0.02) {
            self.act();
        }
        if chance(if bad { 0.08 } else { 0.01 }) {
            self.fail(bad);
        }
    }

    fn log(&self) {
        let container = pick(&self.containers);
        let stream = if chance(0.1) { Output::Stderr } else { Output::Stdout };
        self.push(LogLine { container_id: container.id.as_str().into(), stream, message: (*pick(LOG_LINES)).into() });
    }

    fn start_run(&mut self) {
        let run = BuildRun {
            id: format!("run-{:08x}", fastrand::u32(..)),
            project: pick::<&str>(PROJECTS),
            user: pick(PEOPLE).0,
            step: 0,
        };
        self.publisher_event(&run, "run.started", json!({ "trigger": if chance(0.7) { "push" } else { "manual" } }));
        self.runs.push(run);
    }

    fn advance_runs(&mut self) {
        let mut runs = std::mem::take(&mut self.runs);
        runs.retain_mut(|run| {
            if !chance(0.1) {
                return true;
            }
            let Some(step) = STEPS.get(run.step) else {
                self.publisher_event(run, "run.finished", json!({ "steps": run.step }));
                return false;
            };
            self.publisher_event(
                run,
                "step.finished",
                json!({ "step": step, "duration_ms": fastrand::u32(200..9_000) }),
            );
            run.step += 1;
            true
        });
        self.runs = runs;
    }

    fn publisher_event(&self, run: &BuildRun, event_type: &'static str, payload: serde_json::Value) {
        self.push(event(&run.id, run.project, run.user, event_type, payload));
    }

    fn execute(&self, bad: bool) {
        let (strategy, _, failing) = *pick(STRATEGIES);
        let success = !chance(if bad { 0.85 } else { failing });
        self.push(execution(&mut Rng::new(), strategy, success));
    }

    fn act(&self) {
        self.push(action(&mut Rng::new()));
    }

    fn fail(&self, bad: bool) {
        let mut rng = Rng::new();
        let number = if bad && chance(0.7) { world::OF_A_BAD_DEPLOYMENT } else { rng.usize(..world::failures()) };
        let error = world::error(number, &mut rng);
        let severity = if bad && chance(0.1) { Severity::Critical } else { error.severity };
        self.push(ErrorRecord { severity, ..error });
    }

    fn push(&self, record: impl Record) {
        push(&self.publisher, record);
    }
}

impl Container {
    fn new(id: String) -> Self {
        Self { id, cpu: 20.0, memory: 200 << 20, received: 0, sent: 0 }
    }

    /// Returns the next sample. Usage drifts and does not jump.
    fn sample(&mut self) -> MetricSample<'_> {
        self.cpu = (self.cpu + fastrand::f64() * 12.0 - 6.0).clamp(1.0, 160.0);
        self.memory = (self.memory + fastrand::i64(-8..9) * (1 << 20)).clamp(64 << 20, 900 << 20);
        self.received += fastrand::i64(1_000..400_000);
        self.sent += fastrand::i64(1_000..900_000);
        MetricSample {
            container_id: self.id.as_str().into(),
            cpu_usage_percent: Some(self.cpu),
            memory_usage_bytes: Some(self.memory),
            network_rx_bytes: Some(self.received),
            network_tx_bytes: Some(self.sent),
        }
    }
}

/// A deployment that goes wrong.
#[derive(Debug, Clone, Copy)]
enum Deployment {
    Finished,
    RolledBack,
}

impl Deployment {
    const VERSION: &str = "4.2.0";
    const BEFORE: &str = "4.1.7";

    /// Returns the audit record of the deployment or its rollback.
    fn audit(self) -> AuditRecord<'static> {
        let (actor, action, reason) = match self {
            Self::Finished => ("grace", "deployment.create", None),
            Self::RolledBack => ("ada", "deployment.rollback", Some("executions fail since 4.2.0")),
        };
        AuditRecord {
            actor_id: actor.into(),
            actor_type: ActorType::User,
            action: action.into(),
            target_type: "project".into(),
            target_id: "checkout".into(),
            reason: reason.map(Into::into),
            user_agent: Some("watchbook-demo/1.0".into()),
            ..AuditRecord::default()
        }
    }

    fn event(self) -> Event<'static> {
        let (user, event_type, payload) = match self {
            Self::Finished => ("grace", "deployment.finished", json!({ "version": Self::VERSION })),
            Self::RolledBack => {
                ("ada", "deployment.rolled_back", json!({ "version": Self::BEFORE, "was": Self::VERSION }))
            }
        };
        Event { run_id: None, ..event("", "checkout", user, event_type, payload) }
    }
}

/// Returns the directory records for the ids of an organization.
fn entities(organization: &str) -> Vec<Entity<'static>> {
    let entity = |entity, id: &str, name: &str, email| Entity {
        entity,
        entity_id: Cow::Owned(id.to_owned()),
        name: Some(Cow::Owned(name.to_owned())),
        email,
        ..Entity::default()
    };
    let mut all = vec![entity(EntityKind::Organization, organization, organization, None)];
    for (id, name) in PEOPLE {
        all.push(entity(EntityKind::User, id, name, Some(Cow::Owned(format!("{id}@{organization}.example")))));
    }
    all.extend(STRATEGIES.iter().map(|(id, name, _)| entity(EntityKind::Strategy, id, name, None)));
    all.extend(PROJECTS.iter().map(|project| entity(EntityKind::Project, project, project, None)));
    let containers = (1..=world::CONTAINERS).map(|number| world::container(organization, number));
    all.extend(containers.map(|id| entity(EntityKind::Container, &id, &id, None)));
    all
}

fn event(
    run: &str,
    project: &'static str,
    user: &'static str,
    event_type: &'static str,
    payload: serde_json::Value,
) -> Event<'static> {
    Event {
        event_type: event_type.into(),
        payload: Json::of(&payload).unwrap_or_default(),
        project_id: Some(project.into()),
        run_id: Some(Cow::Owned(run.to_owned())),
        user_id: Some(user.into()),
        actor_type: ActorType::User,
        actor_id: Some(user.into()),
    }
}

fn execution(rng: &mut Rng, strategy: &'static str, success: bool) -> Execution<'static> {
    let timed_out = !success && rng.f64() < 0.3;
    Execution {
        user_id: PEOPLE[rng.usize(..PEOPLE.len())].0.into(),
        strategy_id: strategy.into(),
        execution_type: if rng.bool() { ExecutionType::Validation } else { ExecutionType::Terminal },
        success,
        execution_time_ms: if timed_out { 30_000 } else { rng.i64(80..4_000) },
        memory_used_mb: Some(rng.i64(40..600)),
        cpu_usage_percent: Some(rng.f64() * 100.0),
        timed_out,
        error_count: if success { 0 } else { rng.i64(1..4) },
        warning_count: rng.i64(0..3),
        classes_found: Some(vec!["Strategy".to_owned(), "Signal".to_owned()]),
        metadata: None,
    }
}

fn action(rng: &mut Rng) -> AuditRecord<'static> {
    let (action, target_type) = ACTIONS[rng.usize(..ACTIONS.len())];
    let refused = action == "project.delete" && rng.bool();
    AuditRecord {
        actor_id: PEOPLE[rng.usize(..PEOPLE.len())].0.into(),
        actor_type: ActorType::User,
        action: action.into(),
        target_type: target_type.into(),
        target_id: PROJECTS[rng.usize(..PROJECTS.len())].into(),
        status: if refused { Status::Failure } else { Status::Success },
        error_details: refused.then(|| "not an owner of the project".into()),
        ip_address: Some(std::net::IpAddr::from([10, 0, 3, rng.u8(1..255)]).into()),
        user_agent: Some("watchbook-demo/1.0".into()),
        ..AuditRecord::default()
    }
}

/// Publishes a record. The simulation continues while NATS is down; records that the buffer cannot hold are dropped.
fn push<R: Record>(publisher: &Buffered, record: R) {
    match publisher.try_push(record) {
        Ok(_) | Err(PushError::Full { .. }) => {}
        Err(_) => tracing::debug!(kind = %R::KIND, "a demo record was refused"),
    }
}

fn chance(probability: f64) -> bool {
    fastrand::f64() < probability
}

fn pick<T>(items: &[T]) -> &T {
    &items[fastrand::usize(..items.len())]
}
