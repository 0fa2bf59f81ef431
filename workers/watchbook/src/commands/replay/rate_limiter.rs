//! Rate limiting of a replay.

use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Maximum records sent at once: the size of an atomic batch.
const MAX_AT_ONCE: u32 = 1_000;
/// Slices per second. Ten are enough for a consumer to see a steady stream.
const SLICES: u32 = 10;
/// A replay that is late by more than this was blocked, and does not catch up with a burst.
const BEHIND: Duration = Duration::from_secs(1);

/// Records per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rate {
    /// A fixed rate.
    PerSecond(NonZeroU32),
    /// As fast as messages are accepted.
    Unlimited,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "unlimited" => Ok(Self::Unlimited),
            number => number
                .parse()
                .map(Self::PerSecond)
                .map_err(|_| "expected a number of records per second, at least 1, or `unlimited`".to_owned()),
        }
    }
}

/// The rate limiter of a replay.
#[derive(Debug)]
pub(super) struct RateLimiter {
    rate: Rate,
    began: Instant,
    sent: u64,
}

impl RateLimiter {
    pub(super) fn of(rate: Rate, now: Instant) -> Self {
        Self { rate, began: now, sent: 0 }
    }

    /// Returns how many records to send at once.
    pub(super) fn at_once(&self) -> usize {
        let rows = match self.rate {
            Rate::PerSecond(rate) => (rate.get() / SLICES).clamp(1, MAX_AT_ONCE),
            Rate::Unlimited => MAX_AT_ONCE,
        };
        usize::try_from(rows).unwrap_or(1)
    }

    /// Notes that `records` were sent. Returns how long to wait before the next ones.
    pub(super) fn sent(&mut self, records: usize, now: Instant) -> Duration {
        self.sent += records as u64;
        let Rate::PerSecond(rate) = self.rate else { return Duration::ZERO };
        let due = self.began + Duration::from_secs_f64(self.sent as f64 / f64::from(rate.get()));
        let behind = now.saturating_duration_since(due);
        if behind > BEHIND {
            self.began += behind;
        }
        due.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn a_rate_is_a_number_or_none() {
        assert_eq!(rate("unlimited"), Rate::Unlimited);
        assert_eq!(rate("250"), Rate::PerSecond(NonZeroU32::new(250).unwrap()));
        for wrong in ["0", "-1", "1.5", "", "fast"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn slices_are_a_tenth_of_a_second() {
        let now = Instant::now();
        for (text, at_once) in [("1", 1), ("15", 1), ("1000", 100), ("1000000", 1_000), ("unlimited", 1_000)] {
            assert_eq!(RateLimiter::of(rate(text), now).at_once(), at_once, "{text}");
        }
    }

    #[test]
    fn who_was_held_up_goes_on_at_the_same_pace() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let mut limiter = RateLimiter::of(rate("100"), start);
        assert_eq!(limiter.sent(10, start), ms(100));
        assert_eq!(limiter.sent(10, start + ms(150)), ms(50));
        // A small delay is caught up.
        assert_eq!(limiter.sent(10, start + ms(900)), ms(0));
        assert_eq!(limiter.sent(70, start + ms(950)), ms(50));
        // After ten seconds of waiting there is no burst of a thousand.
        assert_eq!(limiter.sent(10, start + ms(11_100)), ms(0));
        assert_eq!(limiter.sent(10, start + ms(11_100)), ms(100));
        assert_eq!(RateLimiter::of(Rate::Unlimited, start).sent(1_000_000, start), ms(0));
    }
}
