//! How many questions of one caller are asked at once. The others wait for their turn, so that a caller whose questions
//! are slow slows down nobody else: connections to the database are few, and each question takes one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Turns of all callers.
#[derive(Debug)]
pub(crate) struct Turns {
    at_once: usize,
    of: Mutex<HashMap<Arc<str>, Weak<Semaphore>>>,
}

impl Turns {
    /// So many at once for each caller.
    pub(crate) fn new(at_once: usize) -> Self {
        Self { at_once, of: Mutex::default() }
    }

    /// Waits for a caller's turn, which lasts as long as what is returned is held. First come, first served.
    pub(crate) async fn wait(&self, caller: &Arc<str>) -> Option<OwnedSemaphorePermit> {
        // Nobody closes a semaphore.
        self.turns_of(caller).acquire_owned().await.ok()
    }

    fn turns_of(&self, caller: &Arc<str>) -> Arc<Semaphore> {
        // What is in it is whole at any time.
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turns) = of.get(caller).and_then(Weak::upgrade) {
            return turns;
        }
        let turns = Arc::new(Semaphore::new(self.at_once));
        of.insert(caller.clone(), Arc::downgrade(&turns));
        turns
    }

    /// Forgets who does not ask at the moment.
    pub(crate) fn keep_house(&self) {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        of.retain(|_, turns| turns.strong_count() > 0);
        of.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn each_caller_has_turns_of_their_own() {
        let turns = Turns::new(2);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let (first, second) = (turns.wait(&a).await, turns.wait(&a).await);
        assert!(turns.wait(&a).now_or_never().is_none(), "a third one waits");
        assert!(turns.wait(&b).now_or_never().is_some(), "of another caller it does not");
        turns.keep_house();
        assert!(turns.wait(&a).now_or_never().is_none(), "whoever asks is remembered");
        drop(first);
        assert!(turns.wait(&a).now_or_never().is_some());
        drop(second);
        turns.keep_house();
        assert!(turns.of.lock().unwrap().is_empty());
    }
}
