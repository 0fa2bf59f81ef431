//! The metrics of the notifier: names, and what they mean to whoever scrapes them.

use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub(crate) const TRIES: &str = "watchbook_notification_tries_total";
pub(crate) const TRY_SECONDS: &str = "watchbook_notification_try_seconds";
pub(crate) const DELAY_SECONDS: &str = "watchbook_notification_delay_seconds";
pub(crate) const PENDING: &str = "watchbook_notifications_pending";
pub(crate) const OLDEST_PENDING: &str = "watchbook_notifications_oldest_pending_seconds";
pub(crate) const FAILED: &str = "watchbook_notifications_failed";

/// Tells the recorder of this process what the notifier's metrics mean. Once, before it starts.
pub fn describe() {
    describe_counter!(TRIES, "Tries by this process, by receiver and outcome: delivered, retry, or given_up");
    describe_histogram!(TRY_SECONDS, Unit::Seconds, "How long a try took");
    describe_histogram!(
        DELAY_SECONDS,
        Unit::Seconds,
        "From the writing of a notification to the try that delivered it"
    );
    describe_gauge!(PENDING, "Notifications of a receiver that are neither delivered nor given up");
    describe_gauge!(OLDEST_PENDING, Unit::Seconds, "How old the oldest of these is");
    describe_gauge!(FAILED, "Notifications of a receiver that were given up and are still kept");
}
