//! The formats of an export.

use std::borrow::Cow;
use std::io;

use chrono::{DateTime, SecondsFormat, Utc};
use csv::{Terminator, Writer, WriterBuilder};
use store::queries::audit::AuditRow;

/// Spreadsheets treat a cell as a formula if it starts with one of these, even after blanks. The full-width ones count
/// where full-width input is usual (OWASP, "CSV Injection").
const FORMULA: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];
/// Some spreadsheets start a new cell after one of these.
const BREAKS: [char; 3] = ['\t', '\r', '\n'];
/// Prepended to a cell that is text: spreadsheets show what follows, and evaluate nothing.
const AS_TEXT: char = '\'';

/// The columns of CSV, named like the members of the list's items.
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

/// The format of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// CSV with a header (RFC 4180). An apostrophe is prepended to each cell that a spreadsheet would evaluate (it
    /// starts with a tab or a line break, or, after blanks, with one of `= + - @ ＝ ＋ － ＠`, and is not a plain number
    /// such as `-5.00`), and to each cell that starts with an apostrophe. To restore the stored text exactly, remove
    /// one apostrophe from each cell that starts with one.
    Csv,
    /// Newline-delimited JSON: one object per line.
    Ndjson,
}

impl Format {
    /// The names of the formats, for parameters and options.
    pub const NAMES: [&'static str; 2] = ["csv", "ndjson"];

    /// Returns the format with a name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "csv" => Some(Self::Csv),
            "ndjson" => Some(Self::Ndjson),
            _ => None,
        }
    }

    /// Returns its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
        }
    }

    /// Returns its media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Ndjson => "application/x-ndjson",
        }
    }

    /// Returns the text before the first row.
    pub(crate) fn head(self) -> Vec<u8> {
        match self {
            Self::Csv => format!("{}\r\n", COLUMNS.join(",")).into_bytes(),
            Self::Ndjson => Vec::new(),
        }
    }

    /// Returns a writer that appends lines to `text`.
    pub(crate) fn lines(self, text: Vec<u8>) -> Lines {
        match self {
            Self::Csv => Lines::Csv(Box::new(WriterBuilder::new().terminator(Terminator::CRLF).from_writer(text))),
            Self::Ndjson => Lines::Ndjson(text),
        }
    }
}

/// Writes rows in a format.
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

    /// Returns the number of bytes so far, without the few KiB that the CSV writer buffers.
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

/// Returns a cell that no spreadsheet evaluates, see [`Format::Csv`]. Anybody who acts can choose text in the log, and
/// an auditor opens it.
fn defused(cell: &str) -> Cow<'_, str> {
    if cell.starts_with(AS_TEXT) || is_calculated(cell) { format!("{AS_TEXT}{cell}").into() } else { cell.into() }
}

fn is_calculated(cell: &str) -> bool {
    cell.starts_with(BREAKS) || (cell.trim_start_matches(is_blank).starts_with(FORMULA) && !is_plain_number(cell))
}

/// Returns whether a spreadsheet may skip a character before a formula: blanks of all scripts, control characters and
/// invisible characters. A false positive costs one apostrophe.
fn is_blank(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

/// Returns whether a cell is a number with an optional sign, such as `-5.00`, `+3` or `-1e9`, which evaluates to
/// itself.
fn is_plain_number(cell: &str) -> bool {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let unsigned = |text: &str| text.strip_prefix(['+', '-']).unwrap_or(text).to_owned();
    let (number, exponent) = match cell.split_once(['e', 'E']) {
        Some((number, exponent)) => (unsigned(number), Some(unsigned(exponent))),
        None => (unsigned(cell), None),
    };
    let is_number = match number.split_once('.') {
        Some((whole, fraction)) => is_digits(whole) && is_digits(fraction),
        None => is_digits(&number),
    };
    is_number && exponent.is_none_or(|exponent| is_digits(&exponent))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Restores the stored text, as a reader of the file would.
    fn undone(cell: &str) -> &str {
        cell.strip_prefix('\'').unwrap_or(cell)
    }

    #[test]
    fn formulas_are_defused() {
        for cell in [
            "=1+1",
            "+1+1",
            "-1-1",
            "@x",
            "\tx",
            "\rx",
            "\nx",
            " =1",
            "\u{a0}=1",
            "\u{3000}=1",
            " \t \r\n=1",
            "\u{feff}=1",
            "\u{200b}@x",
            "\u{b}=1",
            "\u{1}=1",
            "＝1+1",
            "＋x",
            "－x",
            "＠x",
            " ＝1",
            "-",
            "+",
            "-x",
            "-5 ",
            " -5",
            "-5.",
            "-.5",
            "-5e",
            "-5e+",
            "--5",
            "-5.0.0",
            "-1,5",
            "+49 170",
            "-5%",
            "-٥",
            "－5",
            "-1+cmd|' /C calc'!A0",
            "'",
            "'=1",
            "''",
            "'plain",
        ] {
            let safe = defused(cell);
            assert_eq!(safe, format!("'{cell}"), "{cell:?}");
            assert_eq!(undone(&safe), cell);
        }
        for cell in [
            "",
            "a=1",
            " a=1",
            "5",
            "-5",
            "-5.00",
            "+3",
            "+0",
            "-1e9",
            "-1.5E-10",
            "+491701234567",
            "{\"a\":\"=1\"}",
            "’=",
            " ",
        ] {
            assert_eq!(defused(cell), cell, "it is as good as it is");
        }
    }

    proptest! {
        #[test]
        fn defusing_can_be_undone(cell in "([ \t\r\n\u{a0}'=+@＝0-9.eE-]|\\PC){0,12}") {
            let safe = defused(&cell);
            prop_assert_eq!(undone(&safe), &cell);
            // At most one apostrophe is added, and no written cell is evaluated.
            prop_assert!(safe.len() - cell.len() <= 1);
            prop_assert!(!is_calculated(&safe));
        }

        #[test]
        fn what_is_left_alone_begins_with_nothing_that_calculates(cell in "[ \t\u{a0}]{0,3}[=+@＝-][a-z0-9(]{0,8}") {
            let is_left_alone = matches!(defused(&cell), Cow::Borrowed(_));
            prop_assert_eq!(is_left_alone, cell.parse::<f64>().is_ok_and(f64::is_finite), "{:?}", cell);
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
