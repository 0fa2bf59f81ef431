//! Waits between retries.

use std::time::Duration;

/// Exponential backoff with jitter, so that processes that lost the same server do not reconnect at the same moment.
/// Waits are bounded. It never gives up; the caller decides when to.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Returns a backoff for a server that is down: waits grow from 100 ms to 5 s. After a recovery, five seconds is an
    /// acceptable delay for a person.
    pub const fn for_server() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(5))
    }

    /// Returns a backoff with waits that grow from `first` to `longest`, each shortened by up to half at random.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// Returns the next wait: half of it fixed, the other half random.
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.next.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.next = (self.next * 2).min(self.longest);
        wait
    }

    /// Starts again with the first wait. Call it after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_start_anew() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut bound = Duration::from_millis(100);
        for _ in 0..20 {
            let wait = backoff.next_wait();
            assert!(wait >= bound / 2 && wait <= bound, "{wait:?} of {bound:?}");
            bound = (bound * 2).min(Duration::from_secs(1));
        }
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_millis(100));
    }
}
