//! The quota of open live streams, in total and for each caller.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::metrics;
use crate::problem::Problem;
use crate::quota::{Permit, Quota, QuotaExceeded};

/// `Retry-After` when the quota is used up: live streams last long.
const FREE_AFTER: Duration = Duration::from_secs(30);

/// The quota of open live streams.
#[derive(Debug)]
pub(super) struct StreamQuota(Arc<Quota>);

/// The permit for one live stream, released when it is dropped.
#[derive(Debug)]
pub(super) struct StreamPermit {
    _permit: Permit,
}

impl StreamQuota {
    pub(super) fn new(total: NonZeroU32, per_caller: NonZeroU32) -> Self {
        Self(Quota::new(total.get().into(), per_caller.get().into()))
    }

    /// Acquires a permit for a caller.
    ///
    /// # Errors
    /// 429 if the caller's quota is used up, 503 if the total is.
    pub(super) fn acquire(&self, caller: &Arc<str>) -> Result<StreamPermit, Problem> {
        let permit = self.0.acquire(caller, 1).map_err(|refusal| match refusal {
            QuotaExceeded::Caller => {
                let detail = "this caller has as many live streams as [gateway] live_streams_per_caller allows";
                Problem::too_many("too-many-streams", detail, FREE_AFTER)
            }
            QuotaExceeded::Total => {
                Problem::unavailable("all live streams of this gateway ([gateway] live_streams) are in use", FREE_AFTER)
            }
        })?;
        ::metrics::gauge!(metrics::LIVE_STREAMS).increment(1);
        Ok(StreamPermit { _permit: permit })
    }
}

impl Drop for StreamPermit {
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
        let stream_quota = StreamQuota::new(count(3), count(2));
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let status = |refused: Result<StreamPermit, Problem>| refused.unwrap_err().status().as_u16();
        let held = [stream_quota.acquire(&a).unwrap(), stream_quota.acquire(&a).unwrap()];
        assert_eq!(status(stream_quota.acquire(&a)), 429);
        let _last = stream_quota.acquire(&b).unwrap();
        assert_eq!(status(stream_quota.acquire(&b)), 503);
        drop(held);
        assert!(stream_quota.acquire(&b).is_ok());
    }
}
