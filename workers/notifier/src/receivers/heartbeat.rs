//! A dead man's switch: whoever runs it raises the alarm when no ping comes.

use std::time::Duration;

use alerting::receiver::Heartbeat;

use crate::http::Call;
use crate::outcome::Outcome;
use crate::receivers::Delivery;

/// A ping says "everything works now". One of another time would say what nobody knows.
const LATEST: Duration = Duration::from_secs(120);

pub(super) fn call(settings: &Heartbeat, delivery: Delivery<'_>) -> Result<Call, Outcome> {
    if delivery.age > LATEST {
        return Err(Outcome::give_up(format!(
            "not sent within {} s: a late ping would say that all is well now",
            LATEST.as_secs()
        )));
    }
    Call::get(&settings.url)
}
