//! A per-caller limit on concurrent queries. Further queries wait, so slow queries only block queries of the same
//! caller: there are few database connections, and each query takes one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One semaphore for each caller with running or waiting queries.
#[derive(Debug)]
pub(crate) struct ConcurrencyLimit {
    per_caller: usize,
    semaphores: Mutex<HashMap<Arc<str>, Weak<Semaphore>>>,
}

impl ConcurrencyLimit {
    /// Creates a limit of `per_caller` concurrent queries.
    pub(crate) fn new(per_caller: usize) -> Self {
        Self { per_caller, semaphores: Mutex::default() }
    }

    /// Waits for a permit of a caller, in the order of the calls. Dropping the permit releases it.
    pub(crate) async fn acquire(&self, caller: &Arc<str>) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed, so this cannot fail.
        self.semaphore_of(caller).acquire_owned().await.ok()
    }

    fn semaphore_of(&self, caller: &Arc<str>) -> Arc<Semaphore> {
        // The map is consistent even if a panic poisoned the lock.
        let mut semaphores = self.semaphores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(semaphore) = semaphores.get(caller).and_then(Weak::upgrade) {
            return semaphore;
        }
        let semaphore = Arc::new(Semaphore::new(self.per_caller));
        semaphores.insert(caller.clone(), Arc::downgrade(&semaphore));
        semaphore
    }

    /// Removes callers without running or waiting queries.
    pub(crate) fn evict_idle(&self) {
        let mut semaphores = self.semaphores.lock().unwrap_or_else(PoisonError::into_inner);
        semaphores.retain(|_, semaphore| semaphore.strong_count() > 0);
        semaphores.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn each_caller_has_turns_of_their_own() {
        let limit = ConcurrencyLimit::new(2);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let (first, second) = (limit.acquire(&a).await, limit.acquire(&a).await);
        assert!(limit.acquire(&a).now_or_never().is_none(), "a third one waits");
        assert!(limit.acquire(&b).now_or_never().is_some(), "another caller's query does not wait");
        limit.evict_idle();
        assert!(limit.acquire(&a).now_or_never().is_none(), "a caller with running queries is kept");
        drop(first);
        assert!(limit.acquire(&a).now_or_never().is_some());
        drop(second);
        limit.evict_idle();
        assert!(limit.semaphores.lock().unwrap().is_empty());
    }
}
