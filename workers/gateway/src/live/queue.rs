//! The bounded queue of events for one reader.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::event::{self, Gap};

/// The maximum number of events that wait for one reader. `[gateway] live_queue` bounds their bytes, which all
/// readers that receive the same event share. An event that does not fit is dropped, counted and reported as `lost`.
const MESSAGES: usize = 512;

/// The queue of one reader.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Notify,
    /// Maximum number of bytes in the queue. A single event may be larger.
    most_bytes: usize,
    /// Whether the reader sees all organizations, and so may learn the sequences of gaps.
    sees_all: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    entries: VecDeque<Entry>,
    events: usize,
    bytes: usize,
    has_ended: bool,
}

/// An event, or a report between events. Adjacent reports are merged, so the bound on events also bounds reports.
#[derive(Debug)]
enum Entry {
    Event(Bytes),
    /// The number of dropped events that matched the reader's filter.
    Lost(u64),
    Gap(Gap),
}

impl Queue {
    pub(super) fn new(most_bytes: usize, sees_all: bool) -> Self {
        Self { waiting: Mutex::default(), changed: Notify::new(), most_bytes, sees_all }
    }

    /// Appends an event, or counts it as lost if it does not fit. Returns whether it fits.
    pub(super) fn push(&self, written: &Bytes) -> bool {
        let mut waiting = self.lock();
        let fits = waiting.events == 0
            || (waiting.events < MESSAGES && waiting.bytes.saturating_add(written.len()) <= self.most_bytes);
        if fits {
            waiting.events += 1;
            waiting.bytes += written.len();
            waiting.entries.push_back(Entry::Event(written.clone()));
        } else if let Some(Entry::Lost(count)) = waiting.entries.back_mut() {
            *count += 1;
        } else {
            waiting.entries.push_back(Entry::Lost(1));
        }
        drop(waiting);
        self.changed.notify_one();
        fits
    }

    /// Appends a gap.
    pub(super) fn push_gap(&self, further: Gap) {
        let mut waiting = self.lock();
        match waiting.entries.back_mut() {
            // A reader that resumes before the lost events also receives the gap.
            Some(Entry::Lost(_)) => {}
            Some(Entry::Gap(gap)) => *gap = Gap { first: gap.first, ..further },
            _ => waiting.entries.push_back(Entry::Gap(further)),
        }
        drop(waiting);
        self.changed.notify_one();
    }

    /// Marks the end: no more entries follow.
    pub(super) fn end(&self) {
        self.lock().has_ended = true;
        self.changed.notify_one();
    }

    /// Returns whether the queue is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().entries.is_empty()
    }

    /// Waits for the next entry and returns it encoded, or `None` at the end. Only one task may wait. Cancel-safe.
    pub(super) async fn next(&self) -> Option<Bytes> {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.changed.notified().await;
        }
    }

    /// Returns the next entry, `Some(None)` at the end, or `None` if the queue is empty.
    fn take(&self) -> Option<Option<Bytes>> {
        let mut waiting = self.lock();
        Some(match waiting.entries.pop_front() {
            Some(Entry::Event(written)) => {
                waiting.events -= 1;
                waiting.bytes -= written.len();
                Some(written)
            }
            Some(Entry::Lost(count)) => Some(event::lost(count)),
            Some(Entry::Gap(gap)) => Some(gap.written(self.sees_all)),
            None if waiting.has_ended => None,
            None => return None,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // The queue is consistent even if a panic poisoned the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_slow_is_told_what_was_lost_and_goes_on() {
        let (queue, event) = (Queue::new(100, false), Bytes::from_static(&[b'x'; 40]));
        let fits: Vec<_> = (1..=5).map(|_| queue.push(&event)).collect();
        assert_eq!(fits, [true, true, false, false, false]);
        assert_eq!(queue.next().await.unwrap(), event);
        assert!(queue.push(&event), "there is room again, after the report");
        assert_eq!(queue.next().await.unwrap(), event);
        let told = queue.next().await.unwrap();
        assert_eq!(told, "event: lost\ndata: {\"count\":3}\n\n");
        assert_eq!(queue.next().await.unwrap(), event);
        queue.end();
        assert!(queue.is_empty() && queue.next().await.is_none());
    }

    #[tokio::test]
    async fn gaps_that_follow_each_other_are_one() {
        let gap = |first, last| Gap { first, last, id: format!("id-{last}").into() };
        let (queue, event) = (Queue::new(100, true), Bytes::from_static(b"x"));
        queue.push_gap(gap(1, 2));
        queue.push_gap(gap(3, 9));
        assert!(queue.push(&event));
        assert_eq!(queue.next().await.unwrap(), gap(1, 9).written(true));
        assert_eq!(queue.next().await.unwrap(), event);
        assert!(queue.is_empty());
    }

    #[test]
    fn memory_is_bounded_in_both_ways() {
        let (queue, small) = (Queue::new(usize::MAX, true), Bytes::from_static(b"x"));
        let fitted = (0..10_000).filter(|_| queue.push(&small)).count();
        assert_eq!(fitted, MESSAGES);
        assert_eq!(queue.lock().entries.len(), MESSAGES + 1);
        let (queue, large) = (Queue::new(10, true), Bytes::from(vec![b'x'; 1_000]));
        let fitted = (0..100).filter(|_| queue.push(&large)).count();
        assert_eq!(fitted, 1, "a larger event fits into an empty queue");
    }
}
