//! The number of rows to request at once when reading all of them part by part.

/// The number of rows to request. Rows may have a few hundred bytes or a mebibyte, and a part is bounded in bytes:
/// rows after the one that fills a part are read in vain. So after a full part only as many rows are requested as it
/// had, and more again while parts are not full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSize {
    rows: u32,
    most: u32,
}

impl BatchSize {
    /// Starts with the maximum number of rows.
    pub const fn of(most: u32) -> Self {
        Self { rows: most, most }
    }

    /// Returns the number of rows to request.
    pub const fn rows(self) -> u32 {
        self.rows
    }

    /// Reduces the number after a query timed out. Returns whether it was possible to reduce it.
    pub fn shrink(&mut self) -> bool {
        let asked = self.rows;
        self.rows = (asked / 16).max(1);
        self.rows < asked
    }

    /// Adapts the number to a part: how many rows it took, and whether they filled it.
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
