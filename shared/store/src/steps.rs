//! A stretch of time in equal steps, as charts ask for it.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

/// Points that a chart can ask for: a week of minutes is 10,080, and no screen is wider. At some 100 bytes
/// each that is a megabyte.
pub const MAX_POINTS: i64 = 11_000;
const SECONDS_OF_AN_HOUR: i64 = 3_600;

/// A stretch of time in equal steps. Each hour lies within one step or is made of whole ones, so that a series
/// whose older part is kept by the hour has the same sums as one that is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    step: TimeDelta,
}

/// Why a stretch of time cannot be had in such steps, in words for whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSteps {
    /// Nothing is between them.
    #[error("`from` is not before `to`")]
    Empty,
    /// Hours would be cut.
    #[error(
        "a step has to divide an hour (a minute, five minutes) or be made of whole ones, and has at least a second"
    )]
    Uneven,
    /// More than [`MAX_POINTS`].
    #[error("there are more than {MAX_POINTS} such steps between `from` and `to`: ask for longer steps, or for less")]
    TooMany,
}

impl Steps {
    /// The steps that hold the time from `from` up to and without `to`, the first and the last one whole.
    ///
    /// # Errors
    /// Where they are none that can be asked for.
    pub fn of(from: DateTime<Utc>, to: DateTime<Utc>, step: TimeDelta) -> Result<Self, BadSteps> {
        if from >= to {
            return Err(BadSteps::Empty);
        }
        let seconds = step.num_seconds();
        let is_even = seconds >= 1
            && step.subsec_nanos() == 0
            && (SECONDS_OF_AN_HOUR % seconds == 0 || seconds % SECONDS_OF_AN_HOUR == 0);
        if !is_even {
            return Err(BadSteps::Uneven);
        }
        let first = begin_of(from, step).ok_or(BadSteps::TooMany)?;
        let last = begin_of(to, step).ok_or(BadSteps::TooMany)?;
        let end = if last < to { last.checked_add_signed(step).ok_or(BadSteps::TooMany)? } else { last };
        if (end - first).num_seconds() / seconds > MAX_POINTS {
            return Err(BadSteps::TooMany);
        }
        Ok(Self { from: first, to: end, step })
    }

    /// Where the first one begins.
    pub fn from(&self) -> DateTime<Utc> {
        self.from
    }

    /// Where the last one ends.
    pub fn to(&self) -> DateTime<Utc> {
        self.to
    }

    /// How long each is.
    pub fn step(&self) -> TimeDelta {
        self.step
    }

    /// The hour in which the first one begins.
    pub(crate) fn first_hour(&self) -> DateTime<Utc> {
        begin_of(self.from, TimeDelta::seconds(SECONDS_OF_AN_HOUR)).unwrap_or(self.from)
    }

    /// From where steps are counted: midnight of a Monday, so that weeks begin where people begin them.
    pub(crate) fn origin() -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(4)
    }
}

/// Where the step begins in which `time` lies; `None` before the calendar.
fn begin_of(time: DateTime<Utc>, step: TimeDelta) -> Option<DateTime<Utc>> {
    let into = (time.timestamp() - Steps::origin().timestamp()).rem_euclid(step.num_seconds());
    time.trunc_subsecs(0).checked_sub_signed(TimeDelta::seconds(into))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> DateTime<Utc> {
        time.parse().unwrap()
    }

    fn steps(from: &str, to: &str, step: TimeDelta) -> Result<(String, String), BadSteps> {
        let steps = Steps::of(at(from), at(to), step)?;
        Ok((steps.from().to_rfc3339(), steps.to().to_rfc3339()))
    }

    #[test]
    fn the_first_and_the_last_step_are_whole() {
        let whole = |from: &str, to: &str| Ok((format!("{from}+00:00"), format!("{to}+00:00")));
        let minutes = TimeDelta::minutes(5);
        assert_eq!(
            steps("2026-07-01T10:33:20.5Z", "2026-07-01T10:35:00.000001Z", minutes),
            whole("2026-07-01T10:30:00", "2026-07-01T10:40:00")
        );
        assert_eq!(
            steps("2026-07-01T10:30:00Z", "2026-07-01T10:35:00Z", minutes),
            whole("2026-07-01T10:30:00", "2026-07-01T10:35:00")
        );
        // A Wednesday, and the Mondays around it.
        assert_eq!(
            steps("2026-07-01T10:33:20Z", "2026-07-02T00:00:00Z", TimeDelta::weeks(1)),
            whole("2026-06-29T00:00:00", "2026-07-06T00:00:00")
        );
        // Before the origin too.
        assert_eq!(
            steps("1969-12-31T23:10:00Z", "1970-01-01T00:10:00Z", TimeDelta::hours(1)),
            whole("1969-12-31T23:00:00", "1970-01-01T01:00:00")
        );
        let within = Steps::of(at("2026-07-01T10:33:20Z"), at("2026-07-01T11:00:00Z"), minutes).unwrap();
        assert_eq!(within.first_hour(), at("2026-07-01T10:00:00Z"));
    }

    #[test]
    fn what_would_cut_an_hour_or_never_end_is_refused() {
        let (from, to) = ("2026-07-01T10:30:00Z", "2026-07-02T10:30:00Z");
        for bad in [0, -60, 7, 7 * 60, 90 * 60] {
            assert_eq!(steps(from, to, TimeDelta::seconds(bad)), Err(BadSteps::Uneven), "{bad} s");
        }
        assert_eq!(steps(from, to, TimeDelta::milliseconds(1_500)), Err(BadSteps::Uneven));
        for good in [10, 60, 20 * 60, 60 * 60, 5 * 60 * 60, 24 * 60 * 60] {
            assert!(steps(from, to, TimeDelta::seconds(good)).is_ok(), "{good} s");
        }
        assert_eq!(steps(from, from, TimeDelta::hours(1)), Err(BadSteps::Empty));
        assert_eq!(steps(to, from, TimeDelta::hours(1)), Err(BadSteps::Empty));
        let begin = at("2026-07-01T00:00:00Z");
        let minutes = |count| Steps::of(begin, begin + TimeDelta::minutes(count), TimeDelta::minutes(1));
        assert!(minutes(MAX_POINTS).is_ok());
        assert_eq!(minutes(MAX_POINTS + 1), Err(BadSteps::TooMany));
        assert_eq!(
            Steps::of(DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC, TimeDelta::hours(1)),
            Err(BadSteps::TooMany)
        );
    }
}
