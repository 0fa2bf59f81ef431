//! Exact shares of a whole.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A share of a whole, such as `30%`. It is a whole number of millionths, so that comparing it with counts is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ratio {
    millionths: u64,
}

const WHOLE: u64 = 1_000_000;
/// Maximum decimal places of a percentage: a millionth is 0.0001 %.
const DECIMALS: usize = 4;

impl Ratio {
    /// Returns a share in percent.
    pub const fn percent(percent: u32) -> Self {
        Self { millionths: percent as u64 * (WHOLE / 100) }
    }

    /// Returns a share in millionths.
    pub const fn of_millionths(millionths: u64) -> Self {
        Self { millionths }
    }

    /// Returns the share in millionths: 1,000,000 is the whole.
    pub const fn millionths(self) -> u64 {
        self.millionths
    }

    /// Returns whether `part` is strictly more than this share of `whole`.
    pub const fn is_exceeded_by(self, part: u64, whole: u64) -> bool {
        part as u128 * WHOLE as u128 > whole as u128 * self.millionths as u128
    }

    /// Returns whether `part` is strictly less than this share of `whole`.
    pub const fn is_undercut_by(self, part: u64, whole: u64) -> bool {
        (part as u128 * WHOLE as u128) < whole as u128 * self.millionths as u128
    }

    /// Returns the share as a fraction: 0.3 for 30 %.
    pub fn as_f64(self) -> f64 {
        self.millionths as f64 / WHOLE as f64
    }

    /// Returns the percentage without the percent sign and without trailing zeros.
    fn in_percent(self) -> String {
        let (whole, rest) = (self.millionths / (WHOLE / 100), self.millionths % (WHOLE / 100));
        if rest == 0 {
            return whole.to_string();
        }
        format!("{whole}.{rest:04}").trim_end_matches('0').to_owned()
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.in_percent())
    }
}

/// The error for a text that is not a share; contains the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseRatioError(String);

impl std::error::Error for ParseRatioError {}

impl fmt::Display for ParseRatioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected a share such as \"30%\" or \"0.5%\", {DECIMALS} decimals at most; found `{}`", self.0)
    }
}

impl FromStr for Ratio {
    type Err = ParseRatioError;

    fn from_str(text: &str) -> Result<Self, ParseRatioError> {
        let wrong = || ParseRatioError(text.to_owned());
        let number = text.trim().strip_suffix('%').ok_or_else(wrong)?.trim_end();
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole) || !is_number(decimals) || decimals.len() > DECIMALS {
            return Err(wrong());
        }
        let whole: u64 = whole.parse().map_err(|_| wrong())?;
        let decimals: u64 = format!("{decimals:0<DECIMALS$}").parse().map_err(|_| wrong())?;
        let millionths = whole.checked_mul(WHOLE / 100).and_then(|whole| whole.checked_add(decimals));
        millionths.map(Self::of_millionths).ok_or_else(wrong)
    }
}

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}%", self.in_percent()))
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_and_written_exactly() {
        for (text, millionths, shown) in [
            ("30%", 300_000, "30 %"),
            ("30 %", 300_000, "30 %"),
            (" 0.5% ", 5_000, "0.5 %"),
            ("0.0001%", 1, "0.0001 %"),
            ("33.3300%", 333_300, "33.33 %"),
            ("300%", 3_000_000, "300 %"),
            ("0%", 0, "0 %"),
        ] {
            let share: Ratio = text.parse().unwrap();
            assert_eq!((share.millionths(), share.to_string().as_str()), (millionths, shown), "{text}");
            assert_eq!(shown.parse(), Ok(share));
        }
        for text in ["30", "%", "-1%", "+1%", "1.%", ".5%", "0.00001%", "1e2%", "99999999999999999999%", "a%", ""] {
            assert!(text.parse::<Ratio>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_is_compared_strictly() {
        let share = Ratio::percent(30);
        for (part, whole, more, less) in
            [(30, 100, false, false), (31, 100, true, false), (29, 100, false, true), (0, 0, false, false)]
        {
            assert_eq!(
                (share.is_exceeded_by(part, whole), share.is_undercut_by(part, whole)),
                (more, less),
                "{part} of {whole}"
            );
        }
        assert!(share.is_exceeded_by(u64::MAX, u64::MAX));
        // Beyond the precision of floating point: 3 of 10 is not more than 30 %.
        assert!(!share.is_exceeded_by(3_000_000_000_000_003, 10_000_000_000_000_010));
    }
}
