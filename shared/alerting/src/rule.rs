//! Rules: what is watched, and when an alert fires.

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

/// A rule whose configuration was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// The name, unique, valid as a NATS token.
    pub name: String,
    /// What is watched.
    pub source: Source,
    /// The condition.
    pub check: Check,
    /// Only records with these labels count. Names are canonical; `_` stands for no organization.
    pub filter: BTreeMap<String, String>,
    /// One group for each combination of values of these labels. Names are canonical.
    pub group_by: Vec<String>,
    /// The window: whole minutes, between one minute and one day.
    pub window: TimeDelta,
    /// How long the condition has to hold before the alert fires; zero to fire at once.
    pub hold_for: TimeDelta,
    /// How long the group has to be recovered before the alert resolves.
    pub keep_firing_for: TimeDelta,
    /// The severity.
    pub severity: Severity,
    /// Labels added to the alerts.
    pub labels: Labels,
    /// Templates for people.
    pub annotations: Labels,
}

/// The source that a rule watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The roll-ups of a kind.
    Records(Kind),
    /// The lag of the writers, by kind.
    Ingest,
}

/// The condition of a rule. Thresholds are strict: a value at the threshold is not above it, and a value at
/// `recover_below` is not below it. Zero always counts as recovered.
#[derive(Debug, Clone, PartialEq)]
pub enum Check {
    /// The ratio of failed records.
    Ratio {
        /// Which records count as failures.
        failed_when: FailedWhen,
        /// Breached above this.
        threshold: Ratio,
        /// Recovered below this.
        recover_below: Ratio,
        /// With fewer records it is breached only if the lower bound of Wilson's interval is above the threshold.
        min_samples: u64,
    },
    /// The number of records in the window.
    Count {
        /// Breached above this.
        threshold: u64,
        /// Recovered below this.
        recover_below: u64,
    },
    /// The rate of records over the window.
    Rate {
        /// Breached above this.
        threshold: Rate,
        /// Recovered below this.
        recover_below: Rate,
    },
    /// A measured level.
    Level {
        /// The measured field.
        field: String,
        /// The average or the peak in the window.
        aggregate: Aggregate,
        /// Breached above this, in the field's unit.
        threshold: f64,
        /// Recovered below this, in the field's unit.
        recover_below: f64,
        /// With fewer samples there is no decision.
        min_samples: u64,
    },
    /// A group that was seen before is silent.
    Silence {
        /// Breached when silent for longer than this.
        after: TimeDelta,
    },
    /// A new group: it fires for one window.
    FirstSeen {
        /// A group not seen for this long is new again.
        forget_after: TimeDelta,
    },
    /// More records than in the same window some time ago.
    Spike {
        /// How long ago that window was.
        against: TimeDelta,
        /// Breached above this ratio to the records of that window; zero records count as one.
        threshold: Ratio,
        /// Recovered below this ratio.
        recover_below: Ratio,
        /// With fewer records it is not breached; below five sixths of this it has recovered.
        min_samples: u64,
    },
    /// The age of the oldest record that is not written.
    Lag {
        /// Breached above this.
        threshold: TimeDelta,
        /// Recovered below this.
        recover_below: TimeDelta,
    },
}

/// How the samples of a level are aggregated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    /// The average.
    Average,
    /// The highest sample.
    Peak,
}

/// The severity of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// For information.
    Info,
    /// Needs attention during working hours.
    #[default]
    Warning,
    /// Needs attention now.
    Critical,
}

impl Severity {
    /// All severities, in ascending order.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    /// Returns the name used in the configuration and in labels.
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
    /// Returns the labels of an alert: the group's, the rule's, `alertname` and `severity`. The group's take
    /// precedence.
    pub fn alert_labels(&self, group: &Labels) -> Labels {
        let mut labels = self.labels.clone();
        labels.insert(ALERTNAME.to_owned(), self.name.clone());
        labels.insert(SEVERITY.to_owned(), self.severity.to_string());
        labels.extend(group.iter().map(|(name, value)| (name.clone(), value.clone())));
        labels
    }

    /// Renders the annotations. A label that the alert does not have, such as the project of an error that names none,
    /// renders as the empty string.
    pub fn annotations(&self, labels: &Labels, sample: &Sample, reason: &str) -> Labels {
        let value = self.value(sample);
        let facts = annotation::Facts { rule: &self.name, labels, value: &value, reason };
        self.annotations.iter().map(|(name, text)| (name.clone(), annotation::render(text, &facts))).collect()
    }

    /// Formats the value that is compared with the threshold, such as `30.7 %` or `84/min`.
    pub fn value(&self, sample: &Sample) -> String {
        explain::value(self, sample)
    }

    /// Describes the condition, such as `more than 30 % of executions failed within 1 h`.
    pub fn describe_condition(&self) -> String {
        explain::condition(self)
    }

    /// Returns the rule as JSON, for the list of active rules.
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
