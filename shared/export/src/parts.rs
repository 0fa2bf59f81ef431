//! The log part by part.

use std::ops::ControlFlow;

use chrono::{DateTime, TimeDelta, Utc};
use store::queries::audit::{self, AuditFilter};
use store::queries::{BatchSize, Key, Listed, Page, Span};
use store::scoped_read::{Reader, Scope};

use crate::Format;

/// Bytes of text after which a part ends: all that an export ever holds is this, and the row with which it is reached.
/// A row may be a mebibyte and is usually half of a kibibyte: hundreds of these are worth a transaction.
pub const PART_BYTES: usize = 1024 * 1024;
/// Rows that a part asks for at the most. Should all of them be of the largest after others that were not, some hundred
/// MiB are read for nothing, once.
const ROWS: u32 = 500;

/// A part of an export.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// The text, of whole lines.
    pub text: Vec<u8>,
    /// The rows in it.
    pub rows: u64,
}

/// What is still to be exported of a range, from its end to its beginning.
#[derive(Debug)]
pub struct Export {
    scope: Scope,
    filter: AuditFilter,
    format: Format,
    from: DateTime<Utc>,
    /// How long a time one statement may look through; `None` where an index leads to the rows.
    time_slice: Option<TimeDelta>,
    batch_size: BatchSize,
    /// The head has been handed out.
    has_begun: bool,
    next: Option<ExportPosition>,
}

/// Where an export goes on.
#[derive(Debug, Clone, Copy)]
struct ExportPosition {
    to: DateTime<Utc>,
    after: Option<Key>,
}

impl Export {
    /// An export of all that a range has. Nothing is read yet.
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

    /// Reads the next part; `None` behind the last one. There always is a first one. After an error the same part may
    /// be asked for again.
    ///
    /// # Errors
    /// Where the database cannot be asked, or takes too long.
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
                // This stretch of time is done; the one before it ends a moment earlier.
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
