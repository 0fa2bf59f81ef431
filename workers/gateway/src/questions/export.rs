//! `GET /api/audit/export`: the same as the list, all of it, as CSV or as lines of JSON.
//!
//! It is read page by page, each in a reading of its own, as fast as the caller takes it: nothing is held for one who is
//! slow but the page under way. The range ends before the export began, so what is done meanwhile does not come into it.

use std::borrow::Cow;
use std::io;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use csv::{Terminator, Writer, WriterBuilder};
use futures::{StreamExt, stream};
use serde_json::json;
use store::questions::audit::{self, AuditFilter, AuditRow};
use store::questions::{Listed, Page as Part};
use store::reading::Scope;
use utoipa::IntoParams;

use super::audit::{Filters, LONGEST};
use super::listing::Checked;
use crate::app::App;
use crate::asker::Asker;
use crate::auth::Caller;
use crate::page::Page;
use crate::problem::Problem;
use crate::query::{FromQuery, Parameters, Query};

const ROUTE: &str = "/api/audit/export";
/// Rows that are read at once: some hundred KiB as they usually are, and most of what one export ever holds.
const ROWS_AT_ONCE: u32 = 250;
/// With these a cell is a formula to a spreadsheet.
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// What an export is asked with, beside the filters.
#[derive(Debug, Clone, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Export {
    /// `csv` or `ndjson`.
    #[param(pattern = "^(csv|ndjson)$")]
    format: &'static str,
    /// From then on.
    #[param(value_type = Option<DateTime<Utc>>)]
    from: Option<DateTime<Utc>>,
    /// Before then.
    #[param(value_type = Option<DateTime<Utc>>)]
    to: Option<DateTime<Utc>>,
    /// Of this organization alone. One that the caller may not see has nothing.
    #[param(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    organization_id: Option<String>,
}

/// All that an export is asked with.
#[derive(Debug)]
pub(crate) struct Asked {
    export: Export,
    filters: Filters,
}

impl FromQuery for Asked {
    fn from_query(parameters: &mut Parameters) -> Self {
        let export = Export {
            format: parameters.one_of("format", &["csv", "ndjson"]).unwrap_or("csv"),
            from: parameters.time("from"),
            to: parameters.time("to"),
            organization_id: parameters.text("organization_id"),
        };
        Self { export, filters: Filters::from_query(parameters) }
    }
}

/// The audit log in one piece, newest first, with the filters of the list.
///
/// That it was exported is written into the log before anything is answered. An answer that is broken off, because the
/// gateway stops or the database is away, ends without the last chunk, so that no client takes it for complete.
#[utoipa::path(get, path = "/api/audit/export", params(Export, Filters), responses((
    status = 200, description = "The log. In CSV, what a spreadsheet would run begins with an apostrophe.",
    content((String = "text/csv"), (String = "application/x-ndjson")),
)))]
pub(crate) async fn export(
    State(app): State<App>,
    Query(Asked { export, filters }): Query<Asked>,
    caller: Caller,
    asker: Asker,
) -> Result<Response, Problem> {
    let page = Page {
        limit: ROWS_AT_ONCE,
        cursor: None,
        from: export.from,
        to: export.to,
        organization_id: export.organization_id,
        filters: String::new(),
        longest: LONGEST,
    };
    let reach = filters.reach(&page.scope(&caller)?);
    let checked = Checked::of(&app, &caller, ROUTE, &page, reach)?;
    let how = json!({ "format": export.format });
    filters.looked_at("audit.export", ROUTE, &page, &checked, how).write_first(&app, &caller, &asker).await?;
    let format = Format::of(export.format);
    let rest = Rest { app, scope: checked.scope, filter: filters.filter(), next: Some(checked.page), format };
    // What goes wrong with the first part can still be said.
    let (first, rest) = rest.part(format.head()).await.map_err(|error| Problem::of_database(&error))?;
    let parts = stream::once(async { Ok(first) }).chain(stream::try_unfold(rest, Rest::next_part));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(format.content_type())),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static(format.disposition())),
    ];
    Ok((headers, Body::from_stream(parts)).into_response())
}

/// What is still to be exported.
struct Rest {
    app: App,
    scope: Scope,
    filter: AuditFilter,
    /// The next page; `None` behind the last one.
    next: Option<Part>,
    format: Format,
}

impl Rest {
    /// Reads a page, and writes it behind `text`.
    async fn part(mut self, mut text: Vec<u8>) -> store::Result<(Bytes, Self)> {
        if let Some(page) = self.next.take() {
            let mut reading = self.app.reader.begin(&self.scope).await?;
            let rows = audit::list(&mut reading, &self.filter, &page).await?;
            reading.end().await?;
            let is_full = rows.len() as u64 >= u64::from(page.limit);
            self.next = rows.last().filter(|_| is_full).map(|row| Part { after: Some(row.key()), ..page });
            text = self.format.write(text, &rows).map_err(store::Error::Io)?;
        }
        Ok((text.into(), self))
    }

