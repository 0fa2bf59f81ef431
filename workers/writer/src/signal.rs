//! Signals new roll-ups to the alert evaluator.

use std::sync::Arc;
use std::time::Duration;

use bus::Bus;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// The name of the signal.
const ROLLUPS: &str = "rollups";
/// Minimum time between two signals. At full speed lanes commit every few milliseconds, far more often than alerts
/// are evaluated.
const APART: Duration = Duration::from_millis(25);

/// Raises the signal after commits, until `stop`: at once for the first commit of a burst, and once after its end.
pub(crate) async fn raise_after(commits: Arc<Notify>, bus: Bus, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = commits.notified() => {}
        }
        bus.raise(ROLLUPS);
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(APART) => {}
        }
    }
}
