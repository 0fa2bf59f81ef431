//! `watchbook retention restore`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use archive::Archive;
use chrono::{Datelike, NaiveDate, TimeDelta, Utc};
use clap::Args;
use retention::restore::{self, RestoreRequest};
use runtime::Config;
use store::{Dataset, partition_removal};

use crate::{bench, internal_records, output, process};

/// Restore a day from the archive, for reading.
///
/// Puts the records back into their table, where every query finds them, under a hold that expires after --for.
/// Existing records are not changed, and records erased since they were archived are not restored.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  watchbook retention restore events 2026-10-01 --for 7d --reason \"case 17\"")]
pub(crate) struct Restore {
    /// Record kind, or `dead_letters`.
    kind: String,
    /// Day, such as 2026-10-01. For audit records, any day of the month; the whole month is restored.
    day: NaiveDate,
    /// How long the records stay, such as 7d.
    #[arg(long = "for", value_name = "TIME", default_value = "7d", value_parser = humantime::parse_duration)]
    stays: Duration,
    /// Reason for the restore.
    #[arg(long, default_value = "restored for reading")]
    reason: String,
    /// Name recorded in the audit log as the actor.
    #[arg(long, value_name = "NAME", default_value_t = process::somebody(), value_parser = process::actor)]
    by: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Restore {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let location =
            config.retention.archive.as_deref().context("no archive is configured: set `archive` in [retention]")?;
        let dataset = Dataset::named(&self.kind).filter(|dataset| dataset.has_records()).with_context(|| {
            let known: Vec<_> = Dataset::all().filter(|dataset| dataset.has_records()).map(Dataset::name).collect();
            format!("unknown kind `{}`: expected one of {}", self.kind, known.join(", "))
        })?;
        let now = Utc::now();
        let day = if dataset.is_monthly() { self.day.with_day(1).unwrap_or(self.day) } else { self.day };
        let until = TimeDelta::from_std(self.stays).ok().and_then(|stays| now.checked_add_signed(stays));
        let request = RestoreRequest {
            dataset,
            day,
            until: until.context("--for is too long")?,
            by: self.by,
            reason: self.reason,
        };
        anyhow::ensure!(request.until > now, "--for must be longer than zero");
        anyhow::ensure!(!request.reason.trim().is_empty(), "--reason is empty: say why the day is restored");
        let archive = Archive::open(location)?;
        let database = process::database(&config).await?;
        process::check_migrations(&database).await?;
        let mut connection = partition_removal::session(&database).await?;
        let progress = bench::progress();
        let mut done = 0;
        let restored = restore::restore(&mut connection, &archive, &request, now, |rows| {
            done += rows;
            progress.set_message(format!("{} records", output::grouped(done)));
        })
        .await;
        progress.finish_and_clear();
        let restored = restored?;
        internal_records::publish(&config, &mut connection).await;
        if self.json {
            output::json(&restored)?;
        } else {
            output::say(format_args!(
                "{dataset} of {day}: {} records in the archive, {} of them restored; they stay until {} (hold {})",
                output::grouped(restored.archived),
                output::grouped(restored.added),
                request.until.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
                restored.hold.id
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}
