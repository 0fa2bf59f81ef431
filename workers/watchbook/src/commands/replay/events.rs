//! `watchbook replay events`

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use bus::Bus;
use chrono::{DateTime, Utc};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use records::subject::NO_ORGANIZATION;
use runtime::{Config, When};
use self_audit::AuditEvent;
use serde_json::json;
use store::queries::Span;
use store::queries::events::EventFilter;
use store::scoped_read::Reader;
use store::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;

use super::message;
use super::precheck::Precheck;
use super::publish::{self, ReplayPublisher};
use super::rate_limiter::{Rate, RateLimiter};
use super::source::Source;
use super::summary::Summary;
use super::target;
use crate::{internal_records, output, process};

/// Publish stored events again on one subject, oldest first.
///
/// Use it to rebuild a consumer, or to test with real data. A message is the record as JSON with its id and time, and
/// carries the header Watchbook-Replayed-At. If a stream captures the subject, it acknowledges each event; after an
/// acknowledgement that was lost, an event may be published twice. Events replayed on their organization's own subject,
/// `watchbook.events.<organization>.<detail>`, are not stored a second time. The replay is written to the audit log.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  watchbook replay events --to rebuild.search --run run-7\n  watchbook replay events --to staging.events --org acme --from 2026-11-01T00:00:00Z --rate unlimited --dry-run"
)]
pub(crate) struct Events {
    /// Subject to publish all events on.
    #[arg(long, value_name = "SUBJECT", value_parser = target::subject)]
    to: String,
    /// Replay only events of this run.
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// Replay only events of this project.
    #[arg(long, value_name = "ID")]
    project: Option<String>,
    /// Replay only events of this organization.
    #[arg(long, value_name = "ORG", value_parser = process::organization)]
    org: Option<String>,
    /// Start of the time range: RFC 3339, a date (midnight UTC), or relative to now such as -24h. An interrupted replay
    /// reports the time to continue from. Default: the oldest event.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<When>,
    /// End of the time range, in the same formats. Default: now.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to_time: Option<When>,
    /// Events a second at the most, or `unlimited`.
    #[arg(long, value_name = "N", default_value = "1000")]
    rate: Rate,
    /// Only report how many events match and which stream captures the subject.
    #[arg(long)]
    dry_run: bool,
    /// Name recorded in the audit log as the actor.
    #[arg(long, value_name = "NAME", default_value_t = process::somebody(), value_parser = process::actor)]
    by: String,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

impl Events {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let filter = self.filter(&config.nats.prefix)?;
        let now = Utc::now();
        let from = self.from.map_or(DateTime::UNIX_EPOCH, |from| from.at(now));
        let requested = Span { from, to: self.to_time.map_or(now, |to| to.at(now)) };
        anyhow::ensure!(requested.from < requested.to, "--from has to be before --to-time, or before now");
        let bus = process::bus(&config).await?;
        let database = process::database(&config).await?;
        process::check_migrations(&database).await?;
        let pool = database.pool("replay", 1);
        let source = Source::of(Reader::new(pool.clone()), filter.clone(), requested).await?;
        let stream = bus.stream_taking(&self.to).await?;
        let mut summary = Summary::of(self.to.clone(), stream, source.span(), self.dry_run);
        let stop = process::stop_token();
        summary.events = count(&source, &stop).await.context("count the events")?;
        summary.stopped = stop.is_cancelled();
        if !summary.stopped {
            eprintln!("{}", summary.plan(filter == EventFilter::default() && self.from.is_none()));
        }
        let mut ended = Ok(());
        if !self.dry_run && !summary.stopped && summary.events > 0 {
            let mut connection = process::connect(&database).await?;
            self.write_audit_event(&mut connection, &filter, &summary, source.span()).await?;
            let replay = ReplayPublisher {
                publisher: process::impatient_publisher(&config, &bus)?,
                bus: bus.clone(),
                headers: message::headers(Utc::now()),
                precheck: Precheck::of(&config, &bus, &self.to)?,
                stop,
                progress: progress(summary.events),
            };
            ended = replay.all(source, RateLimiter::of(self.rate, Instant::now()), &mut summary).await;
            if ended.is_ok() {
                // Without a stream, a refusal arrives as an asynchronous server error. The server sends it before the
                // reply to this request, so it is seen here.
                ended = bus
                    .stream_taking(&self.to)
                    .await
                    .map_err(anyhow::Error::from)
                    .and_then(|_| publish::check_refusals(&bus));
            }
            internal_records::publish(&config, &mut connection).await;
        }
        if !summary.stopped {
            // `close` waits for a running query, so a stopped replay does not call it.
            pool.close().await;
        }
        if self.json {
            output::json(&summary)?;
        }
        ended.with_context(|| refusals(&bus, &summary))?;
        if !self.dry_run || summary.stopped {
            eprintln!("{}", summary.end());
        }
        bus.close().await;
        Ok(if summary.stopped || summary.skipped > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// Returns the filter. On one of Watchbook's own subjects it selects only events of the organization named in the
    /// subject; others would become dead letters.
    fn filter(&self, prefix: &str) -> anyhow::Result<EventFilter> {
        let theirs = target::organization(&self.to, prefix)?.map(str::to_owned);
        if let (Some(theirs), Some(org)) = (&theirs, &self.org) {
            anyhow::ensure!(theirs == org, "{} takes only events of `{theirs}`, but --org is `{org}`", self.to);
        }
        Ok(EventFilter {
            organization_id: theirs.or_else(|| self.org.clone()),
            project_id: self.project.clone(),
            run_id: self.run.clone(),
            ..EventFilter::default()
        })
    }

    /// Writes the audit event of this replay, before the first event is published.
    async fn write_audit_event(
        &self,
        connection: &mut PgConnection,
        filter: &EventFilter,
        summary: &Summary,
        span: Span,
    ) -> anyhow::Result<()> {
        let organization_id = filter.organization_id.as_deref().filter(|organization| *organization != NO_ORGANIZATION);
        let event = AuditEvent {
            organization_id,
            actor_id: &self.by,
            action: "events.replay",
            target_type: "subject",
            target_id: cut(&self.to).to_owned(),
            metadata: json!({
                "subject": self.to, "stream": summary.stream, "events": summary.events, "organization_id": filter.organization_id,
                "project_id": self.project, "run_id": self.run, "from": span.from, "to": span.to,
            }),
            ..AuditEvent::default()
        };
        let write = async {
            let mut transaction = connection.begin().await?;
            self_audit::audit(&mut transaction, &event).await?;
            transaction.commit().await
        };
        write.await.context("record the replay in the audit log")
    }
}

/// Cuts text to the length of an id in an audit record.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(records::limits::ID_BYTES)]
}

async fn count(source: &Source, stop: &CancellationToken) -> store::Result<u64> {
    let progress = crate::bench::progress();
    let counted = source
        .count(|counted| {
            progress.set_message(format!("{} events counted", output::grouped(counted)));
            stop.is_cancelled()
        })
        .await;
    progress.finish_and_clear();
    counted
}

fn refusals(bus: &Bus, summary: &Summary) -> String {
    let said = bus.refusals();
    let said = if said.is_empty() { String::new() } else { format!(" (NATS refused: {})", said.join("; ")) };
    format!("{} of {} events published{said}", output::grouped(summary.published), output::grouped(summary.events))
}

fn progress(events: u64) -> ProgressBar {
    if !output::is_watched() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {human_pos} of {human_len} events, {per_sec}, {eta} left");
    ProgressBar::new(events).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
