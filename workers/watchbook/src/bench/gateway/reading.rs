//! Pages of an organization's audit log.

use std::num::NonZeroU64;
use std::time::Instant;

use anyhow::Context;
use chrono::{DateTime, Days, TimeDelta, Utc};
use gateway::auth::Role;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use records::Kind;
use serde::Serialize;
use store::PgConnection;
use store::bench::{self, Format};
use store::partitions::{Partition, Partitions};
use store::queries::Span;

use super::client::Client;
use super::serving::Serving;
use crate::bench::copy_limit;
use crate::bench::latency::{Latency, record};
use crate::bench::sample::{Series, organization};
use crate::bench::stack::BenchStack;
use crate::{output, process};

/// Days over which the log is spread.
pub(super) const DAYS: u64 = 60;
/// Number of organizations: each has a fiftieth of the records, scattered over the whole log.
pub(super) const ORGANIZATIONS: NonZeroU64 = NonZeroU64::MIN.saturating_add(49);
/// Records of a page: the default limit of the gateway.
const PAGE: u32 = 100;
/// First pages to request.
const FIRST_PAGES: u64 = 400;
/// The deep page, which should be as fast as the first.
const DEEP: u64 = 1_000;
/// Pages up to the deep one that are measured as deep.
const BEFORE_DEEP: u64 = 50;
/// Logs that are read up to the deep page.
const DEEP_LOGS: u64 = 4;
/// Rows encoded and copied at once.
const FILL_AT_ONCE: u64 = 250_000;

/// The audit records that the bench fills in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filled {
    pub(super) rows: u64,
    pub(super) ends_at: DateTime<Utc>,
    apart: TimeDelta,
}

/// The measurement of reading an organization's log.
#[derive(Debug, Serialize)]
pub(super) struct Reading {
    pub(super) rows: u64,
    pub(super) days: u64,
    pub(super) organizations: u64,
    pub(super) first_page_ms: Latency,
    /// The same rows by the statement alone, as the owner of the table: the limit.
    pub(super) first_page_statement_ms: Latency,
    /// Number of the last page in `deep_page_ms`.
    pub(super) deep_page: u64,
    pub(super) deep_page_ms: Latency,
    pub(super) deep_page_statement_ms: Latency,
    pub(super) peak_memory_bytes: u64,
}

impl Filled {
    /// Describes `rows` audit records that end now.
    pub(super) fn ending_now(rows: u64) -> anyhow::Result<Self> {
        let all = i64::try_from(DAYS * 24 * 60 * 60 * 1_000_000)?;
        Ok(Self { rows, ends_at: Utc::now(), apart: TimeDelta::microseconds(all / i64::try_from(rows)?) })
    }

    /// Returns the time range of the newest `rows` records.
    pub(super) fn newest(&self, rows: u64) -> anyhow::Result<Span> {
        let back = self.apart.checked_mul(i32::try_from(rows)?).context("too many rows for a time range")?;
        Ok(Span { from: self.ends_at - back, to: self.ends_at })
    }

    /// Fills the records in and vacuums them, as autovacuum would.
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

/// Reads first pages of all organizations in turn, and four logs up to the thousandth page.
pub(super) async fn measure(
    stack: &BenchStack,
    serving: &Serving,
    filled: &Filled,
    progress: &ProgressBar,
) -> anyhow::Result<Reading> {
    serving.worker.reset_peak()?;
    let mut client = serving.client(stack, "auditor", Role::Viewer, "*").await?;
    let mut connection = process::connect(&stack.database).await?;
    // The default time range of the gateway.
    let span = Span { from: filled.ends_at - Days::new(90), to: Utc::now() };
    // Both phases read one page after the other as fast as possible, and run the statements afterwards. So pages and
    // statements find the process and the server equally busy and the log equally warm.
    let mut first = Pair::new()?;
    let firsts = (0..FIRST_PAGES).map(|number| organization(number % ORGANIZATIONS));
    for (number, organization) in firsts.clone().enumerate() {
        progress.set_message(format!("first pages: {number} of {FIRST_PAGES}"));
        first.page(&mut client, &organization, None).await?;
    }
    for organization in firsts {
        first.statement(&mut connection, &organization, &span).await?;
    }
    let deep_page = (filled.rows / ORGANIZATIONS / u64::from(PAGE)).min(DEEP);
    let mut deep = Pair::new()?;
    for log in 0..DEEP_LOGS {
        let organization = organization(log * ORGANIZATIONS.get() / DEEP_LOGS);
        let (mut cursor, mut span, mut on_the_way) = (None, span, Pair::new()?);
        let mut spans = Vec::new();
        for number in 1..=deep_page {
            progress.set_message(format!("page {number} of {deep_page}, log {} of {DEEP_LOGS}", log + 1));
            let is_deep = number + BEFORE_DEEP > deep_page;
            spans.extend(is_deep.then_some(span));
            let times = if is_deep { &mut deep } else { &mut on_the_way };
            let page = times.page(&mut client, &organization, cursor.as_deref()).await?;
            (cursor, span.to) = (page.next_cursor, page.ends_at);
        }
        for span in spans {
            deep.statement(&mut connection, &organization, &span).await?;
        }
    }
    Ok(Reading {
        rows: filled.rows,
        days: DAYS,
        organizations: ORGANIZATIONS.get(),
        first_page_ms: Latency::of(&first.page),
        first_page_statement_ms: Latency::of(&first.statement),
        deep_page,
        deep_page_ms: Latency::of(&deep.page),
        deep_page_statement_ms: Latency::of(&deep.statement),
        peak_memory_bytes: serving.worker.memory()?.peak,
    })
}

/// The latencies of pages and of the statements alone.
struct Pair {
    statement: Histogram<u64>,
    page: Histogram<u64>,
}

/// The cursor of the next page and the time of the last record.
struct Next {
    next_cursor: Option<String>,
    ends_at: DateTime<Utc>,
}

impl Pair {
    fn new() -> anyhow::Result<Self> {
        let histogram = || Histogram::new(3).context("make a histogram");
        Ok(Self { statement: histogram()?, page: histogram()? })
    }

    /// Reads a page by the statement alone.
    async fn statement(
        &mut self,
        connection: &mut PgConnection,
        organization: &str,
        span: &Span,
    ) -> anyhow::Result<()> {
        let started = Instant::now();
        let rows = bench::newest_audit_records(connection, organization, span, PAGE).await?;
        record(&mut self.statement, started.elapsed())?;
        anyhow::ensure!(rows == PAGE as usize, "the statement returned {rows} of {PAGE} records of {organization}");
        Ok(())
    }

    /// Reads a page through the gateway. Returns how to read the next one.
    async fn page(&mut self, client: &mut Client, organization: &str, cursor: Option<&str>) -> anyhow::Result<Next> {
        let cursor = cursor.map(|cursor| format!("?cursor={cursor}")).unwrap_or_default();
        let started = Instant::now();
        let page = client.json(&format!("/api/organizations/{organization}/audit{cursor}")).await?;
        record(&mut self.page, started.elapsed())?;
        let items = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        anyhow::ensure!(items.len() == PAGE as usize, "a page has {} items, expected {PAGE}", items.len());
        let ends_at = items.last().and_then(|item| item["created_at"].as_str()).context("a page has no created_at")?;
        let ends_at = ends_at.parse().context("parse created_at of an item")?;
        Ok(Next { next_cursor: page["next_cursor"].as_str().map(str::to_owned), ends_at })
    }
}
