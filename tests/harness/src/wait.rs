//! Waiting for a condition.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Upper bound of all waits. Far longer than anything here takes on a busy machine; only a failing test reaches it.
pub const BOUND: Duration = Duration::from_secs(60);
/// Poll interval of a condition.
const POLL_EVERY: Duration = Duration::from_millis(20);

/// Calls `probe` until it returns `Ok`, and returns its value.
///
/// # Panics
/// If it does not within [`BOUND`]. The message contains its last error.
pub async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + BOUND;
    loop {
        match probe().await {
            Ok(found) => return found,
            Err(seen) if Instant::now() >= deadline => panic!("{what}: not within {BOUND:?}; last seen: {seen}"),
            Err(_) => sleep(POLL_EVERY).await,
        }
    }
}
