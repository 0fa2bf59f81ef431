//! What is cut by time and removed by age: the record kinds, dead letters, and the hours that metrics become.

use records::{Kind, Partitioning};

/// Something that is cut by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dataset {
    /// The records of a kind.
    Records(Kind),
    /// Dead letters of every kind.
    DeadLetters,
    /// Hourly figures of container metrics.
    MetricHours,
}

impl Dataset {
    /// Every dataset.
    pub fn all() -> impl Iterator<Item = Self> {
        let is_cut = |kind: &Kind| !matches!(kind.spec().partitioning, Partitioning::None);
        Kind::ALL.iter().copied().filter(is_cut).map(Self::Records).chain([Self::DeadLetters, Self::MetricHours])
    }

    /// What commands and settings call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Records(kind) => kind.name(),
            Self::DeadLetters => "dead_letters",
            Self::MetricHours => "metric_hours",
        }
    }

    /// The dataset of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|dataset| dataset.name() == name)
    }

    /// The table, with its schema.
    pub const fn table(self) -> &'static str {
        match self {
            Self::Records(kind) => kind.spec().table,
            Self::DeadLetters => "watchbook.dead_letters",
            Self::MetricHours => "watchbook.container_metric_hours",
        }
    }

    /// Whether it is cut by month, and not by day.
    pub const fn is_monthly(self) -> bool {
        match self {
            Self::Records(kind) => matches!(kind.spec().partitioning, Partitioning::Monthly),
            Self::DeadLetters => false,
            Self::MetricHours => true,
        }
    }

    /// By which time it is cut.
    pub const fn time_column(self) -> &'static str {
        match self {
            Self::Records(_) => "created_at",
            Self::DeadLetters => "failed_at",
            Self::MetricHours => "hour",
        }
    }

    /// Whether it can be told row by row what it is about: an hour is figures, and no record.
    pub const fn has_records(self) -> bool {
        !matches!(self, Self::MetricHours)
    }

    /// Whether hourly figures are kept of what goes.
    pub const fn has_hours(self) -> bool {
        matches!(self, Self::Records(Kind::Metrics))
    }

    /// Whose a row is: `_` for nobody's, NULL where it cannot be told.
    pub(crate) const fn organization(self) -> &'static str {
        match self {
            Self::Records(_) | Self::MetricHours => "coalesce(organization_id, '_')",
            // A dead letter is a message that could not be read; its subject says whose it is, where the name of its
            // kind stands there once: a prefix or a detail may repeat it.
            Self::DeadLetters => {
                r"CASE WHEN regexp_count(subject, '\.' || kind || '(?=\.)') = 1
                       THEN substring(subject FROM '\.' || kind || '\.([A-Za-z0-9_-]+)') END"
            }
        }
    }
}

impl std::fmt::Display for Dataset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
