//! `watchbook retention restore`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use archive::Archive;
use chrono::{Datelike, NaiveDate, TimeDelta, Utc};
use clap::Args;
use retention::restore::{self, Wish};
use runtime::Config;
use store::{Dataset, days};

use crate::{bench, output, own_records, process};

/// Bring a day back from the archive, for reading.
///
/// Its records are in their table again, where every question finds them, under a hold that is over by itself. Records
/// that are there already stay as they are, and what was erased meanwhile does not come back.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// A kind, or `dead_letters`.
    kind: String,
    /// The day, such as 2026-10-01; of audit records any day of the month.
    day: NaiveDate,
    /// For how long it stays.
    #[arg(long = "for", value_name = "TIME", default_value = "7d", value_parser = humantime::parse_duration)]
    stays: Duration,
    /// Why.
    #[arg(long, default_value = "restored for reading")]
    reason: String,
    /// Who, where not the user of this terminal.
    #[arg(long, value_name = "NAME", default_value_t = process::somebody(), value_parser = process::actor)]
    by: String,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

impl Restore {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let location =
            config.retention.archive.as_deref().context("there is no archive: set `archive` in [retention]")?;
        let dataset = Dataset::named(&self.kind).filter(|dataset| dataset.has_records()).with_context(|| {
            let known: Vec<_> = Dataset::all().filter(|dataset| dataset.has_records()).map(Dataset::name).collect();
            format!("unknown kind `{}`: expected one of {}", self.kind, known.join(", "))
        })?;
        let now = Utc::now();
        let day = if dataset.is_monthly() { self.day.with_day(1).unwrap_or(self.day) } else { self.day };
        let until = TimeDelta::from_std(self.stays).ok().and_then(|stays| now.checked_add_signed(stays));
        let wish = Wish {
            dataset,
            day,
            until: until.context("--for is longer than the calendar")?,
            by: self.by,
            reason: self.reason,
        };
        anyhow::ensure!(wish.until > now, "--for: it would go again at once");
        anyhow::ensure!(!wish.reason.trim().is_empty(), "--reason: say why");
        let archive = Archive::open(location)?;
        let database = process::database(&config).await?;
        process::check_migrations(&database).await?;
        let mut connection = days::session(&database).await?;
        let progress = bench::progress();
        let mut done = 0;
        let restored = restore::restore(&mut connection, &archive, &wish, now, |rows| {
            done += rows;
            progress.set_message(format!("{} records", output::grouped(done)));
        })
        .await;
        progress.finish_and_clear();
        let restored = restored?;
        own_records::publish(&config, &mut connection).await;
        if self.json {
            output::json(&restored)?;
        } else {
            output::say(format_args!(
                "{dataset} of {day}: {} records in the archive, {} of them brought back; they stay until {} (hold {})",
                output::grouped(restored.archived),
                output::grouped(restored.added),
                wish.until.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
                restored.hold.id
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}