    /// The next part for a body. Errors break the answer off.
    async fn next_part(self) -> io::Result<Option<(Bytes, Self)>> {
        if self.next.is_none() {
            return Ok(None);
        }
        let stop = self.app.stop.clone();
        match stop.run_until_cancelled_owned(self.part(Vec::new())).await {
            Some(Ok(part)) => Ok(Some(part)),
            Some(Err(error)) => {
                tracing::warn!(error = store::describe(&error), "an export was broken off");
                Err(io::Error::other("the database does not answer"))
            }
            None => Err(io::Error::other("the gateway stops")),
        }
    }
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Csv,
    Ndjson,
}

/// The columns of CSV, named as the members of the list's items are.
const COLUMNS: [&str; 19] = [
    "id",
    "organization_id",
    "created_at",
    "received_at",
    "source",
    "actor_id",
    "actor_type",
    "actor_name",
    "actor_email",
    "action",
    "target_type",
    "target_id",
    "status",
    "reason",
    "error_details",
    "metadata",
    "ip_address",
    "user_agent",
    "attributes",
];

impl Format {
    fn of(name: &str) -> Self {
        if name == "ndjson" { Self::Ndjson } else { Self::Csv }
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Ndjson => "application/x-ndjson",
        }
    }

    const fn disposition(self) -> &'static str {
        match self {
            Self::Csv => r#"attachment; filename="audit.csv""#,
            Self::Ndjson => r#"attachment; filename="audit.ndjson""#,
        }
    }

    /// What stands before all rows.
    fn head(self) -> Vec<u8> {
        match self {
            Self::Csv => format!("{}\r\n", COLUMNS.join(",")).into_bytes(),
            Self::Ndjson => Vec::new(),
        }
    }

    /// Writes rows behind `text`.
    fn write(self, mut text: Vec<u8>, rows: &[AuditRow]) -> io::Result<Vec<u8>> {
        match self {
            Self::Ndjson => {
                for row in rows {
                    serde_json::to_writer(&mut text, row)?;
                    text.push(b'\n');
                }
                Ok(text)
            }
            Self::Csv => {
                let mut lines = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(text);
                for row in rows {
                    write_cells(&mut lines, row)?;
                }
                lines.into_inner().map_err(|error| io::Error::other(error.error().to_string()))
            }
        }
    }
}

fn write_cells(lines: &mut Writer<Vec<u8>>, row: &AuditRow) -> io::Result<()> {
    let time = |time: DateTime<Utc>| Cow::Owned(time.to_rfc3339_opts(SecondsFormat::Micros, true));
    let maybe = |text: &'_ Option<String>| Cow::Owned(text.clone().unwrap_or_default());
    let cells: [Cow<'_, str>; 19] = [
        row.id.to_string().into(),
        maybe(&row.organization_id),
        time(row.created_at),
        time(row.received_at),
        maybe(&row.source),
        row.actor_id.as_str().into(),
        row.actor_type.as_str().into(),
        maybe(&row.actor_name),
        maybe(&row.actor_email),
        row.action.as_str().into(),
        row.target_type.as_str().into(),
        row.target_id.as_str().into(),
        row.status.as_str().into(),
        maybe(&row.reason),
        maybe(&row.error_details),
        row.metadata.get().into(),
        maybe(&row.ip_address),
        maybe(&row.user_agent),
        row.attributes.get().into(),
    ];
    for cell in cells {
        lines.write_field(defused(&cell).as_bytes())?;
    }
    lines.write_record(None::<&[u8]>)?;
    Ok(())
}

/// A cell that no spreadsheet runs: whoever acts chooses what stands in the log, and whoever opens it is an auditor.
fn defused(cell: &str) -> Cow<'_, str> {
    if cell.starts_with(FORMULA) { format!("'{cell}").into() } else { cell.into() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::query::names_of;

    #[test]
    fn what_is_described_is_what_is_read() {
        let described = [Export::into_params(|| None), Filters::into_params(|| None)].concat();
        let described: BTreeSet<_> = described.iter().map(|param| param.name.as_str()).collect();
        assert_eq!(described, names_of::<Asked>());
    }

    #[test]
    fn formulas_are_defused() {
        for (cell, safe) in [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@x", "'@x"),
            ("\tx", "'\tx"),
            ("\rx", "'\rx"),
            ("a=1", "a=1"),
            ("", ""),
        ] {
            assert_eq!(defused(cell), safe);
        }
    }
}
