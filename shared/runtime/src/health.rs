//! Whether the parts of this process make progress, and which does not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// A part that has work and finished none of it for so long is stuck. A batch takes well below a
/// second; this is past every retry that heals by itself.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// The parts of this process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Health {
    parts: Arc<Mutex<BTreeMap<String, State>>>,
}

#[derive(Debug, Clone)]
struct State {
    condition: Condition,
    /// Since when there has been work without any of it being finished.
    working_since: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Starting,
    Active,
    Standby,
    Failing(String),
}

/// One part as it is reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartReport {
    /// Whether it makes progress.
    pub ready: bool,
    /// `starting`, `active`, `standby` or `failing`.
    pub state: &'static str,
    /// What keeps it from making progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What `/readyz` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether every part makes progress.
    pub ready: bool,
    /// Each part.
    pub parts: BTreeMap<String, PartReport>,
}

impl Health {
    /// Registers a part, which is `starting` until it says otherwise.
    pub fn part(&self, name: impl Into<String>) -> Part {
        let name = name.into();
        self.lock().insert(name.clone(), State { condition: Condition::Starting, working_since: None });
        Part { health: self.clone(), name }
    }

    /// Every part, now.
    pub fn report(&self) -> Report {
        let parts: BTreeMap<_, _> =
            self.lock().iter().map(|(name, state)| (name.clone(), state.report(Instant::now()))).collect();
        Report { ready: parts.values().all(|part| part.ready), parts }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        // A panic while holding this lock left a whole value behind: there is no half-written state.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn report(&self, now: Instant) -> PartReport {
        let stuck = self.working_since.map(|since| now.duration_since(since)).filter(|age| *age > STUCK_AFTER);
        match (&self.condition, stuck) {
            (Condition::Failing(reason), _) => {
                PartReport { ready: false, state: "failing", reason: Some(reason.clone()) }
            }
            (Condition::Starting, _) => {
                PartReport { ready: false, state: "starting", reason: Some("has not started yet".to_owned()) }
            }
            (Condition::Active, Some(age)) => PartReport {
                ready: false,
                state: "active",
                reason: Some(format!("has work and finished none of it for {} s", age.as_secs())),
            },
            (Condition::Active, None) => PartReport { ready: true, state: "active", reason: None },
            (Condition::Standby, _) => PartReport { ready: true, state: "standby", reason: None },
        }
    }
}

/// The handle with which a part tells how it is.
#[derive(Debug, Clone)]
pub struct Part {
    health: Health,
    name: String,
}

impl Part {
    /// It does its work.
    pub fn active(&self) {
        self.change(|state| state.condition = Condition::Active);
    }

    /// Another process does its work; it waits to take over.
    pub fn standby(&self) {
        self.change(|state| {
            state.condition = Condition::Standby;
            state.working_since = None;
        });
    }

    /// It cannot do its work, and why.
    pub fn failing(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.change(|state| state.condition = Condition::Failing(reason));
    }

    /// There is work. Without [`Part::progressed`] or [`Part::idle`] the part counts as stuck after a while.
    pub fn has_work(&self) {
        self.change(|state| {
            state.working_since.get_or_insert_with(Instant::now);
        });
    }

    /// Some work was finished and more is there.
    pub fn progressed(&self) {
        self.change(|state| {
            state.condition = Condition::Active;
            state.working_since = Some(Instant::now());
        });
    }

    /// There is no work left.
    pub fn idle(&self) {
        self.change(|state| state.working_since = None);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        if let Some(state) = self.health.lock().get_mut(&self.name) {
            change(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_names_the_part_that_does_not_progress() {
        let health = Health::default();
        let (events, logs) = (health.part("events"), health.part("logs"));
        assert!(!health.report().ready, "starting is not ready");
        events.active();
        logs.standby();
        assert!(health.report().ready);
        logs.failing("Postgres is away");
        let report = health.report();
        assert!(!report.ready);
        assert_eq!(report.parts["logs"].reason.as_deref(), Some("Postgres is away"));
        assert!(report.parts["events"].ready);
    }

    #[test]
    fn work_without_progress_is_stuck() {
        let started = Instant::now();
        let mut state = State { condition: Condition::Active, working_since: Some(started) };
        assert!(state.report(started + STUCK_AFTER).ready);
        assert!(!state.report(started + STUCK_AFTER + Duration::from_millis(1)).ready);
        state.working_since = None;
        assert!(state.report(started + STUCK_AFTER * 2).ready);
    }
}
