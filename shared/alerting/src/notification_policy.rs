//! Decides whether a receiver is notified of an alert now, and names the reason.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::notification::{NotificationReason, Status};

/// The last notification of an alert to a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastNotification {
    /// Whether it reported the alert as firing or resolved.
    pub status: Status,
    /// When it was created.
    pub at: DateTime<Utc>,
    /// When the reported episode started to fire.
    pub started_at: DateTime<Utc>,
}

/// Whether to notify a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Notify: firing, resolved or repeated.
    Notify(NotificationReason),
    /// Do not notify.
    Skip(SkipReason),
}

/// Why a receiver is not notified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// The alert fires, but this silence matches it.
    Silenced(Uuid),
    /// The alert fires, but it is acknowledged.
    Acknowledged,
    /// The alert fires, the receiver was notified, and the repeat interval has not elapsed.
    AlreadyNotified,
    /// The alert does not fire, and the receiver was never notified of it.
    NeverNotified,
    /// The alert does not fire, and the receiver was notified of that.
    NotFiring,
    /// The alert has resolved, but the receiver does not want resolved notifications.
    ResolvedNotWanted,
}

/// Tolerance for comparing start times: Postgres stores microseconds, notifications have nanoseconds.
const SAME_EPISODE_WITHIN: TimeDelta = TimeDelta::milliseconds(1);

/// Decides whether a receiver is notified now. `firing` is the start of the current episode, `None` if the alert does
/// not fire. `last` is the last notification to this receiver.
///
/// A receiver that was notified of a firing alert is also notified when it resolves, even if the alert is silenced or
/// acknowledged by then.
pub fn decide(
    firing: Option<DateTime<Utc>>,
    last: Option<&LastNotification>,
    silenced_by: Option<Uuid>,
    acknowledged: bool,
    repeat: TimeDelta,
    send_resolved: bool,
    now: DateTime<Utc>,
) -> Decision {
    let Some(started_at) = firing else {
        return match last.map(|last| last.status) {
            None => Decision::Skip(SkipReason::NeverNotified),
            Some(Status::Resolved) => Decision::Skip(SkipReason::NotFiring),
            Some(Status::Firing) if !send_resolved => Decision::Skip(SkipReason::ResolvedNotWanted),
            Some(Status::Firing) => Decision::Notify(NotificationReason::Resolved),
        };
    };
    if let Some(silence) = silenced_by {
        return Decision::Skip(SkipReason::Silenced(silence));
    }
    if acknowledged {
        return Decision::Skip(SkipReason::Acknowledged);
    }
    let same_episode =
        last.filter(|last| last.status == Status::Firing && (last.started_at - started_at).abs() < SAME_EPISODE_WITHIN);
    match same_episode {
        None => Decision::Notify(NotificationReason::Firing),
        Some(last) if now - last.at >= repeat => Decision::Notify(NotificationReason::Repeated),
        Some(_) => Decision::Skip(SkipReason::AlreadyNotified),
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
        let last = |status, second| Some(LastNotification { status, at: at(second), started_at: at(0) });
        let (firing, resolved) = (Status::Firing, Status::Resolved);
        let hours = 4 * 3_600;
        use Decision::{Notify, Skip};
        for (number, (fires, last, silenced, acknowledged, wanted, second, decision)) in [
            (Some(0), None, None, false, true, 1, Notify(NotificationReason::Firing)),
            (Some(0), None, Some(silence), false, true, 1, Skip(SkipReason::Silenced(silence))),
            (Some(0), None, None, true, true, 1, Skip(SkipReason::Acknowledged)),
            (Some(0), last(firing, 1), None, false, true, 2, Skip(SkipReason::AlreadyNotified)),
            (Some(0), last(firing, 1), None, false, true, hours, Skip(SkipReason::AlreadyNotified)),
            (Some(0), last(firing, 1), None, false, true, hours + 1, Notify(NotificationReason::Repeated)),
            (Some(0), last(firing, 1), Some(silence), false, true, hours + 1, Skip(SkipReason::Silenced(silence))),
            (Some(0), last(firing, 1), None, true, true, hours + 1, Skip(SkipReason::Acknowledged)),
            // A later episode than the one in the last notification.
            (Some(60), last(firing, 1), None, false, true, 61, Notify(NotificationReason::Firing)),
            (Some(60), last(resolved, 50), None, false, true, 61, Notify(NotificationReason::Firing)),
            (None, None, None, false, true, 1, Skip(SkipReason::NeverNotified)),
            (None, None, Some(silence), true, true, 1, Skip(SkipReason::NeverNotified)),
            (None, last(firing, 1), None, false, true, 2, Notify(NotificationReason::Resolved)),
            (None, last(firing, 1), Some(silence), true, true, 2, Notify(NotificationReason::Resolved)),
            (None, last(firing, 1), None, false, false, 2, Skip(SkipReason::ResolvedNotWanted)),
            (None, last(resolved, 1), None, false, true, 2, Skip(SkipReason::NotFiring)),
        ]
        .into_iter()
        .enumerate()
        {
            let found = decide(fires.map(at), last.as_ref(), silenced, acknowledged, REPEAT, wanted, at(second));
            assert_eq!(found, decision, "row {number}");
        }
    }

    #[test]
    fn an_episode_is_known_again_after_postgres_has_rounded_its_beginning() {
        let last = LastNotification { status: Status::Firing, at: at(1), started_at: at(0) };
        let rounded = DateTime::from_timestamp_micros(at(0).timestamp_micros());
        assert_eq!(
            decide(rounded, Some(&last), None, false, REPEAT, true, at(2)),
            Decision::Skip(SkipReason::AlreadyNotified)
        );
        assert_eq!(
            decide(Some(at(0)), Some(&last), None, false, TimeDelta::MAX, true, at(9_999_999)),
            Decision::Skip(SkipReason::AlreadyNotified)
        );
    }

    proptest! {
        /// Random alerts, silences and acknowledgements.
        #[test]
        fn every_told_firing_is_followed_by_exactly_one_resolved(
            steps in prop::collection::vec((any::<bool>(), any::<bool>(), any::<bool>(), 1_i64..20_000), 1..80),
        ) {
            let (mut last, mut episode, mut now) = (None::<LastNotification>, None, 0);
            let mut open = false;
            for (fires, silenced, acknowledged, seconds) in steps.into_iter().chain([(false, true, true, 1)]) {
                now += seconds;
                episode = if fires { episode.or(Some(at(now))) } else { None };
                let silence = silenced.then(|| Uuid::from_u128(1));
                // Decide until there is nothing left to decide, as the worker's next ticks would.
                for _ in 0..3 {
                    let Decision::Notify(why) =
                        decide(episode, last.as_ref(), silence, acknowledged, REPEAT, true, at(now)) else { break };
                    match why {
                        NotificationReason::Firing => prop_assert!(!std::mem::replace(&mut open, true)),
                        NotificationReason::Resolved => prop_assert!(std::mem::replace(&mut open, false)),
                        NotificationReason::Repeated => prop_assert!(open && !silenced && !acknowledged),
                        _ => prop_assert!(false, "{why:?}"),
                    }
                    let status = if fires { Status::Firing } else { Status::Resolved };
                    let started_at = episode.or(last.map(|last| last.started_at)).unwrap_or(at(now));
                    last = Some(LastNotification { status, at: at(now), started_at });
                }
            }
            prop_assert!(!open);
        }
    }
}
