//! Waits between attempts: each about twice the last, and no two producers in step.

use std::time::Duration;

/// A growing delay with jitter.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    attempts: u32,
}

impl Backoff {
    /// For attempts that somebody waits for.
    pub(crate) fn between_attempts() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(1))
    }

    /// For attempts in the background, for ever.
    pub(crate) fn in_background() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(5))
    }

    fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, attempts: 0 }
    }

    /// Whether nothing was delayed yet.
    pub(crate) fn is_first(&self) -> bool {
        self.attempts == 0
    }

    /// The next delay: between half and the whole of what this attempt may wait.
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
