//! `watchbook doctor`: diagnoses problems, each with its fix.

use std::process::ExitCode;

use ::retention::RetentionWorker;
use alerts::AlertWorker;
use archive::Archive;
use bus::{Bus, BusError};
use chrono::{TimeDelta, Utc};
use clap::Args;
use futures::future::join_all;
use records::Kind;
use runtime::Config;
use serde::Serialize;
use store::clocks::{Clock, Producer};
use store::internal_records::InternalRecord;
use store::migrations::{self, State};
use store::partition_removal::{self, UnmanagedReason};
use store::partitions::Partition;
use store::scoped_read::{ROLE, Reader};
use store::{Database, Dataset, Lease, PgConnection, positions, retention};
use writer::Writer;

use crate::{output, process};

/// With a larger skew, records are often counted in the wrong minute.
const CLOCK_SKEW: TimeDelta = TimeDelta::seconds(5);
/// With a larger skew, a producer's records are counted in another minute than the one in which they happened.
const PRODUCER_SKEW: TimeDelta = TimeDelta::minutes(1);
/// Records that the stream received within this time are used to estimate producers' clocks.
const RECENT: TimeDelta = TimeDelta::hours(1);
/// Producers with skewed clocks that are listed, worst first. More of them have a common cause.
const MAX_NAMED: usize = 20;
/// A message that waits longer than this is more than in flight.
const LAG: TimeDelta = TimeDelta::seconds(30);

/// Diagnose problems, each with its fix.
///
/// Checks connections, versions, permissions, streams, clocks, migrations, partitions, lag, the role for queries,
/// alerts and their delivery, retention, and the clocks of producers. Changes nothing, except for a probe file in the
/// archive. The exit code is 1 if something is wrong.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Fine,
    Warning,
    Wrong,
}

#[derive(Debug, Serialize)]
struct Finding {
    subject: String,
    verdict: Verdict,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn fine(&mut self, subject: impl Into<String>, detail: impl Into<String>) {
        self.0.push(Finding { subject: subject.into(), verdict: Verdict::Fine, detail: detail.into(), mend: None });
    }

    fn found(
        &mut self,
        verdict: Verdict,
        subject: impl Into<String>,
        detail: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.0.push(Finding { subject: subject.into(), verdict, detail: detail.into(), mend: Some(mend.into()) });
    }
}

