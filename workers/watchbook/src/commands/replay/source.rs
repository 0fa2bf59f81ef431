//! Reads stored events in parts, oldest first.

use std::io;
use std::ops::ControlFlow;
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use publisher::Encoded;
use records::Headers;
use store::questions::events::EventFilter;
use store::questions::{Key, Listed, Page, Portion, Span, replay};
use store::reading::{Reader, Scope, took_too_long};

use super::message::message;
use super::stretch::Stretch;

/// Bytes of messages after which a part ends. A replay holds at most this plus one event.
const PART_BYTES: usize = 4 * 1024 * 1024;
/// Maximum events of a part: one atomic batch of events of usual size.
const ROWS: u32 = 1_000;

/// An event to publish again.
#[derive(Debug, Clone)]
pub(super) struct Again {
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
    portion: Portion,
    stretch: Stretch,
    next: Option<Place>,
}

/// The position of a source.
#[derive(Debug, Clone, Copy)]
struct Place {
    from: DateTime<Utc>,
    after: Option<Key>,
}

impl Source {
    /// Creates a source of all events in a time range that match a filter. The range starts no earlier than the oldest
    /// stored event.
    pub(super) async fn of(reader: Reader, filter: EventFilter, asked: Span) -> store::Result<Self> {
        let mut reading = reader.begin(&Scope::All).await?;
        let oldest = replay::oldest(&mut reading).await?;
        reading.end().await?;
        let span = Span { from: oldest.map_or(asked.to, |oldest| oldest.max(asked.from)), to: asked.to };
        let next = oldest.filter(|_| span.from <= span.to).map(|_| Place { from: span.from, after: None });
        Ok(Self { reader, filter, span, portion: Portion::of(ROWS), stretch: Stretch::SHORT, next })
    }

    /// Returns the time range that is searched.
    pub(super) fn span(&self) -> Span {
        self.span
    }

    /// Counts the events, one stretch of time per transaction. Calls `is_over` with the count before each stretch, and
    /// stops if it returns true.
    pub(super) async fn count(&self, is_over: impl Fn(u64) -> bool) -> store::Result<u64> {
        let (mut counted, mut stretch) = (0, Stretch::SHORT);
        let mut next = self.next.map(|place| place.from);
        while let Some(from) = next.filter(|_| !is_over(counted)) {
            let (span, asked) = (Span { from, to: self.end_of(from, stretch) }, Instant::now());
            match self.count_in(&span).await {
                Ok(more) => {
                    counted += more;
                    next = self.behind(span.to);
                    stretch.answered(asked.elapsed());
                }
                Err(error) if took_too_long(&error) && stretch.shorten() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(counted)
    }

    async fn count_in(&self, span: &Span) -> store::Result<u64> {
        let mut reading = self.reader.begin(&Scope::All).await?;
        let count = replay::count(&mut reading, &self.filter, span).await?;
        reading.end().await?;
        Ok(count)
    }

    /// Reads the next part as messages. An empty part means the end.
    pub(super) async fn part(&mut self, subject: &str, headers: &Headers) -> store::Result<Vec<Again>> {
        let mut part = Vec::new();
        while let Some(place) = self.next.filter(|_| part.is_empty()) {
            let (page, asked) = (self.page(place), Instant::now());
            let is_full = match self.read(&page, subject, headers, &mut part).await {
                Ok(is_full) => is_full,
                // Shorten both, because it is unknown which of the two was too large.
                Err(error) if took_too_long(&error) && (self.stretch.shorten() | self.portion.shorten()) => {
                    part.clear();
                    continue;
                }
                Err(error) => return Err(error),
            };
            let taken = u32::try_from(part.len()).unwrap_or(u32::MAX);
            let last = part.last().map(|again| again.key).filter(|_| is_full || taken >= page.limit);
            self.next = match last {
                Some((at, id)) => Some(Place { from: at, after: Some((at, id)) }),
                // This stretch is done; the next one starts a microsecond later.
                None => self.behind(page.to).map(|from| Place { from, after: None }),
            };
            self.portion.learn(taken, is_full);
            self.stretch.answered(asked.elapsed());
        }
        Ok(part)
    }

    /// Reads a page into `part`, up to the size of a part. Returns whether the part is full.
    async fn read(&self, page: &Page, subject: &str, headers: &Headers, part: &mut Vec<Again>) -> store::Result<bool> {
        let mut bytes = 0;
        let mut reading = self.reader.begin(&Scope::All).await?;
        let read = replay::each(&mut reading, &self.filter, page, |event| {
            let message =
                message(&event, subject, headers).map_err(|error| store::Error::Io(io::Error::other(error)))?;
            bytes += message.size();
            part.push(Again { key: event.key(), message, is_whole: event.is_whole() });
            Ok(if bytes >= PART_BYTES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
        read.await?;
        reading.end().await?;
        Ok(bytes >= PART_BYTES)
    }

    fn page(&self, place: Place) -> Page {
        let needs_stretches = self.filter.organization_id.is_some() && !self.is_led();
        let to = if needs_stretches { self.end_of(place.from, self.stretch) } else { self.span.to };
        Page { from: place.from, to, after: place.after, limit: self.portion.rows() }
    }

    fn end_of(&self, from: DateTime<Utc>, stretch: Stretch) -> DateTime<Utc> {
        from.checked_add_signed(stretch.length()).map_or(self.span.to, |to| to.min(self.span.to))
    }

    /// Returns the next microsecond, or `None` at the end of the range.
    fn behind(&self, moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
        moment.checked_add_signed(TimeDelta::microseconds(1)).filter(|next| *next <= self.span.to)
    }

    /// Returns whether an index covers the filter.
    fn is_led(&self) -> bool {
        self.filter.project_id.is_some() || self.filter.run_id.is_some()
    }
}
