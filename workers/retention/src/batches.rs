//! The size of row-level batches. Batches shrink and pauses grow when the database is slow.

use std::time::Duration;

/// The longest that a batch should take: a longer one makes others wait for its row locks and for the WAL.
const BATCH_WITHIN: Duration = Duration::from_millis(250);
/// A batch that takes less than this is followed by a larger one, because the cost per batch dominates.
const QUICK: Duration = Duration::from_millis(60);
const FEWEST: u32 = 100;
const MOST: u32 = 10_000;
/// The longest pause, however slow the database is: the work has to end some time.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The number of rows in the next batch, adapted to how long the previous ones took.
#[derive(Debug, Clone)]
pub(crate) struct Batches {
    rows: u32,
}

impl Batches {
    pub(crate) fn new() -> Self {
        Self { rows: 1_000 }
    }

    /// Returns the maximum number of rows in the next batch.
    pub(crate) fn rows(&self) -> u32 {
        self.rows
    }

    /// Adapts the size to the duration of a batch, and returns the pause before the next one. The pause is as long as
    /// the batch took, so that others have at least half of the time; it is twice as long after a slow batch.
    pub(crate) fn took(&mut self, took: Duration) -> Duration {
        if took > BATCH_WITHIN {
            self.rows = (self.rows / 2).max(FEWEST);
            return (took * 2).min(LONGEST_PAUSE);
        }
        if took < QUICK {
            self.rows = (self.rows * 2).min(MOST);
        }
        took
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_shrink_and_pauses_grow_when_the_database_is_tired() {
        let mut batches = Batches::new();
        let (quick, slow) = (Duration::from_millis(20), Duration::from_secs(1));
        for _ in 0..10 {
            assert_eq!(batches.took(quick), quick);
        }
        assert_eq!(batches.rows(), MOST);
        assert_eq!(batches.took(slow), slow * 2);
        assert_eq!(batches.rows(), MOST / 2);
        assert_eq!(batches.took(Duration::from_millis(100)), Duration::from_millis(100));
        assert_eq!(batches.rows(), MOST / 2, "neither quick nor slow");
        for _ in 0..20 {
            assert!(batches.took(Duration::from_secs(60)) <= LONGEST_PAUSE);
        }
        assert_eq!(batches.rows(), FEWEST);
    }
}
