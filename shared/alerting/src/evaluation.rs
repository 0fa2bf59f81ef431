//! The evaluation: a pure function from rule, sample, state and time to the next state.
//!
//! ```text
//! inactive ──breach──▶ pending ──`for` is over──▶ firing ──recovered──▶ recovering ──`keep_firing_for`──▶ inactive
//!     └────────────breach, without `for`────────────┘ ▲──────not recovered any more──────┘
//! ```
//!
//! A group has a condition and a data quality. A breach on stale data does not start an alert. On data that is not
//! good, no alert resolves or gets closer to resolving.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::rule::Rule;
use crate::sample::Sample;
use crate::threshold::CheckOutcome;

pub use crate::explain::explain;

/// The condition of a group, as a state machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// The threshold is not crossed.
    #[default]
    Inactive,
    /// Above the threshold, but not yet for as long as `for`.
    Pending,
    /// Above the threshold for as long as `for`: receivers are notified.
    Firing,
    /// Below `recover_below`, but not yet for as long as `keep_firing_for`. Receivers see it as firing.
    Recovering,
}

/// The quality of a group's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Data {
    /// Complete and sufficient.
    Ok,
    /// Too few samples for a decision.
    LowSamples,
    /// No data.
    #[default]
    NoData,
    /// Records are missing that could change the result.
    Stale,
}

impl Condition {
    /// All conditions.
    pub const ALL: [Self; 4] = [Self::Inactive, Self::Pending, Self::Firing, Self::Recovering];

    /// Returns the name used in tables, JSON and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Recovering => "recovering",
        }
    }
}

impl Data {
    /// All qualities.
    pub const ALL: [Self; 4] = [Self::Ok, Self::LowSamples, Self::NoData, Self::Stale];

    /// Returns the name used in tables, JSON and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::LowSamples => "low_samples",
            Self::NoData => "no_data",
            Self::Stale => "stale",
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text is not the name of a condition or of a data quality.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown name `{0}`")]
pub struct UnknownName(String);

impl FromStr for Condition {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|known| known.name() == text).ok_or_else(|| UnknownName(text.to_owned()))
    }
}

impl FromStr for Data {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|known| known.name() == text).ok_or_else(|| UnknownName(text.to_owned()))
    }
}

/// The state of a group: everything that one evaluation hands to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The current condition.
    pub condition: Condition,
    /// The data quality at the last evaluation.
    pub data: Data,
    /// When the condition last changed; `None` if it never did.
    pub since: Option<DateTime<Utc>>,
    /// Since when it has been above the threshold; set only while pending.
    pub pending_since: Option<DateTime<Utc>>,
    /// Since when it has been below `recover_below` without interruption; `None` while the data is not good.
    pub recovering_since: Option<DateTime<Utc>>,
    /// When the current episode started to fire, or the last one, which ended at `since`.
    pub started_at: Option<DateTime<Utc>>,
}

/// The result of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The new state.
    pub state: State,
    /// The change of the condition; `None` if it did not change.
    pub transition: Option<Transition>,
}

/// A change of the condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// The old condition.
    pub from: Condition,
    /// The new condition.
    pub to: Condition,
}

/// Evaluates a group. Pure and free of allocations: [`explain`] builds the reason only on demand.
pub fn evaluate(rule: &Rule, sample: &Sample, state: &State, now: DateTime<Utc>) -> Verdict {
    let outcome = CheckOutcome::of(rule, sample, now);
    let data = outcome.data;
    let breaches = outcome.breaches && data != Data::Stale;
    let recovered = outcome.recovered && data == Data::Ok;
    let pending_since = state.pending_since.unwrap_or(now);
    let recovering_since = state.recovering_since.unwrap_or(now);
    let condition = match state.condition {
        Condition::Inactive if !breaches => Condition::Inactive,
        Condition::Inactive if rule.hold_for <= TimeDelta::zero() => Condition::Firing,
        Condition::Inactive => Condition::Pending,

        Condition::Pending if data == Data::Stale => Condition::Pending,
        Condition::Pending if !breaches => Condition::Inactive,
        Condition::Pending if now - pending_since >= rule.hold_for => Condition::Firing,
        Condition::Pending => Condition::Pending,

        Condition::Firing if recovered => Condition::Recovering,
        Condition::Firing => Condition::Firing,

        Condition::Recovering if breaches => Condition::Firing,
        Condition::Recovering if data != Data::Ok => Condition::Recovering,
        Condition::Recovering if !recovered => Condition::Firing,
        Condition::Recovering if now - recovering_since >= rule.keep_firing_for => Condition::Inactive,
        Condition::Recovering => Condition::Recovering,
    };
    let changed = condition != state.condition;
    let next = State {
        condition,
        data,
        since: if changed { Some(now) } else { state.since },
        pending_since: (condition == Condition::Pending).then_some(pending_since),
        // Time without good data does not count: the recovery time restarts afterwards.
        recovering_since: (condition == Condition::Recovering && data == Data::Ok).then_some(recovering_since),
        started_at: match (state.condition, condition) {
            (Condition::Inactive | Condition::Pending, Condition::Firing) => Some(now),
            (Condition::Inactive, Condition::Pending) | (Condition::Pending, Condition::Inactive) => None,
            _ => state.started_at,
        },
    };
    Verdict { state: next, transition: changed.then_some(Transition { from: state.condition, to: condition }) }
}
