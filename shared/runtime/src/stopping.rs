//! Shutdown: the signals that start it, and its time budget. Within the budget a process stops reading, settles what it
//! has read, closes its connections, and logs whether that was clean.

use std::time::Duration;

/// The time that a process may take to stop after a signal. Kubernetes kills after 30 s and systemd after 90 s. A batch
/// takes well below a second unless Postgres is down, and then waiting longer would not help.
pub const STOP_BUDGET: Duration = Duration::from_secs(10);

/// Waits for SIGINT (Ctrl-C) or SIGTERM, and returns the signal's name.
///
/// # Errors
/// If the signal handlers cannot be installed.
pub async fn stop_signal() -> std::io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    })
}
