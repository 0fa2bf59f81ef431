//! Silences: a matching silence suppresses firing notifications.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::matcher::Matcher;
use crate::notification::Labels;

pub use crate::matcher::{MatcherError, Operation};
pub use crate::recurrence::{Recurrence, RecurrenceError};

/// The longest silence. A forgotten silence must end some day.
const LONGEST: TimeDelta = TimeDelta::days(366);
/// How many days ahead to search for the next change: clock changes can skip a weekly time once.
const LOOK_AHEAD_DAYS: u64 = 15;
/// The maximum number of matchers: each one is tried on each alert.
const MAX_MATCHERS: usize = 50;

/// A silence; see the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    /// The id.
    pub id: Uuid,
    /// The matchers; all have to match.
    pub matchers: Vec<Matcher>,
    /// Start, inclusive.
    pub starts_at: DateTime<Utc>,
    /// End, exclusive.
    pub ends_at: DateTime<Utc>,
    /// Limits the silence to these times; `None` if it is active throughout.
    pub recurrence: Option<Recurrence>,
    /// Who created it.
    pub created_by: String,
    /// The reason.
    pub reason: String,
    /// When it was ended early, if it was.
    pub ended_at: Option<DateTime<Utc>>,
}

impl Silence {
    /// Checks whether the labels of an alert match, regardless of time.
    pub fn matches(&self, labels: &Labels) -> bool {
        !self.matchers.is_empty() && self.matchers.iter().all(|matcher| matcher.matches(labels))
    }

    /// Checks whether it is active at `now`.
    pub fn active_at(&self, now: DateTime<Utc>) -> bool {
        self.starts_at <= now
            && now < self.end()
            && self.recurrence.as_ref().is_none_or(|recurrence| recurrence.active_at(now))
    }

    /// Returns when it next becomes active or inactive; `None` if it never does again.
    pub fn next_change_after(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let is_active = self.active_at(now);
        let mut instants = vec![self.starts_at, self.end()];
        if let Some(recurrence) = &self.recurrence {
            let near = recurrence.occurrences(now.max(self.starts_at), 2, LOOK_AHEAD_DAYS);
            instants.extend(near.flat_map(|(start, end)| [start, end]));
        }
        instants.sort_unstable();
        instants.into_iter().find(|instant| *instant > now && self.active_at(*instant) != is_active)
    }

    fn end(&self) -> DateTime<Utc> {
        self.ended_at.map_or(self.ends_at, |ended| ended.min(self.ends_at))
    }

    /// Returns every problem with it, in words; empty if it is valid.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, problem: &str| {
            if !ok {
                problems.push(problem.to_owned());
            }
        };
        check(!self.matchers.is_empty(), "a silence needs a matcher, such as `alertname=ingest-lag`");
        check(
            self.matchers.is_empty() || self.matchers.iter().any(|matcher| !matcher.matches_absence()),
            "every matcher matches an absent label too, so this would silence everything: name a value",
        );
        check(self.matchers.len() <= MAX_MATCHERS, "at most 50 matchers");
        check(self.starts_at < self.ends_at, "it ends before it begins");
        check(self.ends_at - self.starts_at <= LONGEST, "at most one year, so that a forgotten silence ends");
        check(!self.created_by.trim().is_empty(), "say who creates it");
        check(!self.reason.trim().is_empty(), "say why");
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silence(matchers: &[&str], recurrence: Option<(&str, &str)>) -> Silence {
        Silence {
            id: Uuid::nil(),
            matchers: matchers.iter().map(|matcher| matcher.parse().unwrap()).collect(),
            starts_at: at("2026-03-01T00:00:00Z"),
            ends_at: at("2026-05-01T00:00:00Z"),
            recurrence: recurrence.map(|(when, zone)| Recurrence::parse(when, zone).unwrap()),
            created_by: "ann".to_owned(),
            reason: "maintenance".to_owned(),
            ended_at: None,
        }
    }

    fn at(time: &str) -> DateTime<Utc> {
        time.parse().unwrap()
    }

    #[test]
    fn all_matchers_must_match() {
        let labels: Labels =
            [("alertname", "a"), ("severity", "info")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        assert!(silence(&["alertname=a", "severity!=critical"], None).matches(&labels));
        assert!(!silence(&["alertname=a", "severity=critical"], None).matches(&labels));
        assert!(!silence(&[], None).matches(&labels));
    }

    #[test]
    fn it_is_in_force_between_its_times_until_it_is_ended() {
        let mut silence = silence(&["a=b"], None);
        let (before, start) = (at("2026-02-28T23:59:59Z"), at("2026-03-01T00:00:00Z"));
        let (late, end) = (at("2026-04-30T23:59:59Z"), at("2026-05-01T00:00:00Z"));
        assert_eq!([before, start, late, end].map(|now| silence.active_at(now)), [false, true, true, false]);
        assert_eq!(silence.next_change_after(before), Some(start));
        assert_eq!(silence.next_change_after(start), Some(end));
        assert_eq!(silence.next_change_after(end), None);
        let ended = at("2026-03-02T00:00:00Z");
        silence.ended_at = Some(ended);
        assert_eq!([start, ended, late].map(|now| silence.active_at(now)), [true, false, false]);
        assert_eq!(silence.next_change_after(start), Some(ended));
        // Ended before it started: it is never active.
        silence.ended_at = Some(before);
        assert!(!silence.active_at(start));
        assert_eq!(silence.next_change_after(before), None);
    }

    #[test]
    fn a_recurring_one_is_in_force_at_its_times_between_its_ends() {
        let weekend = silence(&["a=b"], Some(("sat,sun 22:00-06:00", "UTC")));
        // 2026-03-01 is a Sunday. The silence starts during Saturday's night and cuts it short.
        let mut now = at("2026-02-20T00:00:00Z");
        let mut changes = Vec::new();
        for _ in 0..6 {
            now = weekend.next_change_after(now).unwrap();
            changes.push((now.format("%m-%d %H:%M").to_string(), weekend.active_at(now)));
        }
        let expected = [
            ("03-01 00:00", true),
            ("03-01 06:00", false),
            ("03-01 22:00", true),
            ("03-02 06:00", false),
            ("03-07 22:00", true),
            ("03-08 06:00", false),
        ];
        assert_eq!(changes, expected.map(|(time, active)| (time.to_owned(), active)));
        // Adjacent occurrences form one period.
        let always = silence(&["a=b"], Some(("daily 06:00-06:00", "Europe/Berlin")));
        assert_eq!(always.next_change_after(always.starts_at), Some(always.ends_at));
        assert_eq!(weekend.next_change_after(weekend.ends_at), None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let good = silence(&["a=b"], None);
        assert_eq!(good.problems(), Vec::<String>::new());
        for (wrong, problem) in [
            (silence(&[], None), "needs a matcher"),
            (silence(&["a!=b", "c=~.*", "d="], None), "would silence everything"),
            (Silence { ends_at: good.starts_at, ..good.clone() }, "ends before it begins"),
            (Silence { ends_at: good.starts_at + TimeDelta::days(367), ..good.clone() }, "at most one year"),
            (Silence { created_by: " ".to_owned(), ..good.clone() }, "say who"),
            (Silence { reason: String::new(), ..good.clone() }, "say why"),
            (Silence { matchers: vec!["a=b".parse().unwrap(); 51], ..good.clone() }, "at most 50"),
        ] {
            let problems = wrong.problems();
            assert!(problems.len() == 1 && problems[0].contains(problem), "{problems:?}");
        }
    }
}
