//! Reads the audit log part by part.

use std::ops::ControlFlow;

use chrono::{DateTime, TimeDelta, Utc};
use store::queries::audit::{self, AuditFilter};
use store::queries::{BatchSize, Key, Listed, Page, Span};
use store::scoped_read::{Reader, Scope};

use crate::Format;

/// The size at which a part ends. An export never holds more than this and the row that reaches it. A row may have a
/// mebibyte and usually has half a kibibyte: hundreds of these are worth a transaction.
pub const PART_BYTES: usize = 1024 * 1024;
/// The maximum number of rows that a part reads. If large rows follow small ones, some hundred MiB are read in vain,
/// once.
const ROWS: u32 = 500;

/// A part of an export.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// Whole lines of text.
    pub text: Vec<u8>,
    /// The number of rows in the text.
    pub rows: u64,
}

/// An export of a range, from its end to its start.
#[derive(Debug)]
pub struct Export {
    scope: Scope,
    filter: AuditFilter,
    format: Format,
    from: DateTime<Utc>,
    /// The longest range that one statement may search; `None` if an index leads to the rows.
    time_slice: Option<TimeDelta>,
    batch_size: BatchSize,
    /// Whether the header has been returned.
    has_begun: bool,
    next: Option<ExportPosition>,
}

/// The position at which an export continues.
#[derive(Debug, Clone, Copy)]
struct ExportPosition {
    to: DateTime<Utc>,
    after: Option<Key>,
}

impl Export {
    /// Creates an export of a range. Nothing is read yet.
    pub fn of(scope: Scope, filter: AuditFilter, span: Span, format: Format) -> Self {
        let time_slice = filter.longest(&scope);
        let next = (span.from <= span.to).then_some(ExportPosition { to: span.to, after: None });
        Self {
            scope,
            filter,
            format,
            from: span.from,
            time_slice,
            batch_size: BatchSize::of(ROWS),
            has_begun: false,
            next,
        }
    }

    /// Reads the next part; `None` after the last one. There is always a first one, even if it has no rows. After an
    /// error the same part can be requested again.
    ///
    /// # Errors
    /// If a query fails or times out.
    pub async fn part(&mut self, reader: &Reader) -> store::Result<Option<Part>> {
        let head = if self.has_begun { Vec::new() } else { self.format.head() };
        let mut lines = self.format.lines(head);
        let mut rows = 0;
        while let Some(position) = self.next.filter(|_| rows == 0) {
            let page = self.page(position);
            let (mut taken, mut last, mut is_full) = (0, None, false);
            let mut transaction = reader.begin(&self.scope).await?;
            let read = audit::each(&mut transaction, &self.filter, &page, |row| {
                lines.write(&row).map_err(store::Error::Io)?;
                (taken, last) = (taken + 1, Some(row.key()));
                is_full = lines.bytes() >= PART_BYTES;
                Ok(if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            });
            read.await?;
            transaction.end().await?;
            rows += u64::from(taken);
            self.next = if is_full || taken >= page.limit {
                Some(ExportPosition { after: last, ..position })
            } else {
                // This slice is done; the one before it ends a microsecond earlier.
                page.from
                    .checked_sub_signed(TimeDelta::microseconds(1))
                    .filter(|to| *to >= self.from)
                    .map(|to| ExportPosition { to, after: None })
            };
            self.batch_size.adapt(taken, is_full);
        }
        if rows == 0 && self.has_begun {
            return Ok(None);
        }
        self.has_begun = true;
        Ok(Some(Part { text: lines.finish().map_err(store::Error::Io)?, rows }))
    }

    fn page(&self, position: ExportPosition) -> Page {
        let begin = self.time_slice.and_then(|time_slice| position.to.checked_sub_signed(time_slice));
        let from = begin.map_or(self.from, |begin| begin.max(self.from));
        Page { from, to: position.to, after: position.after, limit: self.batch_size.rows() }
    }
}
