//! A dead man's switch: the service at the other end raises an alarm if no ping arrives.

use std::time::Duration;

use alerting::receiver::Heartbeat;

use crate::http::Call;
use crate::outcome::Outcome;
use crate::receivers::Delivery;

/// Maximum age of a ping. A ping means "everything works now", which an old one cannot claim.
const LATEST: Duration = Duration::from_secs(120);

pub(super) fn call(settings: &Heartbeat, delivery: Delivery<'_>) -> Result<Call, Outcome> {
    if delivery.age > LATEST {
        return Err(Outcome::give_up(format!(
            "not sent within {} s; a late ping would wrongly report that everything works now",
            LATEST.as_secs()
        )));
    }
    Call::get(&settings.url)
}
