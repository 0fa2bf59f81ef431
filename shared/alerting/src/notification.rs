//! Notifications, in the form in which the outbox stores them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Labels or annotations: values by name.
pub type Labels = BTreeMap<String, String>;

/// One notification to one receiver. Self-contained: the notifier delivers it without further lookups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    /// The receiver's name.
    pub receiver: String,
    /// The labels that its alerts have in common, as one text. Equal for all notifications of a group.
    pub group_key: String,
    /// The labels that its alerts have in common. Empty in a digest.
    pub group_labels: Labels,
    /// Why it is sent.
    pub why: NotificationReason,
    /// The alerts; each appears at most once.
    pub alerts: Vec<Alert>,
    /// Alerts that a digest counts but omits.
    #[serde(default)]
    pub truncated_alerts: u64,
    /// Other alerts of the group that the receiver was last notified of as firing.
    #[serde(default)]
    pub still_firing: u64,
}

/// Why a notification is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotificationReason {
    /// An alert fires of which the receiver was not notified yet.
    Firing,
    /// An alert has resolved of which the receiver was notified.
    Resolved,
    /// An alert still fires, and the repeat interval has elapsed.
    Repeated,
    /// Too many notifications in one minute for a person to read one by one.
    Digest,
    /// A test that an operator requested.
    Test,
    /// The dead man's switch: the whole pipeline works.
    Heartbeat,
}

/// An alert, as it was when the notification was created.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// The id, derived from rule and group; it never changes.
    pub id: Uuid,
    /// The transition that this reports; increases by one with each transition of the alert.
    pub version: i64,
    /// Whether it fires or has resolved.
    pub status: Status,
    /// The rule's name.
    pub rule: String,
    /// The organization; `_` if the group has none.
    pub organization: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// All labels: those of the group and of the rule, `alertname` and `severity`.
    pub labels: Labels,
    /// The rendered annotations.
    pub annotations: Labels,
    /// Why it fires or has resolved, with figures.
    pub reason: String,
    /// When it started to fire.
    pub starts_at: DateTime<Utc>,
    /// When it resolved; `None` while it fires.
    pub ends_at: Option<DateTime<Utc>>,
    /// Marks a test alert, which reports no real problem.
    #[serde(default)]
    pub test: bool,
}

/// The status of an alert, as receivers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The alert fires.
    Firing,
    /// The alert has resolved.
    Resolved,
}

impl Notification {
    /// Returns the status of the group: firing while any of its alerts fires, in this notification or an earlier one.
    pub fn status(&self) -> Status {
        let fires = self.still_firing > 0 || self.alerts.iter().any(|alert| alert.status == Status::Firing);
        if fires { Status::Firing } else { Status::Resolved }
    }
}
