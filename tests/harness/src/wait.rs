//! Waiting for a condition.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Longer than anything here takes on a busy machine; only a failing test waits for it.
pub const BOUND: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until `look` is content, and returns what it found.
///
/// # Panics
/// When it is not content within [`BOUND`], with what it saw last.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + BOUND;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if Instant::now() >= deadline => panic!("{what}: not within {BOUND:?}; last seen: {seen}"),
            Err(_) => sleep(LOOK_EVERY).await,
        }
    }
}
