//! How often a caller may ask.
//!
//! Each has two budgets, one for publishing and one for all the rest, so that a flood of records leaves its sender
//! able to ask what became of them. Whose budget it is says the token's subject, which its issuer vouches for: nobody
//! gets another one by making up a name, and the number of budgets is bounded by the number of subjects.
//!
//! Who has no good token has no name, and pays out of a budget of their address: for every token that is refused, and
//! for coming without one. A token is checked before anybody looks at that budget, so nobody who has a good one is
//! turned away for what others send from the same address, which may be a proxy's. That leaves the checks themselves
//! unbounded, and they may be: one costs some microseconds with a shared secret and some tens of them with a published
//! key, as much as reading the request that brings it; the issuer is asked for keys that nobody knows seldom, however
//! many are invented (`auth::jwks`); and connections are bounded. Refusing unseen would save little, and let anybody
//! behind a proxy lock out everybody. What the budget does is to tell who goes on with a token that is over, or
//! guesses, when to come back, and whoever looks at the metrics that there is one.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use runtime::config::Gateway;

use crate::auth::Caller;
use crate::problem::Problem;

/// Budgets of addresses at the most, into which all addresses fall by chance: no flood from many addresses fills the
/// memory, and two that share one are few.
const ADDRESSES: u64 = 1 << 16;

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
pub(crate) struct RateLimits {
    requests: DefaultKeyedRateLimiter<u64>,
    publishing: DefaultKeyedRateLimiter<u64>,
    refusals: DefaultKeyedRateLimiter<u64>,
    clock: DefaultClock,
    hasher: RandomState,
}

impl RateLimits {
    pub(crate) fn of(settings: &Gateway) -> Self {
        let limiter =
            |rate: NonZeroU32, burst: NonZeroU32| RateLimiter::keyed(Quota::per_second(rate).allow_burst(burst));
        Self {
            requests: limiter(settings.requests_per_second, settings.request_burst),
            publishing: limiter(settings.publishes_per_second, settings.publish_burst),
            refusals: limiter(settings.refusals_per_second, settings.refusal_burst),
            clock: DefaultClock::default(),
            hasher: RandomState::new(),
        }
    }

    /// Takes one request from a caller's budget.
    pub(crate) fn charge(&self, caller: &Caller, budget: Budget) -> Result<(), Problem> {
        let limiter = match budget {
            Budget::Requests => &self.requests,
            Budget::Publishing => &self.publishing,
        };
        // A hash, so that no request copies a name. Two of the same hash share a budget, and nothing else.
        let detail = "this caller asks more often than [gateway] allows; see Retry-After";
        self.charge_key(limiter, self.hasher.hash_one(&*caller.subject), detail)
    }

    /// What a request is answered that is refused for its token: `refusal`, or that too many were from this address.
    pub(crate) fn refuse(&self, address: Option<IpAddr>, refusal: Problem) -> Problem {
        let detail = "too many tokens from this address are refused; see Retry-After";
        let network = network(address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        let paid = self.charge_key(&self.refusals, self.hasher.hash_one(network) % ADDRESSES, detail);
        paid.err().unwrap_or(refusal)
    }

    fn charge_key(
        &self,
        limiter: &DefaultKeyedRateLimiter<u64>,
        key: u64,
        detail: &'static str,
    ) -> Result<(), Problem> {
        limiter
            .check_key(&key)
            .map_err(|until| Problem::too_many("too-many-requests", detail, until.wait_time_from(self.clock.now())))
    }

    /// Forgets who has not asked for a while.
    pub(crate) fn evict_idle(&self) {
        for limiter in [&self.requests, &self.publishing, &self.refusals] {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

/// What one subscriber has: an address, and of IPv6 the first half, behind which they may have any number.
fn network(address: IpAddr) -> [u8; 8] {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [0, 0, 0, 0, a, b, c, d]
        }
        IpAddr::V6(address) => {
            let octets = address.octets();
            std::array::from_fn(|at| octets[at])
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

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
        let rates = RateLimits::of(&settings);
        let caller =
            |name: &str| Caller { subject: name.into(), role: Role::Viewer, organizations: Organizations::All };
        assert!(rates.charge(&caller("a"), Budget::Requests).is_ok());
        assert_eq!(rates.charge(&caller("a"), Budget::Requests).unwrap_err().status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(rates.charge(&caller("a"), Budget::Publishing).is_ok());
        assert!(rates.charge(&caller("b"), Budget::Requests).is_ok());
    }

    #[test]
    fn refusals_are_paid_by_the_address() {
        let one = NonZeroU32::MIN;
        let settings = Gateway { refusals_per_second: one, refusal_burst: one, ..Gateway::default() };
        // Two may come into one budget by chance, and a second may pass: then it is tried again.
        let is_apart = (0..8).any(|_| {
            let rates = RateLimits::of(&settings);
            let status = |address: &str| {
                let unauthorized = Problem::of_status(StatusCode::UNAUTHORIZED);
                rates.refuse(address.parse().ok(), unauthorized).status().as_u16()
            };
            let refused = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1"].map(status);
            let again = ["::ffff:192.0.2.1", "2001:db8::ffff:0:0:1"].map(status);
            refused == [401; 4] && again == [429; 2]
        });
        assert!(is_apart);
    }

    #[test]
    fn no_flood_of_addresses_fills_the_memory() {
        let rates = RateLimits::of(&Gateway::default());
        for address in 0..200_000_u32 {
            rates.refuse(Some(Ipv4Addr::from(address).into()), Problem::of_status(StatusCode::UNAUTHORIZED));
        }
        assert!(rates.refusals.len() <= 1 << 16, "{}", rates.refusals.len());
    }
}
