//! How much goes at once of what goes row by row: small batches that give way when the database is tired.

use std::time::Duration;

/// What a batch may take: longer ones keep others waiting for the rows and the log.
const BATCH_WITHIN: Duration = Duration::from_millis(250);
/// Below this a batch is worth more than it costs.
const QUICK: Duration = Duration::from_millis(60);
const FEWEST: u32 = 100;
const MOST: u32 = 10_000;
/// A pause is at most so long, however tired the database is: the work has to end some time.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Rows of the next batch, by how long the last ones took.
#[derive(Debug, Clone)]
pub(crate) struct Batches {
    rows: u32,
}

impl Batches {
    pub(crate) fn new() -> Self {
        Self { rows: 1_000 }
    }

    /// How many rows the next batch may have.
    pub(crate) fn rows(&self) -> u32 {
        self.rows
    }

    /// Learns from a batch, and says how long to leave the database alone: as long as the batch took, so that others
    /// have half of the time at least; longer where it took longer than it should.
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
