//! What a receiver is told: the shape in which the outbox keeps it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Labels or annotations: names and texts.
pub type Labels = BTreeMap<String, String>;

/// One notification to one receiver, complete: whoever delivers it looks nothing up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    /// The receiver's name.
    pub receiver: String,
    /// What the alerts in it have in common, as one text. The same for all notifications of a group.
    pub group_key: String,
    /// What the alerts in it have in common. Empty in a digest.
    pub group_labels: Labels,
    /// Why it is sent.
    pub why: NotificationReason,
    /// The alerts, each at most once.
    pub alerts: Vec<Alert>,
    /// Alerts that a digest counts and leaves out.
    #[serde(default)]
    pub truncated_alerts: u64,
    /// Other alerts of the group of which the receiver knows that they fire.
    #[serde(default)]
    pub still_firing: u64,
}

/// Why a notification is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotificationReason {
    /// An alert in it fires and the receiver has not been told.
    Firing,
    /// An alert in it is over that the receiver was told of.
    Resolved,
    /// It still fires, and the repeat interval is over.
    Repeated,
    /// More happened in a minute than a person can read one by one.
    Digest,
    /// Somebody asked for a test.
    Test,
    /// The dead man's switch: everything works.
    Heartbeat,
}

/// An alert, as it was when the notification was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Of rule and group: the same for ever.
    pub id: Uuid,
    /// The transition that this tells, counted up for each alert.
    pub version: i64,
    /// How it is.
    pub status: Status,
    /// The rule's name.
    pub rule: String,
    /// `_` where the group names none.
    pub organization: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// All labels: the group's, the rule's, `alertname` and `severity`.
    pub labels: Labels,
    /// Texts for people, rendered.
    pub annotations: Labels,
    /// Why it fires or is over, in words and figures.
    pub reason: String,
    /// When it began to fire.
    pub starts_at: DateTime<Utc>,
    /// When it was over.
    pub ends_at: Option<DateTime<Utc>>,
    /// Only a test: nothing is wrong.
    #[serde(default)]
    pub test: bool,
}

/// How an alert is, as receivers know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Something is wrong.
    Firing,
    /// It is over.
    Resolved,
}

impl Notification {
    /// Of the group: firing while any of its alerts is, told here or before.
    pub fn status(&self) -> Status {
        let fires = self.still_firing > 0 || self.alerts.iter().any(|alert| alert.status == Status::Firing);
        if fires { Status::Firing } else { Status::Resolved }
    }
}
