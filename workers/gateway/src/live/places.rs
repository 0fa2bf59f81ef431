//! How many live answers there may be, of one caller and in all.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::metrics;
use crate::problem::Problem;
use crate::shares::{NoShare, Share, Shares};

/// When a place may have become free: those who watch stay long.
const FREE_AFTER: Duration = Duration::from_secs(30);

/// Live answers that are open.
#[derive(Debug)]
pub(super) struct Places(Arc<Shares>);

/// The right to one live answer, as long as it is held.
#[derive(Debug)]
pub(super) struct Place {
    _share: Share,
}

impl Places {
    pub(super) fn new(in_all: NonZeroU32, per_caller: NonZeroU32) -> Self {
        Self(Shares::new(in_all.get().into(), per_caller.get().into()))
    }

    /// Takes a place for a caller.
    ///
    /// # Errors
    /// 429 where this caller has as many as one may have, 503 where there is none left for anybody.
    pub(super) fn take(&self, caller: &Arc<str>) -> Result<Place, Problem> {
        let share = self.0.take(caller, 1).map_err(|refusal| match refusal {
            NoShare::OfOne => {
                let detail = "this caller watches as many streams as [gateway] live_streams_per_caller allows";
                Problem::too_many("too-many-streams", detail, FREE_AFTER)
            }
            NoShare::InAll => {
                Problem::unavailable("as many streams are watched as this gateway has room for", FREE_AFTER)
            }
        })?;
        ::metrics::gauge!(metrics::LIVE_STREAMS).increment(1);
        Ok(Place { _share: share })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        ::metrics::gauge!(metrics::LIVE_STREAMS).decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_too_many_is_told_and_who_finds_none() {
        let count = |number| NonZeroU32::new(number).unwrap();
        let places = Places::new(count(3), count(2));
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let status = |refused: Result<Place, Problem>| refused.unwrap_err().status().as_u16();
        let held = [places.take(&a).unwrap(), places.take(&a).unwrap()];
        assert_eq!(status(places.take(&a)), 429);
        let _last = places.take(&b).unwrap();
        assert_eq!(status(places.take(&b)), 503);
        drop(held);
        assert!(places.take(&b).is_ok());
    }
}
