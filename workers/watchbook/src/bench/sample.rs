//! Sample records for benchmarks. The n-th record of a kind is always the same except for its id and time.

use std::num::NonZeroU64;

use chrono::{DateTime, TimeDelta, Utc};
use publisher::Encoded;
use records::audit::{AuditRecord, Status};
use records::directory::{Entity, EntityKind};
use records::errors::ErrorRecord;
use records::executions::Execution;
use records::logs::LogLine;
use records::{Event, Headers, Json, Kind, Message, MetricSample, Outgoing, Record, subject};
use serde_json::{Map, json};
use uuid::{ContextV7, Timestamp, Uuid};

/// Organization of the records, unless [`Series::with_organizations`] is used.
const ORGANIZATION: &str = "acme";

/// A series of records, 100 µs apart by default. Two series never share an id.
#[derive(Debug)]
pub(crate) struct Series {
    kind: Kind,
    prefix: String,
    stream: String,
    started_at: DateTime<Utc>,
    apart: TimeDelta,
    salt: u64,
    ids: ContextV7,
    groups: Option<u64>,
    organizations: Option<NonZeroU64>,
}

/// Returns the name of an organization by its number.
pub(crate) fn organization(number: u64) -> String {
    format!("org-{number:03}")
}

impl Series {
    pub(crate) fn new(kind: Kind, prefix: &str, started_at: DateTime<Utc>) -> Self {
        Self {
            kind,
            prefix: prefix.to_owned(),
            stream: subject::stream_name(prefix, kind),
            started_at,
            apart: TimeDelta::microseconds(100),
            salt: fastrand::u64(..),
            ids: ContextV7::new(),
            groups: None,
            organizations: None,
        }
    }

    /// Assigns the records to this many organizations in turn.
    pub(crate) fn with_organizations(mut self, organizations: NonZeroU64) -> Self {
        self.organizations = Some(organizations);
        self
    }

    /// Uses exactly this many label groups among the records.
    pub(crate) fn with_groups(mut self, groups: Option<u64>) -> Self {
        self.groups = groups;
        self
    }

    /// Sets the time between two records.
    pub(crate) fn with_apart(mut self, apart: TimeDelta) -> Self {
        self.apart = apart;
        self
    }

    /// Returns the n-th record as a message.
    pub(crate) fn message(&self, n: u64) -> Encoded {
        let (subject, body) = self.subject_and_body(n);
        Encoded::new(subject, body)
    }

    /// Returns the body of the n-th record, for a POST.
    pub(crate) fn posted(&self, n: u64) -> String {
        self.subject_and_body(n).1
    }

    /// Appends the n-th record to `rows` in the format of COPY.
    pub(crate) fn append_row(&self, n: u64, rows: &mut Vec<u8>) -> anyhow::Result<()> {
        let (subject, body) = self.subject_and_body(n);
        let message = Message {
            kind: self.kind,
            prefix: &self.prefix,
            subject: &subject,
            stream: &self.stream,
            sequence: n + 1,
            published_at: self.created_at(n),
            headers: &Headers::default(),
            body: body.as_bytes(),
        };
        records::encode(&message, None, rows)?;
        Ok(())
    }

