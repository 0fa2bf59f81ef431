//! The health of strategies, projects, containers and organizations, with the figures behind it.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};
use runtime::config::{HealthThresholds, Ratio};
use serde::{Deserialize, Serialize};

use crate::threshold::ratio_breaches;
use crate::units;

/// A type of entity whose health is assessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entity {
    /// Assessed by its executions.
    Strategy,
    /// Assessed by its errors.
    Project,
    /// Assessed by its metrics.
    Container,
    /// Assessed by its executions.
    Organization,
}

/// The health of an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// No problem was found.
    Healthy,
    /// There is a problem, but it still works.
    Degraded,
    /// It does not do its job.
    Failing,
    /// No records have arrived for too long.
    Silent,
}

/// The figures of an entity within the window. Figures that do not apply to its type are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// Number of executions.
    pub executions: u64,
    /// Number of executions that failed.
    pub failed: u64,
    /// Number of events.
    pub events: u64,
    /// Errors of severity `critical`.
    pub critical: u64,
    /// Errors of severity `error`.
    pub errors: u64,
    /// Errors of severity `warning`.
    pub warnings: u64,
    /// Number of CPU usage samples.
    pub cpu_samples: u64,
    /// Sum of the CPU usage samples, in percent of one core.
    pub cpu_sum: f64,
    /// When its last record was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<DateTime<Utc>>,
}

/// The health of an entity with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The health.
    pub health: Health,
    /// The reason, with figures.
    pub reason: String,
}

impl Entity {
    /// All types.
    pub const ALL: [Self; 4] = [Self::Strategy, Self::Project, Self::Container, Self::Organization];

    /// Returns the name used in tables, subjects and URLs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strategy => "strategy",
            Self::Project => "project",
            Self::Container => "container",
            Self::Organization => "organization",
        }
    }
}

impl Health {
    /// All values.
    pub const ALL: [Self; 4] = [Self::Healthy, Self::Degraded, Self::Failing, Self::Silent];

    /// Returns the name used in tables and subjects.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Failing => "failing",
            Self::Silent => "silent",
        }
    }
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Entity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|known| known.name() == text)
            .ok_or_else(|| format!("unknown entity `{text}`: strategy, project, container or organization"))
    }
}

impl FromStr for Health {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|known| known.name() == text)
            .ok_or_else(|| format!("unknown health `{text}`: healthy, degraded, failing or silent"))
    }
}

/// Assesses the health of an entity by its figures for the window that ends at `now`.
pub fn assess(entity: Entity, figures: &Figures, thresholds: &HealthThresholds, now: DateTime<Utc>) -> Finding {
    let Some(seen) = figures.last_seen_at else {
        return Finding { health: Health::Healthy, reason: "nothing was heard of it yet".to_owned() };
    };
    let silent_after = delta(thresholds.silent_after);
    if now - seen > silent_after {
        let (ago, after) = (units::duration(now - seen), units::duration(silent_after));
        return Finding {
            health: Health::Silent,
            reason: format!("heard of last {ago} ago: silent for more than {after}"),
        };
    }
    let window = units::duration(delta(thresholds.window));
    match entity {
        Entity::Strategy | Entity::Organization => by_executions(figures, thresholds, &window),
        Entity::Project => by_errors(figures, &window),
        Entity::Container => by_cpu(figures, thresholds, &window),
    }
}

fn by_executions(figures: &Figures, thresholds: &HealthThresholds, window: &str) -> Finding {
    let (failed, total) = (figures.failed, figures.executions);
    if total == 0 {
        return Finding { health: Health::Healthy, reason: format!("no executions within {window}") };
    }
    let is_above = |share: Ratio| ratio_breaches(failed, total, share, thresholds.min_samples);
    let counted = format!("{failed} of {total} failed within {window}, {}", units::percent(failed, total));
    let (failing, degraded) = (thresholds.failing_above, thresholds.degraded_above);
    let (health, compared) = if is_above(failing) {
        (Health::Failing, format!("above {failing}"))
    } else if is_above(degraded) {
        (Health::Degraded, format!("above {degraded}"))
    } else if degraded.is_exceeded_by(failed, total) {
        (Health::Healthy, format!("below {} executions, which is too few to be sure", thresholds.min_samples))
    } else {
        (Health::Healthy, format!("not above {degraded}"))
    };
    Finding { health, reason: format!("{counted}: {compared}") }
}

