//! Reads stored events in parts, oldest first.

use std::io;
use std::ops::ControlFlow;
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use publisher::Encoded;
use records::Headers;
use store::queries::events::EventFilter;
use store::queries::{BatchSize, Key, Listed, Page, Span, replay};
use store::scoped_read::{Reader, Scope, is_statement_timeout};

use super::message::message;
use super::time_slice::TimeSlice;

/// Bytes of messages after which a part ends. A replay holds at most this plus one event.
const PART_BYTES: usize = 4 * 1024 * 1024;
/// Maximum events of a part: one atomic batch of events of usual size.
const ROWS: u32 = 1_000;

/// An event to publish again.
#[derive(Debug, Clone)]
pub(super) struct ReplayMessage {
    pub(super) key: Key,
    pub(super) message: Encoded,
    /// Whether the message is the event that is stored.
    pub(super) is_whole: bool,
}

/// A cursor over the stored events that match a filter.
#[derive(Debug)]
pub(super) struct Source {
    reader: Reader,
    filter: EventFilter,
    span: Span,
    batch_size: BatchSize,
    time_slice: TimeSlice,
    next: Option<SourcePosition>,
}

/// The position of a source.
#[derive(Debug, Clone, Copy)]
struct SourcePosition {
    from: DateTime<Utc>,
    after: Option<Key>,
}

impl Source {
    /// Creates a source of all events in a time range that match a filter. The range starts no earlier than the oldest
    /// stored event.
    pub(super) async fn of(reader: Reader, filter: EventFilter, requested: Span) -> store::Result<Self> {
        let mut transaction = reader.begin(&Scope::All).await?;
        let oldest = replay::oldest(&mut transaction).await?;
        transaction.end().await?;
        let span = Span { from: oldest.map_or(requested.to, |oldest| oldest.max(requested.from)), to: requested.to };
        let next = oldest.filter(|_| span.from <= span.to).map(|_| SourcePosition { from: span.from, after: None });
        Ok(Self { reader, filter, span, batch_size: BatchSize::of(ROWS), time_slice: TimeSlice::SHORT, next })
    }

    /// Returns the time range that is searched.
    pub(super) fn span(&self) -> Span {
        self.span
    }

    /// Counts the events, one stretch of time per transaction. Calls `is_over` with the count before each stretch, and
    /// stops if it returns true.
    pub(super) async fn count(&self, is_over: impl Fn(u64) -> bool) -> store::Result<u64> {
        let (mut counted, mut time_slice) = (0, TimeSlice::SHORT);
        let mut next = self.next.map(|position| position.from);
        while let Some(from) = next.filter(|_| !is_over(counted)) {
            let (span, requested) = (Span { from, to: self.slice_end(from, time_slice) }, Instant::now());
            match self.count_in(&span).await {
                Ok(more) => {
                    counted += more;
                    next = self.behind(span.to);
                    time_slice.answered(requested.elapsed());
                }
                Err(error) if is_statement_timeout(&error) && time_slice.shrink() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(counted)
    }

    async fn count_in(&self, span: &Span) -> store::Result<u64> {
        let mut transaction = self.reader.begin(&Scope::All).await?;
        let count = replay::count(&mut transaction, &self.filter, span).await?;
        transaction.end().await?;
        Ok(count)
    }

    /// Reads the next part as messages. An empty part means the end.
    pub(super) async fn part(&mut self, subject: &str, headers: &Headers) -> store::Result<Vec<ReplayMessage>> {
        let mut part = Vec::new();
        while let Some(position) = self.next.filter(|_| part.is_empty()) {
            let (page, requested) = (self.page(position), Instant::now());
            let is_full = match self.read(&page, subject, headers, &mut part).await {
                Ok(is_full) => is_full,
                // Shorten both, because it is unknown which of the two was too large.
                Err(error) if is_statement_timeout(&error) && (self.time_slice.shrink() | self.batch_size.shrink()) => {
                    part.clear();
                    continue;
                }
                Err(error) => return Err(error),
            };
            let taken = u32::try_from(part.len()).unwrap_or(u32::MAX);
            let last = part.last().map(|replayed| replayed.key).filter(|_| is_full || taken >= page.limit);
            self.next = match last {
                Some((at, id)) => Some(SourcePosition { from: at, after: Some((at, id)) }),
                // This stretch is done; the next one starts a microsecond later.
                None => self.behind(page.to).map(|from| SourcePosition { from, after: None }),
            };
            self.batch_size.adapt(taken, is_full);
            self.time_slice.answered(requested.elapsed());
        }
        Ok(part)
    }

    /// Reads a page into `part`, up to the size of a part. Returns whether the part is full.
    async fn read(
        &self,
        page: &Page,
        subject: &str,
        headers: &Headers,
        part: &mut Vec<ReplayMessage>,
    ) -> store::Result<bool> {
        let mut bytes = 0;
        let mut transaction = self.reader.begin(&Scope::All).await?;
        let read = replay::each(&mut transaction, &self.filter, page, |event| {
            let message =
                message(&event, subject, headers).map_err(|error| store::Error::Io(io::Error::other(error)))?;
            bytes += message.size();
            part.push(ReplayMessage { key: event.key(), message, is_whole: event.is_whole() });
            Ok(if bytes >= PART_BYTES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
        read.await?;
        transaction.end().await?;
        Ok(bytes >= PART_BYTES)
    }

    fn page(&self, position: SourcePosition) -> Page {
        let needs_stretches = self.filter.organization_id.is_some() && !self.is_indexed();
        let to = if needs_stretches { self.slice_end(position.from, self.time_slice) } else { self.span.to };
        Page { from: position.from, to, after: position.after, limit: self.batch_size.rows() }
    }

    fn slice_end(&self, from: DateTime<Utc>, time_slice: TimeSlice) -> DateTime<Utc> {
        from.checked_add_signed(time_slice.length()).map_or(self.span.to, |to| to.min(self.span.to))
    }

    /// Returns the next microsecond, or `None` at the end of the range.
    fn behind(&self, moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
        moment.checked_add_signed(TimeDelta::microseconds(1)).filter(|next| *next <= self.span.to)
    }

    /// Returns whether an index covers the filter.
    fn is_indexed(&self) -> bool {
        self.filter.project_id.is_some() || self.filter.run_id.is_some()
    }
}
