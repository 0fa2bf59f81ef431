//! Whether a receiver is told of an alert now, and why or why not.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::notification::{Status, Why};

/// What a receiver was told last of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// That it fires, or that it is over.
    pub status: Status,
    /// When.
    pub at: DateTime<Utc>,
    /// When the episode had begun of which it was told.
    pub started_at: DateTime<Utc>,
}

/// Whether to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Yes: firing, resolved or repeated.
    Tell(Why),
    /// No.
    Keep(Reason),
}

/// Why a receiver is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It fires, and this silence matches.
    Silenced(Uuid),
    /// It fires, and somebody has taken note.
    Acknowledged,
    /// It fires, the receiver knows, and the repeat interval is not over.
    AlreadyTold,
    /// It does not fire, and the receiver never heard of it.
    NeverTold,
    /// It does not fire, and the receiver knows.
    NotFiring,
    /// It is over, and the receiver does not want to know.
    ResolvedNotWanted,
}

/// Times are stored with microseconds and compared with what was told with nanoseconds.
const SAME_EPISODE_WITHIN: TimeDelta = TimeDelta::milliseconds(1);

/// Whether a receiver is told now. `firing` is when the episode began that goes on, `None` where the alert does not
/// fire; `told` is what the receiver was told last.
///
/// Whoever was told that an alert fires is told that it is over, silenced or acknowledged or not.
pub fn decide(
    firing: Option<DateTime<Utc>>,
    told: Option<&Told>,
    silenced_by: Option<Uuid>,
    acknowledged: bool,
    repeat: TimeDelta,
    send_resolved: bool,
    now: DateTime<Utc>,
) -> Decision {
    let Some(started_at) = firing else {
        return match told.map(|told| told.status) {
            None => Decision::Keep(Reason::NeverTold),
            Some(Status::Resolved) => Decision::Keep(Reason::NotFiring),
            Some(Status::Firing) if !send_resolved => Decision::Keep(Reason::ResolvedNotWanted),
            Some(Status::Firing) => Decision::Tell(Why::Resolved),
        };
    };
    if let Some(silence) = silenced_by {
        return Decision::Keep(Reason::Silenced(silence));
    }
    if acknowledged {
        return Decision::Keep(Reason::Acknowledged);
    }
    let of_this_episode =
        told.filter(|told| told.status == Status::Firing && (told.started_at - started_at).abs() < SAME_EPISODE_WITHIN);
    match of_this_episode {
        None => Decision::Tell(Why::Firing),
        Some(told) if now - told.at >= repeat => Decision::Tell(Why::Repeated),
        Some(_) => Decision::Keep(Reason::AlreadyTold),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REPEAT: TimeDelta = TimeDelta::hours(4);

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_750_000_000 + second, 123_456_789).unwrap()
    }

    #[test]
    fn each_decision_has_a_reason() {
        let silence = Uuid::from_u128(7);
        let told = |status, second| Some(Told { status, at: at(second), started_at: at(0) });
        let (firing, resolved) = (Status::Firing, Status::Resolved);
        let hours = 4 * 3_600;
        use Decision::{Keep, Tell};
        for (number, (fires, told, silenced, acknowledged, wanted, second, decision)) in [
            (Some(0), None, None, false, true, 1, Tell(Why::Firing)),
            (Some(0), None, Some(silence), false, true, 1, Keep(Reason::Silenced(silence))),
            (Some(0), None, None, true, true, 1, Keep(Reason::Acknowledged)),
            (Some(0), told(firing, 1), None, false, true, 2, Keep(Reason::AlreadyTold)),
            (Some(0), told(firing, 1), None, false, true, hours, Keep(Reason::AlreadyTold)),
            (Some(0), told(firing, 1), None, false, true, hours + 1, Tell(Why::Repeated)),
            (Some(0), told(firing, 1), Some(silence), false, true, hours + 1, Keep(Reason::Silenced(silence))),
            (Some(0), told(firing, 1), None, true, true, hours + 1, Keep(Reason::Acknowledged)),
            // Another episode than the one that was told.
            (Some(60), told(firing, 1), None, false, true, 61, Tell(Why::Firing)),
            (Some(60), told(resolved, 50), None, false, true, 61, Tell(Why::Firing)),
            (None, None, None, false, true, 1, Keep(Reason::NeverTold)),
            (None, None, Some(silence), true, true, 1, Keep(Reason::NeverTold)),
            (None, told(firing, 1), None, false, true, 2, Tell(Why::Resolved)),
            (None, told(firing, 1), Some(silence), true, true, 2, Tell(Why::Resolved)),
            (None, told(firing, 1), None, false, false, 2, Keep(Reason::ResolvedNotWanted)),
            (None, told(resolved, 1), None, false, true, 2, Keep(Reason::NotFiring)),
        ]
        .into_iter()
        .enumerate()
        {
            let found = decide(fires.map(at), told.as_ref(), silenced, acknowledged, REPEAT, wanted, at(second));
            assert_eq!(found, decision, "row {number}");
        }
    }

    #[test]
    fn an_episode_is_known_again_after_postgres_has_rounded_its_beginning() {
        let told = Told { status: Status::Firing, at: at(1), started_at: at(0) };
        let rounded = DateTime::from_timestamp_micros(at(0).timestamp_micros());
        assert_eq!(decide(rounded, Some(&told), None, false, REPEAT, true, at(2)), Decision::Keep(Reason::AlreadyTold));
        assert_eq!(
            decide(Some(at(0)), Some(&told), None, false, TimeDelta::MAX, true, at(9_999_999)),
            Decision::Keep(Reason::AlreadyTold)
        );
    }

    proptest! {
        /// Whatever happens to an alert, and whoever silences or acknowledges it meanwhile.
        #[test]
        fn every_told_firing_is_followed_by_exactly_one_resolved(
            steps in prop::collection::vec((any::<bool>(), any::<bool>(), any::<bool>(), 1_i64..20_000), 1..80),
        ) {
            let (mut told, mut episode, mut now) = (None::<Told>, None, 0);
            let mut open = false;
            for (fires, silenced, acknowledged, seconds) in steps.into_iter().chain([(false, true, true, 1)]) {
                now += seconds;
                episode = if fires { episode.or(Some(at(now))) } else { None };
                let silence = silenced.then(|| Uuid::from_u128(1));
                // Each look decides until there is nothing more to decide, as a worker's next tick would.
                for _ in 0..3 {
                    let Decision::Tell(why) =
                        decide(episode, told.as_ref(), silence, acknowledged, REPEAT, true, at(now)) else { break };
                    match why {
                        Why::Firing => prop_assert!(!std::mem::replace(&mut open, true)),
                        Why::Resolved => prop_assert!(std::mem::replace(&mut open, false)),
                        Why::Repeated => prop_assert!(open && !silenced && !acknowledged),
                        _ => prop_assert!(false, "{why:?}"),
                    }
                    let status = if fires { Status::Firing } else { Status::Resolved };
                    let started_at = episode.or(told.map(|told| told.started_at)).unwrap_or(at(now));
                    told = Some(Told { status, at: at(now), started_at });
                }
            }
            prop_assert!(!open);
        }
    }
}
