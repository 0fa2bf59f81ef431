//! How long to wait before trying again.

use std::time::Duration;

/// Exponential backoff with full jitter: many processes that lost the same server must not come back
/// in one step. Bounded above, never gives up; whoever retries decides when to.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// For a server that is away: soon after a blip, twice a second at first, every five seconds at last.
    /// Five seconds is what a person waits for a system to notice that its database is back.
    pub const fn for_server() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(5))
    }

    /// Waits between half of `first` and `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The next wait: half of it fixed, half of it chance.
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.next.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.next = (self.next * 2).min(self.longest);
        wait
    }

    /// Something worked: the next failure starts anew.
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
