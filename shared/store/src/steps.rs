//! A time range in equal steps, for charts.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

/// The maximum number of points in a chart: a week of minutes is 10,080, and no screen is wider. At some 100 bytes
/// each that is a megabyte.
pub const MAX_POINTS: i64 = 11_000;
const SECONDS_OF_AN_HOUR: i64 = 3_600;

/// A time range in equal steps. Each hour lies within one step or consists of whole steps, so that a series whose
/// older part is stored by the hour has the same sums as one that is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    step: TimeDelta,
}

/// The reason why a time range cannot be divided into such steps. The text is shown to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSteps {
    /// The range is empty.
    #[error("`from` is not before `to`")]
    Empty,
    /// Steps would split hours unevenly.
    #[error(
        "a step has to divide an hour (such as one or five minutes) or be a multiple of one, and last at least a second"
    )]
    Uneven,
    /// There are more than [`MAX_POINTS`] steps.
    #[error("there are more than {MAX_POINTS} such steps between `from` and `to`: use longer steps or a shorter range")]
    TooMany,
}

impl Steps {
    /// Returns the steps that cover the range from `from` up to and excluding `to`. The first and the last one are
    /// whole.
    ///
    /// # Errors
    /// If the range or the step is invalid, or if there are too many steps.
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

    /// Returns the start of the first step.
    pub fn from(&self) -> DateTime<Utc> {
        self.from
    }

    /// Returns the end of the last step.
    pub fn to(&self) -> DateTime<Utc> {
        self.to
    }

    /// Returns the length of each step.
    pub fn step(&self) -> TimeDelta {
        self.step
    }

    /// Returns the hour in which the first step starts.
    pub(crate) fn first_hour(&self) -> DateTime<Utc> {
        begin_of(self.from, TimeDelta::seconds(SECONDS_OF_AN_HOUR)).unwrap_or(self.from)
    }

    /// Returns the time from which steps are counted: midnight of a Monday, so that weeks start on Mondays.
    pub(crate) fn origin() -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(4)
    }
}

/// Returns the start of the step that contains `time`; `None` if that is before the calendar's start.
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
        // Before the origin as well.
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
