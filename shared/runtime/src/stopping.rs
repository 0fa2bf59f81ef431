//! Stopping is a phase with a budget: stop pulling, flush, settle, close, and say whether it was clean.

use std::time::Duration;

/// What a process may take to stop after a signal. Kubernetes kills after 30 s and systemd after 90 s;
/// a batch takes well below a second unless Postgres is away, and then waiting longer would not help.
pub const STOP_BUDGET: Duration = Duration::from_secs(10);

/// Returns when the process is asked to stop: Ctrl-C or SIGTERM.
///
/// # Errors
/// Where the handlers cannot be installed.
pub async fn stop_signal() -> std::io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    })
}
