//! How long records are kept.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long records are kept. A record older than that when it arrives is a dead letter.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// When the clean-up runs: a cron expression.
    pub schedule: String,
    /// The time zone of the schedule.
    pub timezone: String,
    /// How long each kind is kept.
    pub keep: KeepPerKind,
}

impl Default for Retention {
    fn default() -> Self {
        Self { schedule: "15 3 * * *".to_owned(), timezone: "UTC".to_owned(), keep: KeepPerKind::default() }
    }
}

/// How long each kind is kept: `"30d"` or `"forever"`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeepPerKind {
    /// Events.
    pub events: Keep,
    /// Errors.
    pub errors: Keep,
    /// Container metrics.
    pub metrics: Keep,
    /// Container logs.
    pub logs: Keep,
    /// Sandbox executions.
    pub executions: Keep,
    /// Dead letters of every kind.
    pub dead_letters: Keep,
    /// Audit records.
    pub audit: Keep,
}

impl Default for KeepPerKind {
    fn default() -> Self {
        let days = |days: u32| Keep::For(DAY * days);
        Self {
            events: days(30),
            errors: days(90),
            metrics: days(30),
            logs: days(30),
            executions: days(90),
            dead_letters: days(90),
            audit: Keep::Forever,
        }
    }
}

impl KeepPerKind {
    /// How long the kind of this name is kept. What has no setting, such as the directory, is kept for ever.
    pub fn of(&self, kind: &str) -> Keep {
        self.entries().into_iter().find(|(name, _)| *name == kind).map_or(Keep::Forever, |(_, keep)| keep)
    }

    /// The shortest of them; `None` where every kind is kept for ever.
    pub(super) fn shortest(&self) -> Option<Duration> {
        self.entries().into_iter().filter_map(|(_, keep)| keep.duration()).min()
    }

    fn entries(&self) -> [(&'static str, Keep); 7] {
        [
            ("events", self.events),
            ("errors", self.errors),
            ("metrics", self.metrics),
            ("logs", self.logs),
            ("executions", self.executions),
            ("dead_letters", self.dead_letters),
            ("audit", self.audit),
        ]
    }
}

/// For how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Until somebody decides otherwise.
    Forever,
    /// For a time, at least a day.
    For(Duration),
}

impl Keep {
    /// The time, `None` for ever.
    pub const fn duration(self) -> Option<Duration> {
        match self {
            Self::Forever => None,
            Self::For(duration) => Some(duration),
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forever => f.write_str("forever"),
            Self::For(duration) if duration.as_secs() % DAY.as_secs() == 0 => {
                write!(f, "{}d", duration.as_secs() / DAY.as_secs())
            }
            Self::For(duration) => write!(f, "{}s", duration.as_secs()),
        }
    }
}

impl Serialize for Keep {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "forever" {
            return Ok(Self::Forever);
        }
        let Ok(duration) = humantime::parse_duration(&text) else {
            return Err(serde::de::Error::custom(format!(
                "expected a time such as \"30d\", or \"forever\"; found `{text}`"
            )));
        };
        if duration < DAY {
            return Err(serde::de::Error::custom(format!("`{text}` is below one day: tables are cut by day")));
        }
        Ok(Self::For(duration))
    }
}

impl Retention {
    pub(super) fn problems(&self, problems: &mut Vec<(&'static str, String)>) {
        if self.schedule.split_whitespace().count() != 5 {
            problems.push((
                "retention.schedule",
                "expected a cron expression of five fields such as `15 3 * * *`: minute, hour, day of month, month, day of week".to_owned(),
            ));
        }
    }
}
