//! The outcome of one delivery attempt.

use std::time::Duration;

/// The outcome of one delivery attempt, as the receiver reports it. The notifier decides whether to retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver accepted the notification.
    Delivered,
    /// A later attempt may succeed.
    Retry {
        /// The minimum delay that the receiver asked for.
        after: Option<Duration>,
        /// What went wrong, without secrets.
        problem: String,
    },
    /// The receiver will never accept this notification, so a retry is useless.
    GiveUp {
        /// What went wrong, without secrets.
        problem: String,
    },
}

impl Outcome {
    /// Returns an outcome that allows a retry at any time.
    pub(crate) fn retry(problem: impl Into<String>) -> Self {
        Self::Retry { after: None, problem: problem.into() }
    }

    /// Returns an outcome that excludes a retry.
    pub(crate) fn give_up(problem: impl Into<String>) -> Self {
        Self::GiveUp { problem: problem.into() }
    }
}
