//! Believable traffic for `up --demo`, through the publisher crate as a service would use it.
//!
//! Containers report usage and write logs; runs start, go on and finish; strategies are executed and
//! go bad in bursts; operators change things and are audited; now and then something breaks.

use std::borrow::Cow;
use std::time::Duration;

use bus::Bus;
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

use crate::process;

/// One step of the demo's world. Ten a second look alive and cost next to nothing.
const STEP: Duration = Duration::from_millis(100);
/// How long executions are well, and how long they go bad: long enough for an alert to fire and to recover.
const WELL: Duration = Duration::from_secs(7 * 60);
const BAD: Duration = Duration::from_secs(3 * 60);
/// What a stop waits for the last records to be acknowledged.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

const ORGANIZATIONS: &[&str] = &["acme", "globex", "initech"];
const PEOPLE: &[(&str, &str)] = &[
    ("ada", "Ada Lovelace"),
    ("grace", "Grace Hopper"),
    ("alan", "Alan Turing"),
    ("edsger", "Edsger Dijkstra"),
    ("barbara", "Barbara Liskov"),
];
const STRATEGIES: &[(&str, &str)] = &[
    ("momentum", "Momentum 12-1"),
    ("carry", "Carry basket"),
    ("pairs", "Pairs trading"),
    ("mean-reversion", "Mean reversion"),
];
const PROJECTS: &[&str] = &["checkout", "search", "billing"];
const STEPS: &[&str] = &["checkout", "dependencies", "build", "test", "package"];
const LOG_LINES: &[&str] = &[
    "GET /health 200",
    "cache warmed in 182 ms",
    "accepted connection from 10.0.3.7",
    "flushed 1204 metrics",
    "retrying upstream, attempt 2",
];
const ERRORS: &[(&str, &str)] = &[
    ("TimeoutError", "upstream did not answer within 5 s"),
    ("ValidationError", "field `amount` must be positive"),
    ("ConnectionReset", "peer closed the connection"),
];
const ACTIONS: &[(&str, &str)] = &[
    ("project.update", "project"),
    ("user.invite", "user"),
    ("api_key.rotate", "api_key"),
    ("strategy.publish", "strategy"),
    ("project.delete", "project"),
];

/// The demo's world.
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
        let publisher = process::publisher_builder(config).source("watchbook demo").from_client(bus.client())?;
        debug_assert_eq!(publisher.prefix(), process::publisher(config, bus)?.prefix());
        let organizations = ORGANIZATIONS
            .iter()
            .map(|name| {
                let publisher = publisher.for_organization(name)?.buffered(BufferOptions::default());
                let containers = (1..=3).map(|number| Container::new(format!("{name}-web-{number}"))).collect();
                Ok(Organization { name, publisher, containers, runs: Vec::new() })
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { organizations })
    }

    /// Lives until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        for organization in &self.organizations {
            organization.introduce();
        }
        let started = Instant::now();
        let mut steps = interval(STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for step in 0_u64.. {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = steps.tick() => {}
            }
            let in_cycle = Duration::from_secs(started.elapsed().as_secs() % (WELL + BAD).as_secs());
            for organization in &mut self.organizations {
                organization.step(step, in_cycle >= WELL);
            }
        }
        for organization in &self.organizations {
            if let Err(left) = organization.publisher.close(FLUSH_WITHIN).await {
                tracing::debug!(organization = organization.name, ?left, "demo records were left behind");
            }
        }
    }
}

impl Organization {
    /// What the ids of this demo mean.
    fn introduce(&self) {
        let entity = |entity, id: &str, name: &str, email| Entity {
            entity,
            entity_id: Cow::Owned(id.to_owned()),
            name: Some(Cow::Owned(name.to_owned())),
            email,
            ..Entity::default()
        };
        for (id, name) in PEOPLE {
            self.push(entity(EntityKind::User, id, name, Some(Cow::Owned(format!("{id}@{}.example", self.name)))));
        }
        for (id, name) in STRATEGIES {
            self.push(entity(EntityKind::Strategy, id, name, None));
        }
        for project in PROJECTS {
            self.push(entity(EntityKind::Project, project, project, None));
        }
        for container in &self.containers {
            self.push(entity(EntityKind::Container, &container.id, &container.id, None));
        }
    }

    fn step(&mut self, step: u64, bad: bool) {
        // Each container reports every two seconds, not all at once.
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
            self.execute(bad);
        }
        if chance(0.02) {
            self.act();
        }
        if chance(if bad { 0.08 } else { 0.01 }) {
            self.fail();
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
        self.push(Event {
            event_type: event_type.into(),
            payload: Json::of(&payload).unwrap_or_default(),
            project_id: Some(run.project.into()),
            run_id: Some(run.id.as_str().into()),
            user_id: Some(run.user.into()),
            actor_type: ActorType::User,
            actor_id: Some(run.user.into()),
        });
    }

    fn execute(&self, bad: bool) {
        let success = chance(if bad { 0.4 } else { 0.95 });
        let timed_out = !success && chance(0.3);
        self.push(Execution {
            user_id: pick(PEOPLE).0.into(),
            strategy_id: pick(STRATEGIES).0.into(),
            execution_type: if chance(0.5) { ExecutionType::Validation } else { ExecutionType::Terminal },
            success,
            execution_time_ms: if timed_out { 30_000 } else { fastrand::i64(80..4_000) },
            memory_used_mb: Some(fastrand::i64(40..600)),
            cpu_usage_percent: Some(fastrand::f64() * 100.0),
            timed_out,
            error_count: if success { 0 } else { fastrand::i64(1..4) },
            warning_count: fastrand::i64(0..3),
            classes_found: Some(vec!["Strategy".to_owned(), "Signal".to_owned()]),
            metadata: None,
        });
    }

    fn act(&self) {
        let (action, target_type) = *pick(ACTIONS);
        let refused = action == "project.delete" && chance(0.5);
        self.push(AuditRecord {
            actor_id: pick(PEOPLE).0.into(),
            actor_type: ActorType::User,
            action: action.into(),
            target_type: target_type.into(),
            target_id: (*pick(PROJECTS)).into(),
            status: if refused { Status::Failure } else { Status::Success },
            error_details: refused.then(|| "not an owner of the project".into()),
            ip_address: Some(std::net::IpAddr::from([10, 0, 3, fastrand::u8(1..255)]).into()),
            user_agent: Some("watchbook-demo/1.0".into()),
            ..AuditRecord::default()
        });
    }

    fn fail(&self) {
        let (error_type, message) = *pick(ERRORS);
        self.push(ErrorRecord {
            trace_id: Cow::Owned(format!("{:032x}", fastrand::u128(..))),
            error_type: error_type.into(),
            message: message.into(),
            project_id: Some((*pick(PROJECTS)).into()),
            endpoint: Some("/api/orders".into()),
            severity: if chance(0.1) { Severity::Critical } else { Severity::Error },
            ..ErrorRecord::default()
        });
    }

    fn push(&self, record: impl Record) {
        push(&self.publisher, record);
    }
}

impl Container {
    fn new(id: String) -> Self {
        Self { id, cpu: 20.0, memory: 200 << 20, received: 0, sent: 0 }
    }

    /// Usage drifts rather than jumps.
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

/// The world goes on while NATS is away; what the buffer cannot hold then is the demo's loss alone.
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