fn by_errors(figures: &Figures, window: &str) -> Finding {
    let counted = |count: u64, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    let events = counted(figures.events, "event", "events");
    let (health, found) = if figures.critical > 0 {
        (Health::Failing, counted(figures.critical, "critical error", "critical errors"))
    } else if figures.errors > 0 {
        (Health::Degraded, counted(figures.errors, "error", "errors"))
    } else if figures.warnings > 0 {
        (Health::Healthy, format!("nothing worse than {}", counted(figures.warnings, "warning", "warnings")))
    } else {
        (Health::Healthy, "no errors".to_owned())
    };
    Finding { health, reason: format!("{found} within {window}, beside {events}") }
}

fn by_cpu(figures: &Figures, thresholds: &HealthThresholds, window: &str) -> Finding {
    if figures.cpu_samples == 0 {
        return Finding { health: Health::Healthy, reason: format!("no CPU usage within {window}: no data") };
    }
    let average = figures.cpu_sum / figures.cpu_samples as f64;
    let bound = thresholds.cpu_degraded_percent;
    let is_busy = average > bound;
    let compared = if is_busy { "above" } else { "not above" };
    Finding {
        health: if is_busy { Health::Degraded } else { Health::Healthy },
        reason: format!(
            "average CPU usage {} % within {window}: {compared} {} %",
            units::number(average),
            units::number(bound)
        ),
    }
}

fn delta(duration: std::time::Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entities_are_judged_by_what_concerns_them() {
        let now: DateTime<Utc> = "2026-06-15T12:00:00Z".parse().unwrap();
        let seen = Figures { last_seen_at: Some(now - TimeDelta::minutes(1)), ..Figures::default() };
        let ran = |failed, executions| Figures { failed, executions, ..seen };
        let erred = |critical, errors, warnings| Figures { critical, errors, warnings, events: 3, ..seen };
        let busy = |cpu_samples, cpu_sum| Figures { cpu_samples, cpu_sum, ..seen };
        let old = Figures { last_seen_at: Some(now - TimeDelta::minutes(16)), failed: 9, executions: 9, ..seen };
        use Entity::{Container, Organization, Project, Strategy};
        use Health::{Degraded, Failing, Healthy, Silent};
        for (entity, figures, health, reason) in [
            (Strategy, Figures::default(), Healthy, "nothing was heard of it yet"),
            (Strategy, ran(0, 0), Healthy, "no executions within 1 h"),
            (Strategy, ran(10, 100), Healthy, "10 of 100 failed within 1 h, 10 %: not above 10 %"),
            (Strategy, ran(11, 100), Degraded, "11 of 100 failed within 1 h, 11 %: above 10 %"),
            (Organization, ran(30, 100), Degraded, "30 of 100 failed within 1 h, 30 %: above 10 %"),
            (Organization, ran(31, 100), Failing, "31 of 100 failed within 1 h, 31 %: above 30 %"),
            (
                Strategy,
                ran(3, 3),
                Healthy,
                "3 of 3 failed within 1 h, 100 %: below 10 executions, which is too few to be sure",
            ),
            (Strategy, ran(4, 4), Failing, "4 of 4 failed within 1 h, 100 %: above 30 %"),
            (Strategy, ran(4, 9), Degraded, "4 of 9 failed within 1 h, 44.4 %: above 10 %"),
            (Strategy, old, Silent, "heard of last 16 min ago: silent for more than 15 min"),
            (Project, erred(0, 0, 0), Healthy, "no errors within 1 h, beside 3 events"),
            (Project, erred(0, 0, 1), Healthy, "nothing worse than 1 warning within 1 h, beside 3 events"),
            (Project, erred(0, 1, 5), Degraded, "1 error within 1 h, beside 3 events"),
            (Project, erred(2, 9, 5), Failing, "2 critical errors within 1 h, beside 3 events"),
            (Container, busy(0, 0.0), Healthy, "no CPU usage within 1 h: no data"),
            (Container, busy(4, 360.0), Healthy, "average CPU usage 90 % within 1 h: not above 90 %"),
            (Container, busy(4, 373.0), Degraded, "average CPU usage 93.2 % within 1 h: above 90 %"),
            (Container, old, Silent, "heard of last 16 min ago: silent for more than 15 min"),
        ] {
            let found = assess(entity, &figures, &HealthThresholds::default(), now);
            assert_eq!((found.health, found.reason.as_str()), (health, reason), "{entity} {figures:?}");
        }
    }

    #[test]
    fn words_are_read_again() {
        for entity in Entity::ALL {
            assert_eq!(entity.to_string().parse(), Ok(entity));
        }
        for health in Health::ALL {
            assert_eq!(health.to_string().parse(), Ok(health));
            assert_eq!(serde_json::to_value(health).unwrap(), health.name());
        }
        assert!("tree".parse::<Entity>().is_err() && "fine".parse::<Health>().is_err());
    }
}
