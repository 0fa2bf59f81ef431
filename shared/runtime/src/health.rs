//! The readiness of this process, by part.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// A part that has work and finished none of it for this time is stuck. A batch takes well below a second, and a
/// transient failure is over by then.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// The state of all parts of this process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Health {
    parts: Arc<Mutex<BTreeMap<String, State>>>,
}

#[derive(Debug, Clone)]
struct State {
    condition: Condition,
    /// The time since which there has been work and none of it was finished.
    working_since: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Starting,
    Active,
    Standby,
    Failing(String),
}

/// The state of one part, as reported by `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartReport {
    /// Whether it is ready: active and not stuck, or standby.
    pub ready: bool,
    /// `starting`, `active`, `standby` or `failing`.
    pub state: &'static str,
    /// The reason why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The response body of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether every part is ready.
    pub ready: bool,
    /// The parts by name.
    pub parts: BTreeMap<String, PartReport>,
}

impl Health {
    /// Registers a part, in the state `starting`.
    pub fn part(&self, name: impl Into<String>) -> Part {
        let name = name.into();
        self.lock().insert(name.clone(), State { condition: Condition::Starting, working_since: None });
        Part { health: self.clone(), name }
    }

    /// Returns the current state of every part.
    pub fn report(&self) -> Report {
        let parts: BTreeMap<_, _> =
            self.lock().iter().map(|(name, state)| (name.clone(), state.report(Instant::now()))).collect();
        Report { ready: parts.values().all(|part| part.ready), parts }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        // A panic under this lock cannot leave a partial update behind.
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

/// The handle with which a part reports its state.
#[derive(Debug, Clone)]
pub struct Part {
    health: Health,
    name: String,
}

impl Part {
    /// Reports that it works.
    pub fn active(&self) {
        self.change(|state| state.condition = Condition::Active);
    }

    /// Reports that another process does the work, and this one waits to take over.
    pub fn standby(&self) {
        self.change(|state| {
            state.condition = Condition::Standby;
            state.working_since = None;
        });
    }

    /// Reports that it cannot work, and the reason.
    pub fn failing(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.change(|state| state.condition = Condition::Failing(reason));
    }

    /// Reports that there is work. Unless [`Part::progressed`] or [`Part::idle`] follows within 30 s, the part counts
    /// as stuck.
    pub fn has_work(&self) {
        self.change(|state| {
            state.working_since.get_or_insert_with(Instant::now);
        });
    }

    /// Reports that some work was finished and more is left.
    pub fn progressed(&self) {
        self.change(|state| {
            state.condition = Condition::Active;
            state.working_since = Some(Instant::now());
        });
    }

    /// Reports that no work is left.
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
