//! Acknowledgements, as they are kept with an alert.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Somebody has taken note of an alert: no repetition until it is over, or until a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// Who.
    pub by: String,
    /// Why, or what is being done.
    pub reason: String,
    /// When.
    pub at: DateTime<Utc>,
    /// Until when it holds; `None` until the alert is over.
    pub until: Option<DateTime<Utc>>,
}
