//! Rates: a count per unit of time.

use std::fmt;
use std::str::FromStr;

use chrono::TimeDelta;

/// An exact rate, such as `5/s`, `0.5/min` or `10/h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    millionths: u64,
    per: Per,
}

/// The unit of time of a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Per {
    Second,
    Minute,
    Hour,
}

const ONE: u64 = 1_000_000;
/// The maximum number of decimals.
const DECIMALS: usize = 6;

impl Rate {
    /// Checks whether `count` within `window` is strictly above the rate.
    pub fn is_exceeded_by(self, count: u64, window: TimeDelta) -> bool {
        let (seen, bound) = self.sides(count, window);
        seen > bound
    }

    /// Checks whether `count` within `window` is strictly below the rate.
    pub fn is_undercut_by(self, count: u64, window: TimeDelta) -> bool {
        let (seen, bound) = self.sides(count, window);
        seen < bound
    }

    /// Returns both sides of comparing `count / window` with the rate, multiplied so that nothing is divided.
    fn sides(self, count: u64, window: TimeDelta) -> (u128, u128) {
        let window = u128::try_from(window.num_seconds()).unwrap_or(0);
        let seen = u128::from(count) * u128::from(ONE) * u128::from(self.per.seconds());
        (seen, u128::from(self.millionths) * window)
    }

    /// Returns five sixths of the rate, at least the smallest nonzero rate unless the rate is zero.
    pub(crate) fn five_sixths(self) -> Self {
        let millionths = (u128::from(self.millionths) * 5).div_ceil(6);
        Self { millionths: u64::try_from(millionths).unwrap_or(u64::MAX), ..self }
    }

    /// Checks whether it is strictly above another rate.
    pub(crate) fn is_above(self, other: Self) -> bool {
        let a = u128::from(self.millionths) * u128::from(other.per.seconds());
        a > u128::from(other.millionths) * u128::from(self.per.seconds())
    }

    /// Formats `count` within `window` in this rate's unit of time, with at most one decimal.
    pub(crate) fn say(self, count: u64, window: TimeDelta) -> String {
        let seconds = window.num_seconds().max(1) as f64;
        let rate = count as f64 * self.per.seconds() as f64 / seconds;
        format!("{}/{}", crate::units::number(rate), self.per)
    }
}

impl Per {
    const fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
        }
    }
}

impl fmt::Display for Per {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Second => "s",
            Self::Minute => "min",
            Self::Hour => "h",
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.millionths / ONE, self.millionths % ONE);
        write!(f, "{whole}")?;
        if rest > 0 {
            write!(f, ".{}", format!("{rest:06}").trim_end_matches('0'))?;
        }
        write!(f, "/{}", self.per)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected a rate such as \"5/s\", \"300/min\" or \"0.5/h\"; found `{text}`");
        let (count, per) = text.split_once('/').ok_or_else(wrong)?;
        let per = match per.trim() {
            "s" => Per::Second,
            "m" | "min" => Per::Minute,
            "h" => Per::Hour,
            _ => return Err(wrong()),
        };
        let (whole, decimals) = count.trim().split_once('.').unwrap_or((count.trim(), "0"));
        let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole) || !is_number(decimals) || decimals.len() > DECIMALS {
            return Err(wrong());
        }
        let whole: u64 = whole.parse().map_err(|_| wrong())?;
        let decimals: u64 = format!("{decimals:0<DECIMALS$}").parse().map_err(|_| wrong())?;
        let millionths = whole.checked_mul(ONE).and_then(|whole| whole.checked_add(decimals)).ok_or_else(wrong)?;
        Ok(Self { millionths, per })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_written() {
        for (text, shown) in
            [("5/s", "5/s"), ("300 / min", "300/min"), ("0.5/m", "0.5/min"), ("10.250000/h", "10.25/h"), ("0/s", "0/s")]
        {
            assert_eq!(text.parse::<Rate>().map(|rate| rate.to_string()), Ok(shown.to_owned()));
        }
        for text in ["5", "5/d", "-5/s", "/s", "5/", "1.2345678/s", "x/s", "99999999999999999999/s"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_compared_strictly_and_exactly() {
        let rate = |text: &str| text.parse::<Rate>().unwrap();
        for (text, count, minutes, more, less) in [
            ("5/s", 1_500, 5, false, false),
            ("5/s", 1_501, 5, true, false),
            ("5/s", 1_499, 5, false, true),
            ("300/min", 1_501, 5, true, false),
            ("0.5/h", 0, 60, false, true),
            ("0.5/h", 1, 60, true, false),
            ("0.5/h", 1, 120, false, false),
        ] {
            let window = TimeDelta::minutes(minutes);
            let found = (rate(text).is_exceeded_by(count, window), rate(text).is_undercut_by(count, window));
            assert_eq!(found, (more, less), "{text} {count} in {minutes} min");
        }
        assert!(rate("2/s").is_above(rate("119/min")) && !rate("2/s").is_above(rate("120/min")));
        assert_eq!(rate("60/min").five_sixths(), rate("50/min"));
        assert_eq!(rate("60/min").say(420, TimeDelta::minutes(5)), "84/min");
    }
}
