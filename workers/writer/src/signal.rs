//! Tells whoever watches the roll-ups that there is more of them.

use std::sync::Arc;
use std::time::Duration;

use bus::Bus;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// The signal.
const ROLLUPS: &str = "rollups";
/// At full speed lanes commit every few milliseconds, and nobody looks as often as that.
const APART: Duration = Duration::from_millis(25);

/// Raises the signal after commits, until `stop`. The first one of a burst goes out at once, and one after its end.
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
