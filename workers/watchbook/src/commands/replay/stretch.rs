//! How long a time one statement looks through, for what no index leads to.

use std::time::Duration;

use chrono::TimeDelta;

/// At first, and at the least: of a kind with ten million records a day this is half a million rows, well below what a
/// question may take.
const LEAST: TimeDelta = TimeDelta::hours(1);
/// At the most: who keeps little for long is through a year in a dozen statements.
const MOST: TimeDelta = TimeDelta::days(30);
/// A statement that is answered sooner may look through twice as much.
const SOON: Duration = Duration::from_millis(500);
/// And one that takes longer through half of it. A question is given up after ten seconds.
const LATE: Duration = Duration::from_secs(2);

/// A stretch of time, as long as the answers to the last ones allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch(TimeDelta);

impl Stretch {
    pub(super) const SHORT: Self = Self(LEAST);

    pub(super) const fn length(self) -> TimeDelta {
        self.0
    }

    /// It was answered within so much time.
    pub(super) fn answered(&mut self, within: Duration) {
        let length = match within {
            soon if soon < SOON => self.0 * 2,
            late if late > LATE => self.0 / 2,
            _ => self.0,
        };
        self.0 = length.clamp(LEAST, MOST);
    }

    /// It was given up. Whether it can be tried with less.
    pub(super) fn shorten(&mut self) -> bool {
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
        let mut stretch = Stretch::SHORT;
        for (ms, hours) in [(10, 2), (499, 4), (700, 4), (2_100, 2), (9_000, 1), (9_000, 1), (10, 2)] {
            stretch.answered(Duration::from_millis(ms));
            assert_eq!(stretch.length(), TimeDelta::hours(hours), "after {ms} ms");
        }
        for _ in 0..20 {
            stretch.answered(Duration::ZERO);
        }
        assert_eq!(stretch.length(), MOST);
        assert!(stretch.shorten() && !stretch.shorten());
        assert_eq!(stretch, Stretch::SHORT);
    }
}
