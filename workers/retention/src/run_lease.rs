//! The run lease: permits one process at a time to remove records.

use std::time::Duration;

use store::{Database, Lease};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// The lease under which one process at a time executes runs and erasures. Dropping it releases it.
#[derive(Debug)]
pub struct RunLease {
    held: CancellationToken,
    keeper: Option<JoinHandle<()>>,
}

impl RunLease {
    /// The name of the lease.
    pub const LEASE: &str = "retention acting";

    /// Acquires the lease. Returns `None` if another process still holds it after `wait`.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn acquire(database: &Database, wait: Duration) -> store::Result<Option<Self>> {
        const POLL_EVERY: Duration = Duration::from_millis(200);
        let mut lease = Lease::open(database, Self::LEASE).await?;
        let mut waited = Duration::ZERO;
        while !lease.try_acquire().await? {
            if waited >= wait {
                return Ok(None);
            }
            sleep(POLL_EVERY).await;
            waited += POLL_EVERY;
        }
        let held = CancellationToken::new();
        let keeper = tokio::spawn(lease.keep(held.clone()));
        Ok(Some(Self { held, keeper: Some(keeper) }))
    }

    /// Runs `work` and returns its result. If the lease is lost first, cancels `work` and returns `None`, because
    /// another process may act from then on.
    pub async fn run_while_held<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            () = self.held.cancelled() => None,
            done = work => Some(done),
        }
    }

    /// Releases the lease and waits until its session is closed, so that another process can acquire it at once.
    pub async fn release(mut self) {
        self.held.cancel();
        if let Some(keeper) = self.keeper.take() {
            // The panic hook reports a panic in it.
            let _ = keeper.await;
        }
    }
}

impl Drop for RunLease {
    fn drop(&mut self) {
        self.held.cancel();
    }
}
