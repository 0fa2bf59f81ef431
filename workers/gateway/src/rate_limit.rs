//! Rate limits for callers and for rejected tokens.
//!
//! Each caller has two budgets: one for publishing, and one for all other requests. A caller that floods the gateway
//! with records can therefore still query them. Budgets are keyed by the token's subject, which the issuer vouches for.
//! A caller cannot get another budget by inventing a name, and the number of subjects bounds the number of budgets.
//!
//! Requests with a missing or rejected token are charged to a budget of their address. Tokens are verified before that
//! budget is checked, so a valid token is never rejected because of other requests from the same address, which may be
//! a proxy's. The verifications themselves are not rate-limited, for these reasons:
//!
//! - One takes some microseconds with a shared secret, and some tens of microseconds with a published key: as much as
//!   reading the request.
//! - Fetches of the issuer's keys are limited, however many unknown keys tokens name (`auth::jwks`).
//! - The number of connections is bounded.
//! - Rejecting requests without verifying their token would save little, and would let one client behind a proxy lock
//!   out all others.
//!
//! The budget tells clients that keep sending an expired token, or guess tokens, when to retry (429), and makes them
//! visible in the metrics.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use runtime::config::Gateway;

use crate::auth::Caller;
use crate::problem::Problem;

/// Number of budgets for addresses. An address is hashed to one of them, so a flood from many addresses cannot fill the
/// memory. Few addresses share a budget.
const ADDRESSES: u64 = 1 << 16;

/// The budget to which a request is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Budget {
    /// For all requests except publishing.
    Requests,
    /// For publishing.
    Publishing,
}

/// The remaining budgets of callers and addresses.
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

    /// Charges a request to a caller's budget. Returns 429 if it is used up.
    pub(crate) fn charge(&self, caller: &Caller, budget: Budget) -> Result<(), Problem> {
        let limiter = match budget {
            Budget::Requests => &self.requests,
            Budget::Publishing => &self.publishing,
        };
        // Use a hash, so that no request copies a name. Callers with the same hash share a budget, and nothing else.
        let detail = "this caller exceeds the rate limit of [gateway]; see Retry-After";
        self.charge_key(limiter, self.hasher.hash_one(&*caller.subject), detail)
    }

    /// Charges a request with a missing or rejected token to the budget of its address. Returns `refusal`, or 429 if
    /// the budget is used up. Requests without an address share the budget of `0.0.0.0`.
    pub(crate) fn refuse(&self, address: Option<IpAddr>, refusal: Problem) -> Problem {
        let detail = "too many tokens from this address were rejected; see Retry-After";
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

    /// Removes budgets that are full again.
    pub(crate) fn evict_idle(&self) {
        for limiter in [&self.requests, &self.publishing, &self.refusals] {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

/// Returns the network of one subscriber: an IPv4 address, or the first 64 bits of an IPv6 address, since a subscriber
/// may use any number of addresses in a /64.
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
        // Two addresses may share a budget by chance, and a second may pass. In that case, try again.
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
