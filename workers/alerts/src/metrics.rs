//! The metrics of the alert worker: names and descriptions.

use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub(crate) const ACTIVE: &str = "watchbook_alerts_active";
pub(crate) const ALERTS: &str = "watchbook_alerts";
pub(crate) const GROUPS: &str = "watchbook_alert_groups";
pub(crate) const OVERFLOW: &str = "watchbook_alert_overflow_records";
pub(crate) const TRANSITIONS: &str = "watchbook_alert_transitions_total";
pub(crate) const EVALUATION: &str = "watchbook_alert_evaluation_seconds";
pub(crate) const CANARIES: &str = "watchbook_canaries_total";
pub(crate) const CANARY_SECONDS: &str = "watchbook_canary_seconds";

/// Registers the descriptions of the metrics. Call it once, before the worker starts.
pub fn describe() {
    describe_gauge!(ACTIVE, "1 if this process evaluates the rules");
    describe_gauge!(ALERTS, "Alerts by condition: pending, firing, recovering");
    describe_gauge!(GROUPS, "Groups of all rules");
    describe_gauge!(OVERFLOW, "Records that a rule ignored because it has too many groups");
    describe_counter!(TRANSITIONS, "Changes of an alert's condition");
    describe_histogram!(EVALUATION, Unit::Seconds, "Duration of an evaluation cycle: new roll-ups, evaluation, outbox");
    describe_counter!(CANARIES, "Canaries that arrived in time, or late");
    describe_histogram!(CANARY_SECONDS, Unit::Seconds, "Time from the publication of a canary to its evaluation");
}
