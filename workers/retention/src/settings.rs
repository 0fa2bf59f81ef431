//! Settings of retention.

use chrono::{DateTime, TimeDelta, Utc};
use runtime::Config;
use runtime::config::{Keep, Retention};
use store::Dataset;

/// How long minutes of outcomes are kept before they are merged into hours: the default retention of metric samples.
const MINUTES_KEPT: TimeDelta = TimeDelta::days(30);

/// The settings of the retention worker.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The `[retention]` section.
    pub retention: Retention,
    /// Number of coming days for which partitions are created.
    pub partition_days_ahead: u32,
}

impl Settings {
    /// Returns the settings of this configuration.
    pub fn of(config: &Config) -> Self {
        Self { retention: config.retention.clone(), partition_days_ahead: config.writer.partition_days_ahead }
    }

    /// Returns the time before which records of the dataset are expired; `None` if they are kept for ever.
    pub fn cutoff(&self, dataset: Dataset, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let keep = match dataset {
            Dataset::MetricHours => self.retention.keep_hours,
            other => self.retention.keep.of(other.name()),
        };
        before(keep, now)
    }

    /// Returns the time before which hours of outcomes are removed; `None` if they are kept for ever.
    pub fn hours_cutoff(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        before(self.retention.keep_hours, now)
    }

    /// Returns the time before which minutes of outcomes are merged into hours.
    pub fn minutes_cutoff(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        now - MINUTES_KEPT
    }

    /// Returns whether expired rows of the dataset are removed to the second, not only by whole days.
    pub fn is_exact(&self, dataset: Dataset) -> bool {
        self.retention.exact.of(dataset.name())
    }
}

fn before(keep: Keep, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    now.checked_sub_signed(TimeDelta::from_std(keep.duration()?).ok()?)
}
