//! The right to act, which one process has at a time.

use std::time::Duration;

use store::{Database, Lease};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// The right to act, which one process has at a time: dropped, it is given up.
#[derive(Debug)]
pub struct RunLease {
    held: CancellationToken,
    keeper: Option<JoinHandle<()>>,
}

impl RunLease {
    /// The name of the lease.
    pub const LEASE: &str = "retention acting";

    /// The right, where nobody has it, or gives it up within `wait`; `None` where somebody keeps it.
    ///
    /// # Errors
    /// Where Postgres does not answer.
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

    /// What `work` gives, or nothing where the right is lost first: then somebody else may act, and this has to end.
    pub async fn run_while_held<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            () = self.held.cancelled() => None,
            done = work => Some(done),
        }
    }

    /// Gives it up, so that whoever waits need not wait for the server to notice.
    pub async fn release(mut self) {
        self.held.cancel();
        if let Some(keeper) = self.keeper.take() {
            // A panic in it is reported by its own hook.
            let _ = keeper.await;
        }
    }
}

impl Drop for RunLease {
    fn drop(&mut self) {
        self.held.cancel();
    }
}
