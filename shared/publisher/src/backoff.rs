//! Delays between attempts. They double each time, with jitter so that producers do not retry in step.

use std::time::Duration;

/// An exponential delay with jitter.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    attempts: u32,
}

impl Backoff {
    /// Returns the delays for attempts that a caller waits for: 50 ms to 1 s.
    pub(crate) fn between_attempts() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(1))
    }

    /// Returns the delays for attempts in the background: 100 ms to 5 s, without end.
    pub(crate) fn in_background() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(5))
    }

    fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, attempts: 0 }
    }

    /// Returns whether no delay was taken yet.
    pub(crate) fn is_first(&self) -> bool {
        self.attempts == 0
    }

    /// Returns the next delay: a random value between half of the current bound and the bound.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let whole = self.first.saturating_mul(1 << self.attempts.min(16)).min(self.most);
        self.attempts = self.attempts.saturating_add(1);
        whole.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_are_bounded() {
        let mut backoff = Backoff::in_background();
        for attempt in 0..100 {
            let delay = backoff.next_delay();
            let whole = Duration::from_millis(100 << attempt.min(16)).min(Duration::from_secs(5));
            assert!(delay >= whole / 2 && delay <= whole, "attempt {attempt}: {delay:?}");
        }
    }
}
