//! What retention is told.

use chrono::{DateTime, TimeDelta, Utc};
use runtime::Config;
use runtime::config::{Keep, Retention};
use store::Dataset;

/// How long minutes of outcomes are kept before they become hours: as long as the samples of metrics usually are.
const MINUTES_KEPT: TimeDelta = TimeDelta::days(30);

/// How long everything is kept, and when it goes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// As they are configured.
    pub retention: Retention,
    /// Days for which partitions are made ahead.
    pub partition_days_ahead: u32,
}

impl Settings {
    /// As they are configured.
    pub fn of(config: &Config) -> Self {
        Self { retention: config.retention.clone(), partition_days_ahead: config.writer.partition_days_ahead }
    }

    /// What happened before this time is expired; `None` where nothing ever is.
    pub fn cutoff(&self, dataset: Dataset, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let keep = match dataset {
            Dataset::MetricHours => self.retention.keep_hours,
            other => self.retention.keep.of(other.name()),
        };
        before(keep, now)
    }

    /// Hours of outcomes before this time are not kept any more.
    pub fn hours_cutoff(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        before(self.retention.keep_hours, now)
    }

    /// Minutes of outcomes before this time become hours.
    pub fn minutes_cutoff(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        now - MINUTES_KEPT
    }

    /// Whether a dataset is cut to the second.
    pub fn is_exact(&self, dataset: Dataset) -> bool {
        self.retention.exact.of(dataset.name())
    }
}

fn before(keep: Keep, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    now.checked_sub_signed(TimeDelta::from_std(keep.duration()?).ok()?)
}
