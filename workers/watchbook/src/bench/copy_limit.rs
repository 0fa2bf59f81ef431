//! The limit of the machine: parallel raw COPYs of the same rows into the same table.

use std::time::{Duration, Instant};

use futures::future::try_join_all;
use records::Kind;

use super::sample::Series;
use super::stack::BenchStack;
use crate::process;

/// As many as the pipeline has lanes.
const LANES: u64 = 2;
/// Rows of a piece that is sent at once.
const PIECE_ROWS: u64 = 2_000;

/// Rows ready for COPY, cut for the lanes.
pub(crate) struct Rows {
    lanes: Vec<Vec<Vec<u8>>>,
}

impl Rows {
    /// Encodes the first `count` records of a series, which is not part of what is measured.
    pub(crate) fn encode(series: &Series, count: u64) -> anyhow::Result<Self> {
        let lanes = (0..LANES)
            .map(|lane| {
                let (from, to) = (count * lane / LANES, count * (lane + 1) / LANES);
                let mut pieces = Vec::new();
                let mut from = from;
                while from < to {
                    let end = (from + PIECE_ROWS).min(to);
                    let mut piece = Vec::new();
                    for n in from..end {
                        series.append_row(n, &mut piece)?;
                    }
                    pieces.push(piece);
                    from = end;
                }
                Ok(pieces)
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { lanes })
    }
}

/// Copies the rows, one COPY and one transaction a lane, and tells how long that took.
pub(crate) async fn copy(stack: &BenchStack, kind: Kind, rows: &Rows) -> anyhow::Result<Duration> {
    let mut connections = Vec::new();
    for _ in &rows.lanes {
        connections.push(process::connect(&stack.database).await?);
    }
    let started = Instant::now();
    let copies =
        rows.lanes.iter().zip(connections).map(|(pieces, mut connection)| async move {
            store::bench::copy_pieces(&mut connection, kind, pieces).await
        });
    try_join_all(copies).await?;
    Ok(started.elapsed())
}
