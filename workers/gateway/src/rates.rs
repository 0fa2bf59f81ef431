//! How often a caller may ask.
//!
//! Each has two budgets, one for publishing and one for all the rest, so that a flood of records leaves its sender
//! able to ask what became of them. Whose budget it is says the token's subject, which its issuer vouches for: nobody
//! gets another one by making up a name, and the number of budgets is bounded by the number of subjects.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;

use axum::http::StatusCode;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use runtime::config::Gateway;

use crate::auth::Caller;
use crate::problem::Problem;

/// Out of which budget a request is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Budget {
    /// Everything but publishing.
    Requests,
    /// Publishing.
    Publishing,
}

/// What callers have left.
#[derive(Debug)]
pub(crate) struct Rates {
    requests: DefaultKeyedRateLimiter<u64>,
    publishing: DefaultKeyedRateLimiter<u64>,
    clock: DefaultClock,
    hasher: RandomState,
}

impl Rates {
    pub(crate) fn of(settings: &Gateway) -> Self {
        let limiter =
            |rate: NonZeroU32, burst: NonZeroU32| RateLimiter::keyed(Quota::per_second(rate).allow_burst(burst));
        Self {
            requests: limiter(settings.requests_per_second, settings.request_burst),
            publishing: limiter(settings.publishes_per_second, settings.publish_burst),
            clock: DefaultClock::default(),
            hasher: RandomState::new(),
        }
    }

    /// Takes one request from a caller's budget.
    pub(crate) fn pay(&self, caller: &Caller, budget: Budget) -> Result<(), Problem> {
        let limiter = match budget {
            Budget::Requests => &self.requests,
            Budget::Publishing => &self.publishing,
        };
        // A hash, so that no request copies a name. Two of the same hash share a budget, and nothing else.
        let paid = limiter.check_key(&self.hasher.hash_one(&*caller.subject));
        paid.map_err(|until| {
            let detail = "this caller asks more often than [gateway] allows; see Retry-After";
            let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests", detail);
            problem.retry_after(until.wait_time_from(self.clock.now()))
        })
    }

    /// Forgets who has not asked for a while.
    pub(crate) fn keep_house(&self) {
        for limiter in [&self.requests, &self.publishing] {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Organizations, Role};

    #[test]
    fn each_caller_has_two_budgets() {
        let one = NonZeroU32::MIN;
        let settings = Gateway {
            requests_per_second: one,
            request_burst: one,
            publishes_per_second: one,
            publish_burst: one,
            ..Gateway::default()
        };
        let rates = Rates::of(&settings);
        let caller =
            |name: &str| Caller { subject: name.into(), role: Role::Viewer, organizations: Organizations::All };
        assert!(rates.pay(&caller("a"), Budget::Requests).is_ok());
        assert_eq!(rates.pay(&caller("a"), Budget::Requests).unwrap_err().status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(rates.pay(&caller("a"), Budget::Publishing).is_ok());
        assert!(rates.pay(&caller("b"), Budget::Requests).is_ok());
    }
}
