//! `watchbook audit export`

use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::export::{AuditAccess, Format};
use anyhow::Context;
use chrono::{DateTime, Utc};
use clap::Args;
use indicatif::ProgressBar;
use records::audit::Address;
use runtime::{Config, When};
use self_audit::AuditEvent;
use serde_json::json;
use store::queries::Span;
use store::queries::audit::{self, AuditFilter};
use store::scoped_read::{Reader, Scope};
use store::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;

use super::atomic_file::AtomicFile;
use crate::{bench, internal_records, output, process};

/// Export the audit log as CSV or NDJSON, newest first.
///
/// Exports all records unless options narrow it. The output is the same as that of GET /api/audit/export and is
/// streamed, so memory does not grow with the log. In CSV, a cell that a spreadsheet would run as a formula, or that
/// begins with an apostrophe, gets an apostrophe in front: removing one from each such cell restores the stored text.
/// The export itself, with its actor and options, is written to the audit log before the first row is read. With
/// --output the file appears only when it is complete.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  watchbook audit export --org acme --from 2026-01-01T00:00:00Z --output acme.csv\n  watchbook audit export --action project.delete --format ndjson | jq .actor_email"
)]
pub(crate) struct Export {
    /// Export only records of this organization.
    #[arg(long, value_name = "ORG", value_parser = process::organization)]
    org: Option<String>,
    /// Start of the time range: RFC 3339, a date (midnight UTC), or relative to now such as -24h. Default: the oldest
    /// record.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<When>,
    /// End of the time range, in the same formats. Default: now.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<When>,
    /// Export only records of this actor.
    #[arg(long, value_name = "ID")]
    actor_id: Option<String>,
    /// Export only records of actors of this type.
    #[arg(long, value_name = "TYPE", value_parser = ["user", "system", "api_key"])]
    actor_type: Option<String>,
    /// Export only records of this action, such as `project.delete`.
    #[arg(long)]
    action: Option<String>,
    /// Export only records with targets of this type.
    #[arg(long, value_name = "TYPE")]
    target_type: Option<String>,
    /// Export only records of this target.
    #[arg(long, value_name = "ID")]
    target_id: Option<String>,
    /// Export only records with this status.
    #[arg(long, value_parser = ["SUCCESS", "FAILURE"])]
    status: Option<String>,
    /// Export only records from this address, or from this network, such as 10.0.0.0/8.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    ip_address: Option<Address>,
    /// Output format. Default: by the extension of the --output file, else CSV.
    #[arg(long, value_parser = Format::NAMES)]
    format: Option<String>,
    /// File to write. Default: standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file if it exists.
    #[arg(long, requires = "output")]
    force: bool,
    /// Name recorded in the audit log as the actor.
    #[arg(long, value_name = "NAME", default_value_t = process::somebody(), value_parser = process::actor)]
    by: String,
}

/// How a successful export ended.
enum Ended {
    Complete,
    /// The reader closed standard output.
    Unread,
    Stopped,
}

