//! How long records are kept.

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use chrono_tz::Tz;
use croner::Cron;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long records are kept. A record older than that when it arrives is a dead letter.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// When runs start: a cron expression of five fields.
    pub schedule: String,
    /// The time zone of the schedule.
    pub timezone: String,
    /// How long each kind is kept.
    pub keep: KeepPerKind,
    /// Kinds of which the expired rows of the oldest day are deleted too, not only whole days.
    pub exact: ExactPerKind,
    /// How long the hourly aggregates of metric samples and the hourly counts of outcomes are kept.
    pub keep_hours: Keep,
    /// Bytes of log messages that a container may keep. The oldest lines are removed first.
    pub log_bytes_per_container: ByteSize,
    /// Where a day is written before it is dropped: a folder, or `s3://bucket/prefix`. `None` for no archive.
    pub archive: Option<String>,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            schedule: "15 3 * * *".to_owned(),
            timezone: "UTC".to_owned(),
            keep: KeepPerKind::default(),
            exact: ExactPerKind::default(),
            keep_hours: Keep::For(DAY * 396),
            log_bytes_per_container: ByteSize::mib(256),
            archive: None,
        }
    }
}

/// A value for each kind.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, bound(deserialize = "T: Deserialize<'de>, PerKind<T>: Default"))]
pub struct PerKind<T> {
    /// Events.
    pub events: T,
    /// Errors.
    pub errors: T,
    /// Container metrics.
    pub metrics: T,
    /// Container logs.
    pub logs: T,
    /// Sandbox executions.
    pub executions: T,
    /// Dead letters of every kind.
    pub dead_letters: T,
    /// Audit records.
    pub audit: T,
}

/// How long each kind is kept: `"30d"` or `"forever"`.
pub type KeepPerKind = PerKind<Keep>;

/// Whether expired rows of a kind are deleted to the second. Partitions are dropped as whole days, so without this a
/// record stays for up to a day longer (a month for audit records).
pub type ExactPerKind = PerKind<bool>;

impl<T: Copy> PerKind<T> {
    fn entries(&self) -> [(&'static str, T); 7] {
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
    /// Returns how long a kind is kept: for ever if it has no setting, such as the directory.
    pub fn of(&self, kind: &str) -> Keep {
        self.entries().into_iter().find(|(name, _)| *name == kind).map_or(Keep::Forever, |(_, keep)| keep)
    }
}

impl Default for ExactPerKind {
    fn default() -> Self {
        let not = false;
        Self { events: not, errors: not, metrics: not, logs: not, executions: not, dead_letters: not, audit: not }
    }
}

impl ExactPerKind {
    /// Returns whether expired rows of a kind are deleted to the second.
    pub fn of(&self, kind: &str) -> bool {
        self.entries().into_iter().any(|(name, exact)| name == kind && exact)
    }
}

/// How long something is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Until the setting changes.
    Forever,
    /// For this time, at least a day.
    For(Duration),
}

impl Keep {
    /// Returns the time; `None` for ever.
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
            return Err(serde::de::Error::custom(format!("`{text}` is below one day: tables are partitioned by day")));
        }
        Ok(Self::For(duration))
    }
}

/// The minimum of `log_bytes_per_container`. With less, a container's newest lines would be removed before anybody
/// reads them.
const MIN_LOG_BYTES: ByteSize = ByteSize::kib(64);

impl Retention {
    /// Parses the schedule.
    ///
    /// # Errors
    /// A text for people if it is not a cron expression of five fields.
    pub fn cron(&self) -> Result<Cron, String> {
        let five = "expected a cron expression of five fields such as `15 3 * * *`: minute, hour, day of month, month, day of week";
        if self.schedule.split_whitespace().count() != 5 {
            return Err(five.to_owned());
        }
        self.schedule.parse().map_err(|error| format!("{five}; {error}"))
    }

    /// Parses the time zone of the schedule.
    ///
    /// # Errors
    /// A text for people if there is no time zone of this name.
    pub fn zone(&self) -> Result<Tz, String> {
        let unknown =
            |_| format!("no time zone `{}`: expected a name such as \"Europe/Berlin\", or \"UTC\"", self.timezone);
        self.timezone.parse().map_err(unknown)
    }

    pub(super) fn problems(&self, problems: &mut Vec<(&'static str, String)>) {
        problems.extend(self.cron().err().map(|problem| ("retention.schedule", problem)));
        problems.extend(self.zone().err().map(|problem| ("retention.timezone", problem)));
        if self.log_bytes_per_container < MIN_LOG_BYTES {
            problems.push(("retention.log_bytes_per_container", "at least 64 KiB".to_owned()));
        }
        if self.archive.as_ref().is_some_and(|archive| archive.trim().is_empty()) {
            problems.push(("retention.archive", "expected a folder, or \"s3://bucket/prefix\"".to_owned()));
        }
        let is_exact = self.exact.entries().into_iter().find(|(_, exact)| *exact);
        if let (Some(_), Some((kind, _))) = (&self.archive, is_exact) {
            let problem = format!(
                "`{kind}` would be deleted row by row before the day is archived: set only one of `archive` and `exact`"
            );
            problems.push(("retention.exact", problem));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(change: impl FnOnce(&mut Retention)) -> Vec<&'static str> {
        let mut retention = Retention::default();
        change(&mut retention);
        let mut problems = Vec::new();
        retention.problems(&mut problems);
        problems.into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn a_schedule_is_five_fields_in_a_zone_that_there_is() {
        assert_eq!(problems(|_| {}), Vec::<&str>::new());
        assert_eq!(problems(|retention| retention.schedule = "*/5 2-4 * * mon-fri".to_owned()), Vec::<&str>::new());
        for schedule in ["", "daily", "15 3 * *", "0 15 3 * * *", "61 3 * * *", "15 3 * * someday"] {
            assert_eq!(
                problems(|retention| retention.schedule = schedule.to_owned()),
                ["retention.schedule"],
                "{schedule}"
            );
        }
        assert_eq!(problems(|retention| retention.timezone = "Mars/Olympus".to_owned()), ["retention.timezone"]);
    }

    #[test]
    fn what_would_lose_the_archive_is_refused() {
        let both = |retention: &mut Retention| {
            retention.archive = Some("archive".to_owned());
            retention.exact.events = true;
        };
        assert_eq!(problems(both), ["retention.exact"]);
        assert_eq!(problems(|retention| retention.archive = Some(" ".to_owned())), ["retention.archive"]);
        assert_eq!(
            problems(|retention| retention.log_bytes_per_container = ByteSize::b(1)),
            ["retention.log_bytes_per_container"]
        );
    }
}
