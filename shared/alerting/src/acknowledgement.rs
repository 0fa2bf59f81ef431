//! Acknowledgements, as they are stored with an alert.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The acknowledgement of an alert: its notifications are not repeated until the alert ends, or until `until`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// The person or account.
    pub by: String,
    /// The reason, or what is being done.
    pub reason: String,
    /// When it was acknowledged.
    pub at: DateTime<Utc>,
    /// When it expires; `None` if it holds until the alert ends.
    pub until: Option<DateTime<Utc>>,
}
