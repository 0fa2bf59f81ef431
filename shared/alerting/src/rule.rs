//! Rules: what is watched, and when it is too much.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use chrono::TimeDelta;
use records::Kind;
use serde::{Deserialize, Serialize};

use crate::annotation;
use crate::explain;
use crate::labels::{ALERTNAME, SEVERITY};
use crate::notification::Labels;
use crate::sample::Sample;
use crate::units;

pub use crate::failed_when::{FailedWhen, Outcome};
pub use crate::rate::Rate;
pub use runtime::config::Ratio;

/// A checked rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its name, unique, a NATS token.
    pub name: String,
    /// What is watched.
    pub source: Source,
    /// When it is too much.
    pub check: Check,
    /// Only records with these labels, by their canonical names; `_` for no organization.
    pub filter: BTreeMap<String, String>,
    /// One group for each value of these labels, by their canonical names.
    pub group_by: Vec<String>,
    /// How far back it looks: whole minutes, between one and a day.
    pub window: TimeDelta,
    /// How long the condition must hold before it fires; zero for at once.
    pub hold_for: TimeDelta,
    /// How long it must have recovered before it is over.
    pub keep_firing_for: TimeDelta,
    /// How bad it is.
    pub severity: Severity,
    /// Added to the labels of its alerts.
    pub labels: Labels,
    /// Texts for people, with placeholders.
    pub annotations: Labels,
}

/// What a rule watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The roll-ups of a kind.
    Records(Kind),
    /// How far the writers are behind, for each kind.
    Ingest,
}

/// When it is too much. Thresholds are strict: at the threshold is not above it, at `recover_below` not below. What
/// is zero has recovered in any case.
#[derive(Debug, Clone, PartialEq)]
pub enum Check {
    /// A share of the records failed.
    Ratio {
        /// Which records count as failures.
        failed_when: FailedWhen,
        /// Breached above.
        threshold: Ratio,
        /// Recovered below.
        recover_below: Ratio,
        /// Below so many it breaches only beyond doubt.
        min_samples: u64,
    },
    /// More records than so many in the window.
    Count {
        /// Breached above.
        threshold: u64,
        /// Recovered below.
        recover_below: u64,
    },
    /// More records in so much time, over the window.
    Rate {
        /// Breached above.
        threshold: Rate,
        /// Recovered below.
        recover_below: Rate,
    },
    /// The level of something that is measured.
    Level {
        /// What is measured.
        field: String,
        /// The average or the peak in the window.
        aggregate: Aggregate,
        /// Breached above, in the field's unit.
        threshold: f64,
        /// Recovered below, in the field's unit.
        recover_below: f64,
        /// With fewer samples it is not judged.
        min_samples: u64,
    },
    /// A group that was heard of is quiet.
    Silence {
        /// For longer than this.
        after: TimeDelta,
    },
    /// A group is new: it fires for one window.
    FirstSeen {
        /// A group of which nothing was heard for so long is new again.
        forget_after: TimeDelta,
    },
    /// More records than in the same window some time ago.
    Spike {
        /// How long ago.
        against: TimeDelta,
        /// Breached above this share of what was then; none counts as one.
        threshold: Ratio,
        /// Recovered below this share.
        recover_below: Ratio,
        /// With fewer it does not breach; below five sixths of it it has recovered.
        min_samples: u64,
    },
    /// The oldest record that is not written is old.
    Lag {
        /// Breached above.
        threshold: TimeDelta,
        /// Recovered below.
        recover_below: TimeDelta,
    },
}

/// What is made of the samples of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    /// Their average.
    Average,
    /// The highest.
    Peak,
}

/// How bad an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Somebody may want to know.
    Info,
    /// Somebody should look at it in working hours.
    #[default]
    Warning,
    /// Somebody must act now.
    Critical,
}

impl Severity {
    /// All, the mildest first.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    /// The word in the configuration and in labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Severity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|severity| severity.name() == text)
            .ok_or_else(|| format!("unknown severity `{text}`: info, warning or critical"))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Records(kind) => kind.fmt(f),
            Self::Ingest => f.write_str("ingest"),
        }
    }
}

impl Rule {
    /// The labels of an alert: the group's, the rule's, `alertname` and `severity`. The group's go before.
    pub fn alert_labels(&self, group: &Labels) -> Labels {
        let mut labels = self.labels.clone();
        labels.insert(ALERTNAME.to_owned(), self.name.clone());
        labels.insert(SEVERITY.to_owned(), self.severity.to_string());
        labels.extend(group.iter().map(|(name, value)| (name.clone(), value.clone())));
        labels
    }

    /// The texts for people, with everything filled in. What a template asks for and this alert does not have, such as
    /// the project of an error that names none, is empty.
    pub fn annotations(&self, labels: &Labels, sample: &Sample, reason: &str) -> Labels {
        let value = self.value(sample);
        let facts = annotation::Facts { rule: &self.name, labels, value: &value, reason };
        self.annotations.iter().map(|(name, text)| (name.clone(), annotation::render(text, &facts))).collect()
    }

    /// What is compared with the threshold, in words: `30.7 %`, `84/min`.
    pub fn value(&self, sample: &Sample) -> String {
        explain::value(self, sample)
    }

    /// When it fires, in words: `more than 30 % of executions failed within 1 h`.
    pub fn describe_condition(&self) -> String {
        explain::condition(self)
    }

    /// As JSON, for people who look at the rules in force.
    pub fn describe(&self) -> serde_json::Value {
        let source = self.source.to_string();
        serde_json::json!({
            "name": self.name,
            "source": source,
            "fires_when": self.describe_condition(),
            "where": self.filter,
            "group_by": self.group_by,
            "window": units::duration(self.window),
            "for": units::duration(self.hold_for),
            "keep_firing_for": units::duration(self.keep_firing_for),
            "severity": self.severity,
            "labels": self.labels,
            "annotations": self.annotations,
        })
    }
}
