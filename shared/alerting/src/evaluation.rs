//! The decision: from a rule, figures, how a group stands and the time to how it stands then.
//!
//! ```text
//! inactive ──breach──▶ pending ──`for` is over──▶ firing ──recovered──▶ recovering ──`keep_firing_for`──▶ inactive
//!     └────────────breach, without `for`────────────┘ ▲──────not recovered any more──────┘
//! ```
//!
//! Two axes: a condition, and how good the data is. A breach on stale data starts nothing; nothing ends, or comes
//! nearer to its end, on data that is not good.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::rule::Rule;
use crate::sample::Sample;
use crate::threshold::CheckOutcome;

pub use crate::explain::explain;

/// How a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Nothing is wrong.
    #[default]
    Inactive,
    /// Above the threshold, and not for long enough yet.
    Pending,
    /// Somebody has to know.
    Firing,
    /// Below the point of recovery, and not for long enough yet. Receivers see it as firing.
    Recovering,
}

/// How good the figures are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Data {
    /// Good.
    Ok,
    /// Too few to judge by.
    LowSamples,
    /// None.
    #[default]
    NoData,
    /// Some are missing: what is there may turn over.
    Stale,
}

impl Condition {
    /// All.
    pub const ALL: [Self; 4] = [Self::Inactive, Self::Pending, Self::Firing, Self::Recovering];

    /// The word in tables, JSON and metrics.
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
    /// All.
    pub const ALL: [Self; 4] = [Self::Ok, Self::LowSamples, Self::NoData, Self::Stale];

    /// The word in tables, JSON and metrics.
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

/// The word names no condition, or no quality of data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown word `{0}`")]
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

/// How a group stands, and everything that is remembered of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// How it stands.
    pub condition: Condition,
    /// How good the figures were at the last evaluation.
    pub data: Data,
    /// Since when it stands so; `None` where it never stood in any other way.
    pub since: Option<DateTime<Utc>>,
    /// Since when it has been above the threshold, while it is pending.
    pub pending_since: Option<DateTime<Utc>>,
    /// Since when it has been below the point of recovery without a break; `None` while the data is not good.
    pub recovering_since: Option<DateTime<Utc>>,
    /// When the episode began to fire that goes on, or that ended at `since`.
    pub started_at: Option<DateTime<Utc>>,
}

/// How a group stands after an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// How it stands.
    pub state: State,
    /// The change of its condition, if it changed.
    pub transition: Option<Transition>,
}

/// A change of condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// From which.
    pub from: Condition,
    /// To which.
    pub to: Condition,
}

/// Judges a group. Pure, and without an allocation: the reason in words is made by [`explain`] when somebody asks.
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
        // What cannot be seen counts for nothing: after data that was not good the time begins anew.
        recovering_since: (condition == Condition::Recovering && data == Data::Ok).then_some(recovering_since),
        started_at: match (state.condition, condition) {
            (Condition::Inactive | Condition::Pending, Condition::Firing) => Some(now),
            (Condition::Inactive, Condition::Pending) | (Condition::Pending, Condition::Inactive) => None,
            _ => state.started_at,
        },
    };
    Verdict { state: next, transition: changed.then_some(Transition { from: state.condition, to: condition }) }
}
