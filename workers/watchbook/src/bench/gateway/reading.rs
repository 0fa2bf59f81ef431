//! An organization's audit log, page by page.

use std::num::NonZeroU64;
use std::time::Instant;

use anyhow::Context;
use chrono::{DateTime, Days, TimeDelta, Utc};
use gateway::auth::Role;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use records::Kind;
use serde::Serialize;
use store::bench::{self, Format};
use store::partitions::{Partition, Partitions};
use store::questions::Span;

use super::serving::Serving;
use crate::bench::copy_limit;
use crate::bench::latency::{Latency, record};
use crate::bench::sample::{Series, organization};
use crate::bench::stack::BenchStack;
use crate::{output, process};

/// Over how many days the log is spread.
pub(super) const DAYS: u64 = 60;
/// In whose records it is: each has a fiftieth, scattered over all of it.
pub(super) const ORGANIZATIONS: NonZeroU64 = NonZeroU64::MIN.saturating_add(49);
/// Records of a page: what the gateway gives unless asked.
const PAGE: u32 = 100;
/// First pages that are asked for.
const FIRST_PAGES: u64 = 400;
/// The page that is to be no slower than the first, and how many before it are measured with it.
const DEEP: u64 = 1_000;
const BEFORE_DEEP: u64 = 50;
/// Logs that are read so far.
const DEEP_LOGS: u64 = 4;
/// Rows that are encoded and copied at once.
const FILL_AT_ONCE: u64 = 250_000;

/// The records that a bench fills in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filled {
    pub(super) rows: u64,
    pub(super) ends_at: DateTime<Utc>,
    apart: TimeDelta,
}

/// How the log of an organization is read.
#[derive(Debug, Serialize)]
pub(super) struct Reading {
    pub(super) rows: u64,
    pub(super) days: u64,
    pub(super) organizations: u64,
    /// The statement alone, by its owner: the limit.
    pub(super) statement_ms: Latency,
    pub(super) first_page_ms: Latency,
    /// Which page `deep_page_ms` ends with.
    pub(super) deep_page: u64,
    pub(super) deep_page_ms: Latency,
    pub(super) peak_memory_bytes: u64,
}

impl Filled {
    /// So many audit records that end now.
    pub(super) fn ending_now(rows: u64) -> anyhow::Result<Self> {
        let all = i64::try_from(DAYS * 24 * 60 * 60 * 1_000_000)?;
        Ok(Self { rows, ends_at: Utc::now(), apart: TimeDelta::microseconds(all / i64::try_from(rows)?) })
    }

    /// The time of the newest so many.
    pub(super) fn newest(&self, rows: u64) -> anyhow::Result<Span> {
        let back = self.apart.checked_mul(i32::try_from(rows)?).context("more rows than there is time for")?;
        Ok(Span { from: self.ends_at - back, to: self.ends_at })
    }

    /// Fills them in, as autovacuum leaves them.
    pub(super) async fn fill(&self, stack: &BenchStack, progress: &ProgressBar) -> anyhow::Result<()> {
        let mut connection = process::connect(&stack.database).await?;
        let from = self.newest(self.rows)?.from;
        let partitions = Partitions::default();
        let mut months = Vec::new();
        let mut at = from;
        loop {
            let month = Partition::of(Kind::Audit, at.min(self.ends_at)).context("the audit log is not partitioned")?;
            partitions.ensure(&mut connection, month).await?;
            months.push(month);
            at = month.ends_at();
            if at > self.ends_at {
                break;
            }
        }
        let series = Series::new(Kind::Audit, stack.bus.prefix(), from);
        let series = series.with_apart(self.apart).with_organizations(ORGANIZATIONS);
        let mut filled = 0;
        while filled < self.rows {
            let (done, all) = (output::grouped(filled), output::grouped(self.rows));
            progress.set_message(format!("filling the audit log: {done} of {all} records"));
            let until = (filled + FILL_AT_ONCE).min(self.rows);
            let pieces = copy_limit::encode(&series, filled..until)?;
            copy_limit::copy(stack, Kind::Audit, Format::Binary, &pieces).await?;
            filled = until;
        }
        progress.set_message("filling the audit log: VACUUM");
        for month in months {
            bench::vacuum_and_analyze(&mut connection, month).await?;
        }
        stack.settle_down().await
    }
}

/// Reads first pages of all organizations in turn, and four logs as far as the thousandth page.
pub(super) async fn measure(
    stack: &BenchStack,
    serving: &Serving,
    filled: &Filled,
    progress: &ProgressBar,
) -> anyhow::Result<Reading> {
    serving.worker.begin_peak_anew()?;
    let mut client = serving.client(stack, "auditor", Role::Viewer, "*").await?;
    let mut connection = process::connect(&stack.database).await?;
    // As far back as the gateway looks unless asked.
    let span = Span { from: filled.ends_at - Days::new(90), to: Utc::now() };
    let (mut statement, mut first) = (histogram()?, histogram()?);
    for number in 0..FIRST_PAGES {
        progress.set_message(format!("first pages: {number} of {FIRST_PAGES}"));
        let organization = organization(number % ORGANIZATIONS);
        // In turn, so that neither of the two warms the log for the other.
        for by_statement in [number % 2 == 0, number % 2 != 0] {
            let started = Instant::now();
            if by_statement {
                let rows = bench::newest_audit_records(&mut connection, &organization, &span, PAGE).await?;
                record(&mut statement, started.elapsed())?;
                anyhow::ensure!(rows == PAGE as usize, "the log of {organization} has {rows} records");
            } else {
                page(&mut client, &organization, None, &mut first, started).await?;
            }
        }
    }
    let deep_page = (filled.rows / ORGANIZATIONS / u64::from(PAGE)).min(DEEP);
    let mut deep = histogram()?;
    for log in 0..DEEP_LOGS {
        let organization = organization(log * ORGANIZATIONS.get() / DEEP_LOGS);
        let mut cursor = None;
        for number in 1..=deep_page {
            progress.set_message(format!("page {number} of {deep_page}, log {} of {DEEP_LOGS}", log + 1));
            let mut took = histogram()?;
            cursor = page(&mut client, &organization, cursor.as_deref(), &mut took, Instant::now()).await?;
            if number + BEFORE_DEEP > deep_page {
                deep.add(took).context("add a time")?;
            }
        }
    }
    Ok(Reading {
        rows: filled.rows,
        days: DAYS,
        organizations: ORGANIZATIONS.get(),
        statement_ms: Latency::of(&statement),
        first_page_ms: Latency::of(&first),
        deep_page,
        deep_page_ms: Latency::of(&deep),
        peak_memory_bytes: serving.worker.memory()?.peak,
    })
}

/// Reads a page, and returns the cursor of the next one.
async fn page(
    client: &mut super::client::Client,
    organization: &str,
    cursor: Option<&str>,
    times: &mut Histogram<u64>,
    started: Instant,
) -> anyhow::Result<Option<String>> {
    let cursor = cursor.map(|cursor| format!("?cursor={cursor}")).unwrap_or_default();
    let page = client.json(&format!("/api/organizations/{organization}/audit{cursor}")).await?;
    record(times, started.elapsed())?;
    let items = page["items"].as_array().map_or(0, Vec::len);
    anyhow::ensure!(items == PAGE as usize, "a page has {items} items");
    Ok(page["next_cursor"].as_str().map(str::to_owned))
}

fn histogram() -> anyhow::Result<Histogram<u64>> {
    Histogram::new(3).context("make a histogram")
}
