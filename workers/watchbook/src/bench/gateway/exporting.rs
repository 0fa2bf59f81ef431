//! Exports of the audit log.

use std::time::Instant;

use anyhow::Context;
use axum::body::Body;
use futures::TryStreamExt;
use gateway::auth::Role;
use indicatif::ProgressBar;
use serde::Serialize;
use store::bench;

use super::reading::Filled;
use super::serving::Serving;
use crate::bench::stack::BenchStack;
use crate::{output, process};

/// Divisor of the smaller export. If memory is constant, both exports take the same.
const SMALLER: u64 = 10;

/// The measurement of one export.
#[derive(Debug, Serialize)]
pub(super) struct Export {
    pub(super) how: &'static str,
    pub(super) rows: u64,
    pub(super) seconds: f64,
    pub(super) bytes: u64,
    /// Peak growth of the memory of the gateway's process; `None` for the raw COPY.
    pub(super) grown_by_bytes: Option<u64>,
}

/// Exports the newest `rows` records in both formats, exports a tenth of them, and copies as many out of Postgres.
pub(super) async fn measure(
    stack: &BenchStack,
    serving: &Serving,
    filled: &Filled,
    rows: u64,
    progress: &ProgressBar,
) -> anyhow::Result<Vec<Export>> {
    let rows = rows.min(filled.rows);
    let mut exports = Vec::new();
    for (how, format, rows) in
        [("ndjson, a tenth", "ndjson", rows / SMALLER), ("ndjson", "ndjson", rows), ("csv", "csv", rows)]
    {
        progress.set_message(format!("export of {} records: {how}", output::grouped(rows)));
        let span = filled.newest(rows)?;
        let [from, to] = [span.from, span.to].map(|time| time.format("%Y-%m-%dT%H:%M:%S%.6fZ"));
        let mut client = serving.client(stack, "auditor", Role::Viewer, "*").await?;
        let memory = serving.worker.reset_peak()?;
        let started = Instant::now();
        let body = client.get(&format!("/api/audit/export?format={format}&from={from}&to={to}")).await?;
        let (bytes, lines) = count(body).await.context("the export was cut short")?;
        let seconds = started.elapsed().as_secs_f64();
        let expected = rows + u64::from(format == "csv");
        // Reading the log is itself audited, which adds some records; so may the records on both edges.
        anyhow::ensure!(lines.abs_diff(expected) < 5_000, "the export has {lines} lines, expected {expected}");
        let grown_by_bytes = Some(serving.worker.memory()?.peak.saturating_sub(memory.now));
        exports.push(Export { how, rows: lines, seconds, bytes, grown_by_bytes });
    }
    progress.set_message("COPY … TO STDOUT of the same records");
    let mut connection = process::connect(&stack.database).await?;
    let started = Instant::now();
    let bytes = bench::copy_audit_records_out(&mut connection, &filled.newest(rows)?).await?;
    let seconds = started.elapsed().as_secs_f64();
    exports.push(Export { how: "COPY … TO STDOUT, csv", rows, seconds, bytes, grown_by_bytes: None });
    Ok(exports)
}

/// Reads a response to its end. Returns its bytes and lines.
async fn count(body: Body) -> anyhow::Result<(u64, u64)> {
    let (mut bytes, mut lines) = (0, 0);
    let mut parts = body.into_data_stream();
    while let Some(part) = parts.try_next().await? {
        bytes += part.len() as u64;
        lines += part.iter().filter(|byte| **byte == b'\n').count() as u64;
    }
    Ok((bytes, lines))
}
