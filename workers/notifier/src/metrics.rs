//! The metrics of the notifier: their names and descriptions.

use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub(crate) const TRIES: &str = "watchbook_notification_tries_total";
pub(crate) const TRY_SECONDS: &str = "watchbook_notification_try_seconds";
pub(crate) const DELAY_SECONDS: &str = "watchbook_notification_delay_seconds";
pub(crate) const PENDING: &str = "watchbook_notifications_pending";
pub(crate) const OLDEST_PENDING: &str = "watchbook_notifications_oldest_pending_seconds";
pub(crate) const FAILED: &str = "watchbook_notifications_failed";

/// Registers the descriptions of the notifier metrics. Call it once per process, before the notifier starts.
pub fn describe() {
    describe_counter!(
        TRIES,
        "Delivery attempts by this process, by receiver and outcome: delivered, retry, or given_up"
    );
    describe_histogram!(TRY_SECONDS, Unit::Seconds, "Duration of a delivery attempt");
    describe_histogram!(DELAY_SECONDS, Unit::Seconds, "Time from the creation of a notification to its delivery");
    describe_gauge!(PENDING, "Notifications of a receiver that are neither delivered nor failed");
    describe_gauge!(OLDEST_PENDING, Unit::Seconds, "Age of the oldest pending notification of a receiver");
    describe_gauge!(FAILED, "Failed notifications of a receiver that are still kept");
}