impl Doctor {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let mut findings = Findings::default();
        let bus = check_nats(&config, &mut findings).await;
        let database = check_postgres(&config, &mut findings).await;
        if let Some(bus) = &bus {
            check_streams(&config, bus, &mut findings).await;
        }
        if let Some((database, _)) = &database {
            check_readers(&config, database, &mut findings).await?;
        }
        if let (Some(bus), Some((_, mut connection))) = (&bus, database) {
            check_writers(&config, bus, &mut connection, &mut findings).await?;
            check_alerts(&config, &mut connection, &mut findings).await?;
            check_retention(&config, &mut connection, &mut findings).await?;
            check_producers(&mut connection, &mut findings).await?;
        }
        if self.json {
            output::json(&findings.0)?;
        } else {
            print(&findings.0);
        }
        let sound = findings.0.iter().all(|finding| finding.verdict != Verdict::Wrong);
        Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

async fn check_nats(config: &Config, findings: &mut Findings) -> Option<Bus> {
    match process::bus(config).await {
        Ok(bus) => {
            let info = bus.client().server_info();
            let address = format!("{} at {}:{}", info.version, info.host, info.port);
            let payload = info.max_payload;
            let elsewhere = config.nats.jetstream_domain.is_some() || config.nats.jetstream_api_prefix.is_some();
            let jetstream = if elsewhere {
                format!("JetStream requests go to {}", config.nats.api_prefix())
            } else {
                "JetStream is enabled".to_owned()
            };
            findings.fine("nats", format!("version {address}, {jetstream}"));
            if payload < records::limits::MESSAGE_BYTES {
                findings.found(
                    Verdict::Warning,
                    "nats max_payload",
                    format!(
                        "{payload} bytes: records may have up to 1 MiB, but the server refuses those above this limit"
                    ),
                    "set `max_payload: 1MB` in the server's configuration",
                );
            }
            Some(bus)
        }
        Err(error) => {
            findings.found(
                Verdict::Wrong,
                "nats",
                format!("{error:#}"),
                "start the server or set NATS_URL; `watchbook up` brings one of its own",
            );
            None
        }
    }
}

async fn check_postgres(config: &Config, findings: &mut Findings) -> Option<(Database, PgConnection)> {
    let connected = async {
        let database = process::database(config).await?;
        let mut connection = process::connect(&database).await?;
        let version = store::check_server(&mut connection).await?;
        let now = store::clock(&mut connection).await?;
        anyhow::Ok((database, connection, version, now))
    };
    let (database, mut connection, version, now) = match connected.await {
        Ok(connected) => connected,
        Err(error) => {
            findings.found(
                Verdict::Wrong,
                "postgres",
                format!("{error:#}"),
                "start the server or set DATABASE_URL; `watchbook up` brings one of its own",
            );
            return None;
        }
    };
    findings.fine("postgres", format!("version {version} at {}", database.address()));
    check_clock("postgres clock", now - Utc::now(), findings);
    match migrations::status(&mut connection).await {
        Ok(migrations) => {
            let wrong: Vec<_> = migrations.iter().filter(|migration| migration.state != State::Applied).collect();
            match wrong.first() {
                None => findings.fine("migrations", format!("{} applied", migrations.len())),
                Some(first) => {
                    let detail = format!(
                        "{} are not applied as expected, the first is {} ({:?})",
                        wrong.len(),
                        first.version,
                        first.state
                    );
                    findings.found(
                        Verdict::Wrong,
                        "migrations",
                        detail,
                        "run `watchbook setup`; for a changed migration, use the build that applied it",
                    );
                    return None;
                }
            }
        }
        Err(error) => findings.found(
            Verdict::Wrong,
            "migrations",
            format!("{error:#}"),
            "grant the database user read access to its own tables",
        ),
    }
    Some((database, connection))
}

async fn check_readers(config: &Config, database: &Database, findings: &mut Findings) -> anyhow::Result<()> {
    let pool = database.pool("doctor", 1);
    let missing = Reader::new(pool.clone()).missing().await;
    pool.close().await;
    match missing? {
        None => findings.fine("queries", format!("they run under the role {ROLE}")),
        Some(statement) => findings.found(
            // Without a gateway, few commands need it.
            if config.http.jwt_secret.is_some() || config.gateway.jwks_url.is_some() {
                Verdict::Wrong
            } else {
                Verdict::Warning
            },
            "queries",
            format!("nobody can ask any: they are asked under the role {ROLE}, which this user may not take"),
            format!("let a superuser run `{statement}`; no restart is needed"),
        ),
    }
    Ok(())
}

fn check_clock(subject: &str, skew: TimeDelta, findings: &mut Findings) {
    let ms = skew.num_milliseconds();
    if skew.abs() > CLOCK_SKEW {
        findings.found(
            Verdict::Warning,
            subject,
            format!("{ms} ms off the local clock"),
            "synchronize both clocks by NTP",
        );
    } else {
        findings.fine(subject, format!("{ms} ms off the local clock"));
    }
}

async fn check_streams(config: &Config, bus: &Bus, findings: &mut Findings) {
    // In parallel, each with the request time-out of `Bus`, so that a silent stream delays no other.
    let states = join_all(Kind::ALL.iter().map(|&kind| bus.stream_state(kind))).await;
    for (&kind, state) in Kind::ALL.iter().zip(states) {
        let name = bus.stream_name(kind);
        let state = match state {
            Ok(state) => state,
            Err(error) => {
                let mend = match error {
                    BusError::Missing { .. } => "run `watchbook setup` as a user who may create streams".to_owned(),
                    BusError::Absent { .. } => "set jetstream_domain or jetstream_api_prefix in [nats]".to_owned(),
                    BusError::Silent { .. } | BusError::Refused { .. } => format!(
                        "see `nats stream info {name}`: a majority of its servers must run, and this user needs the permissions in deploy/nats-server.conf"
                    ),
                };
                findings.found(Verdict::Wrong, name.as_str(), error.to_string(), mend);
                continue;
            }
        };
        let differences = bus.stream_differences(kind, &state, &config.streams);
        if differences.is_empty() {
            findings.fine(
                name.as_str(),
                format!(
                    "{} bytes of {}",
                    state.bytes,
                    state.max_bytes.map_or("unlimited".to_owned(), |max| max.to_string())
                ),
            );
        }
        for difference in differences {
            let verdict = if difference.dangerous { Verdict::Wrong } else { Verdict::Warning };
            findings.found(verdict, name.clone(), difference.to_string(), difference.mend(&name));
        }
    }
}

async fn check_writers(
    config: &Config,
    bus: &Bus,
    connection: &mut PgConnection,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let leases: Vec<_> = Kind::ALL.iter().map(|kind| Writer::lease_name(&bus.stream_name(*kind))).collect();
    let writers = Lease::holders(connection, &leases).await?;
    let mut settled = Vec::with_capacity(Kind::ALL.len());
    for &kind in Kind::ALL {
        let account = positions::find(connection, &bus.stream_name(kind)).await?;
        settled.push(account.map_or(0, |account| account.position.settled_up_to()));
    }
    let asked = Kind::ALL.iter().zip(settled).map(|(&kind, settled)| bus.published_ns(kind, settled + 1));
    let oldest = join_all(asked).await;
    for ((&kind, writer), oldest) in Kind::ALL.iter().zip(writers).zip(oldest) {
        let subject = format!("{kind} writer");
        let Some(writer) = writer else {
            findings.found(
                Verdict::Wrong,
                subject,
                "no process writes this kind",
                format!("run `watchbook run --workers {kind}`"),
            );
            continue;
        };
        let oldest = match oldest {
            Ok(oldest) => oldest,
            Err(error) => {
                findings.found(
                    Verdict::Warning,
                    subject,
                    format!("{writer} writes; it is unknown whether messages wait: {error}"),
                    format!("see the finding about {}", bus.stream_name(kind)),
                );
                continue;
            }
        };
        let age = oldest.map(|ns| TimeDelta::nanoseconds(Utc::now().timestamp_nanos_opt().unwrap_or_default() - ns));
        match age.filter(|age| *age > LAG) {
            Some(age) => findings.found(
                Verdict::Wrong,
                subject,
                format!("{writer} writes; the oldest message has waited for {} s", age.num_seconds()),
                "see /readyz and the log of that process",
            ),
            None => findings.fine(subject, format!("{writer} writes, nothing waits")),
        }
    }
    let tomorrow = Utc::now() + TimeDelta::days(1);
    for &kind in Kind::ALL {
        let Some(partition) = Partition::of(kind, tomorrow) else { continue };
        if config.writer.partition_days_ahead > 0 && !store::partitions::exists(connection, partition).await? {
            findings.found(
                Verdict::Warning,
                format!("{kind} partitions"),
                format!("{} is missing", partition.name()),
                "the writer creates it within an hour, or on demand; `watchbook setup` creates it now",
            );
        }
    }
    for dataset in Dataset::all() {
        for unmanaged in partition_removal::unmanaged(connection, dataset).await? {
            // Rows that are kept too long can wait; rows that the wrong people can read cannot.
            let verdict = if unmanaged.reason == UnmanagedReason::Readable { Verdict::Wrong } else { Verdict::Warning };
            findings.found(verdict, format!("{dataset} partitions"), unmanaged.to_string(), unmanaged.mend());
        }
    }
    Ok(())
}

async fn check_alerts(config: &Config, connection: &mut PgConnection, findings: &mut Findings) -> anyhow::Result<()> {
    let leases = [AlertWorker::LEASE.to_owned()];
    let holder = Lease::holders(connection, &leases).await?.into_iter().next().flatten();
    match holder {
        Some(worker) => findings.fine("alerts", format!("{worker} evaluates the rules")),
        None => findings.found(
            // Without receivers, there are no notifications to miss.
            if config.receivers.is_empty() { Verdict::Warning } else { Verdict::Wrong },
            "alerts",
            "no process evaluates the rules",
            "run `watchbook run --workers alerts,notifier`",
        ),
    }
    if let Some(problem) = store::alerts::settings(connection).await?.and_then(|settings| settings.problem) {
        findings.found(
            Verdict::Wrong,
            "alert rules",
            format!("the changed file is invalid: {problem}"),
            "fix the file; it is reloaded automatically",
        );
    }
    for receiver in store::outbox::summary(connection).await? {
        let problem =
            receiver.problem.unwrap_or_else(|| "there was no delivery attempt: is a notifier running?".to_owned());
        if receiver.oldest_pending_seconds.is_some_and(|age| age > LAG.as_seconds_f64()) {
            findings.found(
                Verdict::Wrong,
                format!("receiver {}", receiver.receiver),
                format!("{} notifications are not delivered: {problem}", receiver.pending),
                "`watchbook alerts test RULE` tries a delivery now",
            );
        } else if receiver.failed > 0 {
            findings.found(
                Verdict::Warning,
                format!("receiver {}", receiver.receiver),
                format!("{} notifications were given up: {problem}", receiver.failed),
                "they are kept in watchbook.outbox; `watchbook alerts list` shows what still fires",
            );
        }
    }
    Ok(())
}

/// Internal records are published within a second if NATS accepts them; this leaves a margin.
const INTERNAL_RECORDS_WITHIN: TimeDelta = TimeDelta::minutes(1);

async fn check_retention(
    config: &Config,
    connection: &mut PgConnection,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let leases = [RetentionWorker::LEASE.to_owned()];
    match Lease::holders(connection, &leases).await?.into_iter().next().flatten() {
        Some(worker) => findings.fine("retention", format!("{worker} removes expired records")),
        None => findings.found(
            Verdict::Warning,
            "retention",
            "no process removes expired records or executes erasures",
            "run `watchbook run --workers retention`",
        ),
    }
    match retention::newest(connection, false, 1).await?.first() {
        None => findings.fine("retention runs", "none yet"),
        Some(run) => match &run.problem {
            None => {
                findings.fine("retention runs", format!("the last one is {}: {} rows removed", run.outcome, run.rows))
            }
            Some(problem) => findings.found(
                Verdict::Wrong,
                "retention runs",
                format!("the last one is {}: {problem}", run.outcome),
                "fix the cause; it is retried automatically, or now by `watchbook retention run`",
            ),
        },
    }
    let waiting = store::internal_records::oldest(connection, None, 1).await?;
    let waits = |own: &InternalRecord| Utc::now() - own.created_at > INTERNAL_RECORDS_WITHIN;
    if waiting.first().is_some_and(waits) {
        findings.found(
            Verdict::Wrong,
            "audit records of retention",
            "they are not published yet",
            "a retention worker publishes them: is one running, and may its NATS user publish on <prefix>.audit.*.retention.*?",
        );
    }
    if let Some(location) = &config.retention.archive {
        let checked = async { Archive::open(location)?.check().await };
        match checked.await {
            Ok(()) => findings.fine("archive", location.as_str()),
            Err(error) => findings.found(
                Verdict::Wrong,
                "archive",
                error.to_string(),
                "no day is dropped until this is fixed; `archive` in [retention] has the location",
            ),
        }
    }
    Ok(())
}

/// Checks the clocks of producers, by container if records name one, else by source and organization.
async fn check_producers(connection: &mut PgConnection, findings: &mut Findings) -> anyhow::Result<()> {
    let clocks = store::clocks::of_producers(connection, Utc::now() - RECENT).await?;
    let number = clocks.len();
    let mut wrong: Vec<Clock> = clocks.into_iter().filter(|clock| clock.ahead.abs() > PRODUCER_SKEW).collect();
    wrong.sort_by(|a, b| b.ahead.abs().cmp(&a.ahead.abs()).then_with(|| a.producer.cmp(&b.producer)));
    if wrong.is_empty() {
        findings.fine("producer clocks", format!("{number} producers published within the last hour, no clock is off"));
    }
    for clock in wrong.iter().take(MAX_NAMED) {
        let off = humantime::format_duration(std::time::Duration::from_secs(clock.ahead.num_seconds().unsigned_abs()));
        let (side, how) = if clock.ahead > TimeDelta::zero() {
            ("ahead of", "synchronize the clock of the publishing machine by NTP")
        } else {
            (
                "behind",
                "synchronize the clock of the publishing machine by NTP, unless it publishes past records on purpose",
            )
        };
        let detail =
            format!("{off} {side} the stream's, by the closest of its {} records of the last hour", clock.records);
        findings.found(Verdict::Warning, format!("clock of {}", named(&clock.producer)), detail, how);
    }
    if wrong.len() > MAX_NAMED {
        let more = wrong.len() - MAX_NAMED;
        findings.found(
            Verdict::Warning,
            "producer clocks",
            format!("{more} more clocks are off"),
            "synchronize the clocks of the publishing machines by NTP",
        );
    }
    Ok(())
}

fn named(producer: &Producer) -> String {
    let organization = match &producer.organization_id {
        Some(organization) => format!("organization {organization}"),
        None => "no organization".to_owned(),
    };
    let container = producer.container_id.as_ref().map(|container| format!("container {container}"));
    let source = match &producer.source {
        Some(source) => Some(format!("source {source}")),
        None if container.is_none() => Some("producers without a source".to_owned()),
        None => None,
    };
    container.into_iter().chain(source).chain([organization]).collect::<Vec<_>>().join(", ")
}

fn print(findings: &[Finding]) {
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Fine => "ok   ",
            Verdict::Warning => "warn ",
            Verdict::Wrong => "WRONG",
        };
        output::say(format_args!("{mark} {}: {}", finding.subject, finding.detail));
        if let Some(mend) = &finding.mend {
            output::say(format_args!("      → {mend}"));
        }
    }
}
