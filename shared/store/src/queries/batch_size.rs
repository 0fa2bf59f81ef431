//! How many rows are asked for at once by whoever reads all of them, part by part.

/// Rows may be a few hundred bytes or a mebibyte, and a part is bounded in bytes: what an answer has behind the row with
/// which a part is full was read for nothing. So after a full part only as many are asked for as it had, and more again
/// while parts are not full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSize {
    rows: u32,
    most: u32,
}

impl BatchSize {
    /// At first, and at the most, this many rows.
    pub const fn of(most: u32) -> Self {
        Self { rows: most, most }
    }

    /// Rows to ask for.
    pub const fn rows(self) -> u32 {
        self.rows
    }

    /// The query took too long. Whether it can be asked for fewer.
    pub fn shrink(&mut self) -> bool {
        let asked = self.rows;
        self.rows = (asked / 16).max(1);
        self.rows < asked
    }

    /// Learns from a part: how many rows it took, and whether it was full with them.
    pub fn adapt(&mut self, taken: u32, is_full: bool) {
        let rows = if is_full { taken } else { self.rows.saturating_mul(2) };
        self.rows = rows.clamp(1, self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fat_rows_are_asked_for_a_few_at_a_time() {
        let mut batch_size = BatchSize::of(1_000);
        for (taken, is_full, rows) in [
            (1_000, false, 1_000),
            (3, true, 3),
            (3, false, 6),
            (1, true, 1),
            (0, true, 1),
            (1, false, 2),
            (2, false, 4),
            (0, false, 8),
        ] {
            batch_size.adapt(taken, is_full);
            assert_eq!(batch_size.rows(), rows, "after {taken}");
        }
        let mut batch_size = BatchSize::of(1_000);
        for (rows, is_less) in [(62, true), (3, true), (1, true), (1, false)] {
            assert_eq!((batch_size.shrink(), batch_size.rows()), (is_less, rows));
        }
    }
}
