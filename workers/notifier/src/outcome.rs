//! How one try ended.

use std::time::Duration;

/// How one try ended, as the receiver sees it. What follows from it is decided elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver took it.
    Delivered,
    /// The same may work later.
    Retry {
        /// What the receiver asked for, if it did: not before so long from now.
        after: Option<Duration>,
        /// What went wrong, without secrets.
        problem: String,
    },
    /// The receiver will never take this: trying again would only repeat the answer.
    GiveUp {
        /// What went wrong, without secrets.
        problem: String,
    },
}

impl Outcome {
    /// The same may work later, and nobody said when.
    pub(crate) fn retry(problem: impl Into<String>) -> Self {
        Self::Retry { after: None, problem: problem.into() }
    }

    /// No try will do better.
    pub(crate) fn give_up(problem: impl Into<String>) -> Self {
        Self::GiveUp { problem: problem.into() }
    }
}
