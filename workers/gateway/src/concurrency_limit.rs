//! How many queries of one caller are asked at once. The others wait for their turn, so that a caller whose queries
//! are slow slows down nobody else: connections to the database are few, and each query takes one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Turns of all callers.
#[derive(Debug)]
pub(crate) struct ConcurrencyLimit {
    per_caller: usize,
    semaphores: Mutex<HashMap<Arc<str>, Weak<Semaphore>>>,
}

impl ConcurrencyLimit {
    /// So many at once for each caller.
    pub(crate) fn new(per_caller: usize) -> Self {
        Self { per_caller, semaphores: Mutex::default() }
    }

    /// Waits for a caller's turn, which lasts as long as what is returned is held. First come, first served.
    pub(crate) async fn acquire(&self, caller: &Arc<str>) -> Option<OwnedSemaphorePermit> {
        // Nobody closes a semaphore.
        self.semaphore_of(caller).acquire_owned().await.ok()
    }

    fn semaphore_of(&self, caller: &Arc<str>) -> Arc<Semaphore> {
        // What is in it is whole at any time.
        let mut semaphores = self.semaphores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(semaphore) = semaphores.get(caller).and_then(Weak::upgrade) {
            return semaphore;
        }
        let semaphore = Arc::new(Semaphore::new(self.per_caller));
        semaphores.insert(caller.clone(), Arc::downgrade(&semaphore));
        semaphore
    }

    /// Forgets who does not ask at the moment.
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
        assert!(limit.acquire(&b).now_or_never().is_some(), "of another caller it does not");
        limit.evict_idle();
        assert!(limit.acquire(&a).now_or_never().is_none(), "whoever asks is remembered");
        drop(first);
        assert!(limit.acquire(&a).now_or_never().is_some());
        drop(second);
        limit.evict_idle();
        assert!(limit.semaphores.lock().unwrap().is_empty());
    }
}
