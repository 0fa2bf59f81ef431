//! How many live answers there may be, of one caller and in all.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;

use crate::metrics;
use crate::problem::Problem;

/// When a place may have become free: those who watch stay long.
const FREE_AFTER: Duration = Duration::from_secs(30);

/// Live answers that are open.
#[derive(Debug)]
pub(super) struct Places {
    taken: Mutex<HashMap<Arc<str>, u32>>,
    in_all: u32,
    per_caller: u32,
}

/// The right to one live answer, as long as it is held.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    caller: Arc<str>,
}

impl Places {
    pub(super) fn new(in_all: NonZeroU32, per_caller: NonZeroU32) -> Arc<Self> {
        Arc::new(Self { taken: Mutex::default(), in_all: in_all.get(), per_caller: per_caller.get() })
    }

    /// Takes a place for a caller.
    ///
    /// # Errors
    /// 429 where this caller has as many as one may have, 503 where there is none left for anybody.
    pub(super) fn take(self: &Arc<Self>, caller: &Arc<str>) -> Result<Place, Problem> {
        let mut taken = self.lock();
        if taken.get(caller).is_some_and(|own| *own >= self.per_caller) {
            let detail = "this caller watches as many streams as [gateway] live_streams_per_caller allows";
            let (status, title) = (StatusCode::TOO_MANY_REQUESTS, "Too many requests");
            return Err(Problem::new(status, "too-many-streams", title, detail).retry_after(FREE_AFTER));
        }
        if taken.values().sum::<u32>() >= self.in_all {
            return Err(Problem::unavailable("as many streams are watched as this gateway has room for", FREE_AFTER));
        }
        *taken.entry(caller.clone()).or_default() += 1;
        ::metrics::gauge!(metrics::LIVE_STREAMS).increment(1);
        Ok(Place { places: self.clone(), caller: caller.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, u32>> {
        // A panic while holding this lock left whole numbers behind.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(own) = taken.get_mut(&self.caller) {
            *own -= 1;
            // Nobody is remembered who has none.
            if *own == 0 {
                taken.remove(&self.caller);
            }
        }
        ::metrics::gauge!(metrics::LIVE_STREAMS).decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_given_back() {
        let count = |number| NonZeroU32::new(number).unwrap();
        let places = Places::new(count(3), count(2));
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let status = |refused: Result<Place, Problem>| refused.unwrap_err().status().as_u16();
        let held = [places.take(&a).unwrap(), places.take(&a).unwrap()];
        assert_eq!(status(places.take(&a)), 429);
        let last = places.take(&b).unwrap();
        assert_eq!(status(places.take(&b)), 503);
        drop(held);
        assert!(places.take(&b).is_ok());
        drop(last);
        assert!(places.lock().is_empty());
    }
}
