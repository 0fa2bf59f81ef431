//! How rows of the audit log are written.

use std::borrow::Cow;
use std::io;

use chrono::{DateTime, SecondsFormat, Utc};
use csv::{Terminator, Writer, WriterBuilder};
use store::questions::audit::AuditRow;

/// With these a cell is a formula to a spreadsheet.
const FORMULA: [char; 7] = ['=', '+', '-', '@', '\t', '\r', '\n'];

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

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A header, and a row a line. What a spreadsheet would run begins with an apostrophe.
    Csv,
    /// A JSON object a line.
    Ndjson,
}

impl Format {
    /// The names by which formats are asked for.
    pub const NAMES: [&'static str; 2] = ["csv", "ndjson"];

    /// The format of a name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "csv" => Some(Self::Csv),
            "ndjson" => Some(Self::Ndjson),
            _ => None,
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
        }
    }

    /// Its media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Ndjson => "application/x-ndjson",
        }
    }

    /// What stands before all rows.
    pub(crate) fn head(self) -> Vec<u8> {
        match self {
            Self::Csv => format!("{}\r\n", COLUMNS.join(",")).into_bytes(),
            Self::Ndjson => Vec::new(),
        }
    }

    /// Lines that are written behind `text`.
    pub(crate) fn lines(self, text: Vec<u8>) -> Lines {
        match self {
            Self::Csv => Lines::Csv(Box::new(WriterBuilder::new().terminator(Terminator::CRLF).from_writer(text))),
            Self::Ndjson => Lines::Ndjson(text),
        }
    }
}

/// Rows as they are written.
#[derive(Debug)]
pub(crate) enum Lines {
    Csv(Box<Writer<Vec<u8>>>),
    Ndjson(Vec<u8>),
}

impl Lines {
    pub(crate) fn write(&mut self, row: &AuditRow) -> io::Result<()> {
        match self {
            Self::Csv(lines) => write_cells(lines, row),
            Self::Ndjson(text) => {
                serde_json::to_writer(&mut *text, row)?;
                text.push(b'\n');
                Ok(())
            }
        }
    }

    /// Bytes so far, but for the few KiB that the writer of CSV keeps to itself until it has more.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Csv(lines) => lines.get_ref().len(),
            Self::Ndjson(text) => text.len(),
        }
    }

    pub(crate) fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Csv(lines) => lines.into_inner().map_err(|error| io::Error::other(error.error().to_string())),
            Self::Ndjson(text) => Ok(text),
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
    use super::*;

    #[test]
    fn formulas_are_defused() {
        for (cell, safe) in [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@x", "'@x"),
            ("\tx", "'\tx"),
            ("\rx", "'\rx"),
            ("\nx", "'\nx"),
            ("a=1", "a=1"),
            ("", ""),
        ] {
            assert_eq!(defused(cell), safe);
        }
    }

    #[test]
    fn formats_are_known_by_their_names() {
        for name in Format::NAMES {
            assert_eq!(Format::named(name).map(Format::name), Some(name));
        }
        assert_eq!(Format::named("xls"), None);
    }
}
