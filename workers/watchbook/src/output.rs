//! Output of commands: text, tables and JSON.

use std::fmt::Display;
use std::io::{IsTerminal, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table, TableStyle};
use serde::Serialize;

/// 128 plus the number of SIGPIPE, as a shell reports it.
const BROKEN_PIPE: i32 = 141;

/// Returns a table without lines, readable on a terminal and by `awk`. Right-aligns the columns in `numbers`.
pub(crate) fn table<const N: usize>(header: [&str; N], numbers: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    for column in numbers {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Prints a line to standard output. If the reader closed the pipe (`watchbook status | head -1`), exits with
/// [`BROKEN_PIPE`], as a process killed by SIGPIPE does.
pub(crate) fn say(text: impl Display) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(BROKEN_PIPE);
    }
}

/// Prints a value as indented JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    say(serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Returns whether standard error is a terminal, so that progress can be shown.
pub(crate) fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}

/// Formats a number with a comma between groups of three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
