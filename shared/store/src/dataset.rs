//! Partitioned tables that retention applies to: the record kinds, dead letters, and hourly metrics.

use records::{Kind, Partitioning};

/// A table partitioned by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dataset {
    /// The records of a kind.
    Records(Kind),
    /// Dead letters of every kind.
    DeadLetters,
    /// Hourly aggregates of container metrics.
    MetricHours,
}

impl Dataset {
    /// Returns every dataset.
    pub fn all() -> impl Iterator<Item = Self> {
        let is_cut = |kind: &Kind| !matches!(kind.spec().partitioning, Partitioning::None);
        Kind::ALL.iter().copied().filter(is_cut).map(Self::Records).chain([Self::DeadLetters, Self::MetricHours])
    }

    /// Returns the name in commands and settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Records(kind) => kind.name(),
            Self::DeadLetters => "dead_letters",
            Self::MetricHours => "metric_hours",
        }
    }

    /// Returns the dataset with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|dataset| dataset.name() == name)
    }

    /// Returns the table, with its schema.
    pub const fn table(self) -> &'static str {
        match self {
            Self::Records(kind) => kind.spec().table,
            Self::DeadLetters => "watchbook.dead_letters",
            Self::MetricHours => "watchbook.container_metric_hours",
        }
    }

    /// Returns whether it is partitioned by month, not by day.
    pub const fn is_monthly(self) -> bool {
        match self {
            Self::Records(kind) => matches!(kind.spec().partitioning, Partitioning::Monthly),
            Self::DeadLetters => false,
            Self::MetricHours => true,
        }
    }

    /// Returns the column that it is partitioned by.
    pub const fn time_column(self) -> &'static str {
        match self {
            Self::Records(_) => "created_at",
            Self::DeadLetters => "failed_at",
            Self::MetricHours => "hour",
        }
    }

    /// Returns whether its rows are records. Hourly aggregates are not.
    pub const fn has_records(self) -> bool {
        !matches!(self, Self::MetricHours)
    }

    /// Returns whether removed rows are kept as hourly aggregates.
    pub const fn has_hours(self) -> bool {
        matches!(self, Self::Records(Kind::Metrics))
    }

    /// Returns the SQL expression for a row's organization: `_` for none, NULL if it is unknown.
    pub(crate) const fn organization(self) -> &'static str {
        match self {
            Self::Records(_) | Self::MetricHours => "coalesce(organization_id, '_')",
            // A dead letter could not be decoded, so the organization comes from its subject. It is only known if the
            // name of the kind is in the subject once, because a prefix or a detail may repeat it.
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
