//! The limit of the machine: parallel raw COPYs of the same rows into the same table.
//!
//! Measured in the text format, as `psql \copy` sends rows and as the limit is usually measured, and in the binary
//! format, which is faster and is what the writers send.

use std::ops::Range;
use std::time::Instant;

use futures::future::try_join_all;
use records::Kind;
use store::bench::Format;

use super::sample::Series;
use super::stack::BenchStack;
use crate::process;

/// Parallel COPYs: as many as a writer has lanes (connections).
const LANES: usize = 2;
/// Rows sent at once.
const PIECE_ROWS: u64 = 500;

/// The limit in both formats, in rows per second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) text: f64,
    pub(crate) binary: f64,
}

/// Encodes records of a series for COPY. The encoding is not part of the measurement.
pub(crate) fn encode(series: &Series, records: Range<u64>) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut pieces = Vec::new();
    let mut from = records.start;
    while from < records.end {
        let to = (from + PIECE_ROWS).min(records.end);
        let mut piece = Vec::new();
        for n in from..to {
            series.append_row(n, &mut piece)?;
        }
        pieces.push(piece);
        from = to;
    }
    Ok(pieces)
}

/// Copies the rows with one COPY and one transaction per lane. Returns the duration in seconds.
pub(crate) async fn copy(stack: &BenchStack, kind: Kind, format: Format, pieces: &[Vec<u8>]) -> anyhow::Result<f64> {
    let share = pieces.len().div_ceil(LANES).max(1);
    let mut connections = Vec::new();
    for _ in 0..LANES {
        connections.push(process::connect(&stack.database).await?);
    }
    let started = Instant::now();
    let copies = pieces.chunks(share).zip(connections).map(|(pieces, mut connection)| async move {
        store::bench::copy_pieces(&mut connection, kind, format, pieces).await
    });
    try_join_all(copies).await?;
    Ok(started.elapsed().as_secs_f64())
}

/// Measures the limit on the table of a kind. Empties the table before each COPY if `emptied`; otherwise keeps its
/// rows.
pub(crate) async fn measure(
    stack: &BenchStack,
    kind: Kind,
    count: u64,
    series: impl Fn() -> Series,
    emptied: bool,
) -> anyhow::Result<Limit> {
    let binary = encode(&series(), 0..count)?;
    let mut connection = process::connect(&stack.database).await?;
    let text = store::bench::as_text(&mut connection, kind, &encode(&series(), 0..count)?).await?;
    let mut rates = [0.0; 2];
    for (rate, (format, rows)) in rates.iter_mut().zip([(Format::Text, text), (Format::Binary, binary)]) {
        if emptied {
            stack.empty(kind).await?;
        }
        stack.settle_down().await?;
        *rate = count as f64 / copy(stack, kind, format, &rows).await?;
    }
    let [text, binary] = rates;
    Ok(Limit { text, binary })
}
