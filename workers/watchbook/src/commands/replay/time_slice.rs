//! The length of time that one statement scans if no index covers its filter.

use std::time::Duration;

use chrono::TimeDelta;

/// Initial and minimum length. For a kind with ten million records a day this is half a million rows, well within the
/// statement time-out.
const LEAST: TimeDelta = TimeDelta::hours(1);
/// Maximum length: a year takes a dozen statements.
const MOST: TimeDelta = TimeDelta::days(30);
/// After a statement that took less, the length is doubled.
const SOON: Duration = Duration::from_millis(500);
/// After a statement that took more, the length is halved. Statements time out after ten seconds.
const LATE: Duration = Duration::from_secs(2);

/// A length of time that adapts to how long the last statements took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeSlice(TimeDelta);

impl TimeSlice {
    pub(super) const SHORT: Self = Self(LEAST);

    pub(super) const fn length(self) -> TimeDelta {
        self.0
    }

    /// Adapts the length to the duration of a statement.
    pub(super) fn answered(&mut self, within: Duration) {
        let length = match within {
            soon if soon < SOON => self.0 * 2,
            late if late > LATE => self.0 / 2,
            _ => self.0,
        };
        self.0 = length.clamp(LEAST, MOST);
    }

    /// Falls back to the minimum after a time-out. Returns false if the length was the minimum already.
    pub(super) fn shrink(&mut self) -> bool {
        let was_longer = *self != Self::SHORT;
        *self = Self::SHORT;
        was_longer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_long_as_the_answers_allow() {
        let mut time_slice = TimeSlice::SHORT;
        for (ms, hours) in [(10, 2), (499, 4), (700, 4), (2_100, 2), (9_000, 1), (9_000, 1), (10, 2)] {
            time_slice.answered(Duration::from_millis(ms));
            assert_eq!(time_slice.length(), TimeDelta::hours(hours), "after {ms} ms");
        }
        for _ in 0..20 {
            time_slice.answered(Duration::ZERO);
        }
        assert_eq!(time_slice.length(), MOST);
        assert!(time_slice.shrink() && !time_slice.shrink());
        assert_eq!(time_slice, TimeSlice::SHORT);
    }
}