    fn subject_and_body(&self, n: u64) -> (String, String) {
        let run = format!("run-{:06}", n / 40);
        // Values of the labels that roll-ups group by repeat after `groups` records.
        let g = self.groups.map_or(n, |groups| n % groups);
        let cut = |usual: u64| if self.groups.is_some() { g } else { n % usual };
        let user = format!("user-{:04}", cut(5_000));
        match self.kind {
            Kind::Events => self.body(
                n,
                Event {
                    event_type: ["step.started", "step.finished", "artifact.stored", "run.finished"][(g % 4) as usize].into(),
                    payload: Json::of(&json!({ "step": "build", "attempt": n % 3, "duration_ms": n % 90_000, "image": "registry/build:2026.11" })).unwrap_or_default(),
                    project_id: Some(format!("project-{:03}", cut(200)).into()),
                    run_id: Some(run.into()),
                    user_id: Some(user.clone().into()),
                    actor_id: Some(user.into()),
                    ..Event::default()
                },
            ),
            Kind::Errors => self.body(
                n,
                ErrorRecord {
                    trace_id: format!("{:032x}", u128::from(self.salt) << 64 | u128::from(n)).into(),
                    error_type: ["TimeoutError", "ValidationError", "ConnectionReset"][(g % 3) as usize].into(),
                    message: "upstream did not answer within 5 s".into(),
                    stack: Some("at fetch (client.ts:88:11)\nat order (orders.ts:41:7)\nat handle (server.ts:19:3)".into()),
                    project_id: Some(format!("project-{:03}", cut(200)).into()),
                    run_id: Some(run.into()),
                    endpoint: Some("/api/orders".into()),
                    ..ErrorRecord::default()
                },
            ),
            Kind::Metrics => self.body(
                n,
                MetricSample {
                    container_id: format!("container-{:04}", cut(2_000)).into(),
                    cpu_usage_percent: Some((n % 16_000) as f64 / 100.0),
                    memory_usage_bytes: Some(200 << 20 | n as i64),
                    network_rx_bytes: Some(n as i64 * 1_200),
                    network_tx_bytes: Some(n as i64 * 800),
                },
            ),
            Kind::Logs => self.body(
                n,
                LogLine {
                    container_id: format!("container-{:04}", cut(2_000)).into(),
                    message: format!("GET /api/orders/{n} 200 in {} ms, user agent Mozilla/5.0, request {:016x}", n % 900, n ^ self.salt).into(),
                    ..LogLine::default()
                },
            ),
            Kind::Audit => self.body(
                n,
                AuditRecord {
                    actor_id: user.into(),
                    actor_type: records::ActorType::User,
                    action: ["project.update", "user.invite", "api_key.rotate"][(g % 3) as usize].into(),
                    target_type: "project".into(),
                    target_id: format!("project-{:03}", cut(200)).into(),
                    status: if n.is_multiple_of(50) { Status::Failure } else { Status::Success },
                    metadata: Json::of(&json!({ "field": "name", "request": n })).unwrap_or_default(),
                    ip_address: Some(std::net::IpAddr::from([10, 0, (n % 200) as u8, 7]).into()),
                    user_agent: Some("Mozilla/5.0 (X11; Linux x86_64)".into()),
                    ..AuditRecord::default()
                },
            ),
            Kind::Executions => self.body(
                n,
                Execution {
                    user_id: user.into(),
                    strategy_id: format!("strategy-{:03}", cut(300)).into(),
                    success: !n.is_multiple_of(20),
                    execution_time_ms: (n % 4_000) as i64,
                    memory_used_mb: Some((n % 600) as i64),
                    cpu_usage_percent: Some((n % 100) as f64),
                    classes_found: Some(vec!["Strategy".to_owned(), "Signal".to_owned()]),
                    ..Execution::default()
                },
            ),
            Kind::Directory => self.body(
                n,
                Entity {
                    entity: EntityKind::User,
                    entity_id: format!("user-{:016x}-{n}", self.salt).into(),
                    name: Some(format!("User {n}").into()),
                    email: Some(format!("user-{n}@acme.example").into()),
                    ..Entity::default()
                },
            ),
        }
    }

    fn body<R: Record>(&self, n: u64, record: R) -> (String, String) {
        let organization = self.organizations.map(|count| organization(n % count));
        let organization = organization.as_deref().unwrap_or(ORGANIZATION);
        let subject = subject::for_record(&self.prefix, self.kind, Some(organization), record.detail());
        let created_at = self.created_at(n);
        let outgoing = Outgoing {
            id: self.id(created_at),
            created_at,
            source: Some("bench".to_owned()),
            attributes: Map::new(),
            record,
        };
        // Our own types always serialize; an empty body would show as a dead letter.
        (subject, serde_json::to_string(&outgoing).unwrap_or_default())
    }

    fn created_at(&self, n: u64) -> DateTime<Utc> {
        self.started_at + TimeDelta::microseconds(self.apart.num_microseconds().unwrap_or_default() * n as i64)
    }

    fn id(&self, created_at: DateTime<Utc>) -> Uuid {
        let seconds = u64::try_from(created_at.timestamp()).unwrap_or_default();
        Uuid::new_v7(Timestamp::from_unix(&self.ids, seconds, created_at.timestamp_subsec_nanos()))
    }
}