impl Export {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        // Options are checked before anything is read or written to the audit log.
        let file = match &self.output {
            // With a stop token, Ctrl-C leaves no partial file behind.
            Some(path) => Some((process::stop_token(), AtomicFile::create(path, self.force)?)),
            None => None,
        };
        let database = process::database(&config).await?;
        process::check_migrations(&database).await?;
        let pool = database.pool("export", 1);
        let reader = Reader::new(pool.clone());
        let request = self.request(&reader).await?;
        let mut connection = process::connect(&database).await?;
        self.write_audit_event(&mut connection, &request).await.context("record the export in the audit log")?;
        let export = ::export::Export::of(request.scope, request.filter, request.span, request.format);
        let progress = bench::progress();
        let (mut rows, watched) = (0, progress.clone());
        let ended = match file {
            Some((stop, file)) => to_file(export, &reader, file, &stop, |more| count(&watched, &mut rows, more)).await,
            None => to_output(export, &reader, |more| count(&watched, &mut rows, more)).await,
        };
        progress.finish_and_clear();
        let ended = ended.context("the export is not complete")?;
        if !matches!(ended, Ended::Stopped) {
            // `close` waits for a running query, so a stopped export does not call it.
            pool.close().await;
        }
        internal_records::publish(&config, &mut connection).await;
        match ended {
            Ended::Unread => {}
            Ended::Complete => eprintln!("{} audit records exported", output::grouped(rows)),
            Ended::Stopped => {
                eprintln!("Stopped after {} audit records: no file was written", output::grouped(rows));
                return Ok(ExitCode::FAILURE);
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn request(&self, reader: &Reader) -> anyhow::Result<ExportRequest> {
        let scope = self.org.as_ref().map_or(Scope::All, |org| Scope::Organizations(vec![org.clone()]));
        let filter = AuditFilter {
            organization_id: None, // `scope` narrows it already
            actor_id: self.actor_id.clone(),
            actor_type: self.actor_type.clone(),
            action: self.action.clone(),
            target_type: self.target_type.clone(),
            target_id: self.target_id.clone(),
            status: self.status.clone(),
            ip_address: self.ip_address,
        };
        let now = Utc::now();
        let to = self.to.map_or(now, |to| to.at(now));
        let mut from = self.from.map_or(DateTime::UNIX_EPOCH, |from| from.at(now));
        anyhow::ensure!(from < to, "--from has to be before --to, or before now");
        if filter.longest(&scope).is_some() {
            // Without an index the range is searched week by week. Skip the decades before the first record.
            let mut transaction = reader.begin(&scope).await?;
            let oldest = audit::oldest(&mut transaction).await?;
            transaction.end().await?;
            from = oldest.map_or(to, |oldest| oldest.clamp(from, to));
        }
        let named = self.format.as_deref().and_then(Format::named);
        let format = named.or_else(|| self.output.as_deref().and_then(guess)).unwrap_or(Format::Csv);
        Ok(ExportRequest { scope, filter, span: Span { from, to }, format })
    }

    /// Writes the audit event of this export to the audit log.
    async fn write_audit_event(&self, connection: &mut PgConnection, request: &ExportRequest) -> store::Result<()> {
        let access = AuditAccess {
            via: ("command", "watchbook audit export"),
            named: self.org.as_deref(),
            scope: &request.scope,
            filter: &request.filter,
            span: request.span,
            options: json!({ "format": request.format.name() }),
        };
        let organization_id = access.organization_id();
        let event = AuditEvent {
            organization_id: organization_id.as_deref(),
            actor_id: &self.by,
            action: "audit.export",
            target_type: AuditAccess::TARGET_TYPE,
            target_id: access.target_id(),
            metadata: access.metadata(),
            ..AuditEvent::default()
        };
        let mut transaction = connection.begin().await?;
        self_audit::audit(&mut transaction, &event).await?;
        transaction.commit().await
    }
}

/// The parsed options.
struct ExportRequest {
    scope: Scope,
    filter: AuditFilter,
    span: Span,
    format: Format,
}

fn count(progress: &ProgressBar, rows: &mut u64, more: u64) {
    *rows += more;
    progress.set_message(format!("{} records", output::grouped(*rows)));
}

/// Writes to standard output until the reader closes it. Ctrl-C ends the process; there is nothing to clean up.
async fn to_output(mut export: ::export::Export, reader: &Reader, mut count: impl FnMut(u64)) -> anyhow::Result<Ended> {
    while let Some(part) = export.part(reader).await? {
        let mut out = io::stdout().lock();
        match out.write_all(&part.text).and_then(|()| out.flush()) {
            Ok(()) => count(part.rows),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Ended::Unread),
            Err(error) => return Err(error).context("write to standard output"),
        }
    }
    Ok(Ended::Complete)
}

/// Writes to a file that appears only when it is complete.
async fn to_file(
    mut export: ::export::Export,
    reader: &Reader,
    mut file: AtomicFile,
    stop: &CancellationToken,
    mut count: impl FnMut(u64),
) -> anyhow::Result<Ended> {
    loop {
        let Some(part) = stop.run_until_cancelled(export.part(reader)).await else { return Ok(Ended::Stopped) };
        let Some(part) = part? else {
            file.commit()?;
            return Ok(Ended::Complete);
        };
        file.write(&part.text)?;
        count(part.rows);
    }
}

fn address(text: &str) -> Result<Address, String> {
    Address::parse(text)
        .ok_or_else(|| "expected an address such as 192.0.2.1, or a network such as 10.0.0.0/8".to_owned())
}

/// Returns the format that a file extension stands for.
fn guess(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "ndjson" | "jsonl" => Some(Format::Ndjson),
        "csv" => Some(Format::Csv),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_guessed_by_the_end_of_a_name() {
        for (path, format) in [
            ("a.csv", Some(Format::Csv)),
            ("a.b/c.NDJSON", Some(Format::Ndjson)),
            ("a.jsonl", Some(Format::Ndjson)),
            ("a.xls", None),
            ("csv", None),
            ("a.ndjson/b", None),
        ] {
            assert_eq!(guess(Path::new(path)), format, "{path}");
        }
    }
}
