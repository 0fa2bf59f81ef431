//! Times as people type them, in command options and query strings.

use std::str::FromStr;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};

/// The longest relative time: a century. That is before every record, and still within chrono's range.
const LONGEST_AGO: TimeDelta = TimeDelta::days(36_525);

/// A point in time: a time of RFC 3339, a date for its midnight in UTC, or a time before now such as `-24h`.
///
/// [`When::at`] resolves a relative time. If a request has several, resolve all of them with the same `now`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// An absolute time.
    At(DateTime<Utc>),
    /// A duration before now; at most a century.
    Ago(TimeDelta),
}

/// The error for a text that is not a point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotATime;

impl std::fmt::Display for NotATime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "expected a time such as 2026-06-15T12:00:00Z, a date such as 2026-06-15 (midnight UTC), or a time before \
             now such as -30m, -24h or -7d",
        )
    }
}

impl std::error::Error for NotATime {}

impl When {
    /// Returns the absolute time, relative to `now`.
    pub fn at(self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::At(moment) => moment,
            Self::Ago(ago) => now.checked_sub_signed(ago).unwrap_or(DateTime::<Utc>::MIN_UTC),
        }
    }
}

impl FromStr for When {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        if let Some(ago) = text.strip_prefix('-') {
            return length(ago).filter(|ago| *ago <= LONGEST_AGO).map(Self::Ago).ok_or(NotATime);
        }
        if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self::At(moment.to_utc()));
        }
        date(text).map(|date| Self::At(date.and_time(NaiveTime::MIN).and_utc())).ok_or(NotATime)
    }
}

/// Parses a date as `YYYY-MM-DD`. chrono's own parser also accepts signs, blanks and single digits.
fn date(text: &str) -> Option<NaiveDate> {
    let is_date = text.len() == 10
        && text.bytes().enumerate().all(|(at, b)| if matches!(at, 4 | 7) { b == b'-' } else { b.is_ascii_digit() });
    if is_date { NaiveDate::parse_from_str(text, "%Y-%m-%d").ok() } else { None }
}

/// Parses a duration: a whole number with a unit, such as `60s`, `5m`, `1h` or `7d`. At most nine digits are accepted,
/// because more days than that exceed chrono's range.
pub fn length(text: &str) -> Option<TimeDelta> {
    let unit = text.chars().next_back()?;
    let digits = text.strip_suffix(unit)?;
    let is_number = (1..=9).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
    let count: i64 = is_number.then(|| digits.parse().ok()).flatten()?;
    match unit {
        's' => TimeDelta::try_seconds(count),
        'm' => TimeDelta::try_minutes(count),
        'h' => TimeDelta::try_hours(count),
        'd' => TimeDelta::try_days(count),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_absolute_a_date_or_relative() {
        let now: DateTime<Utc> = "2026-06-15T12:00:00Z".parse().unwrap();
        for (text, moment) in [
            ("2026-06-15T12:00:00Z", "2026-06-15T12:00:00Z"),
            ("2026-06-15T12:00:00.000001+02:00", "2026-06-15T10:00:00.000001Z"),
            ("2026-06-15", "2026-06-15T00:00:00Z"),
            ("2024-02-29", "2024-02-29T00:00:00Z"),
            ("-24h", "2026-06-14T12:00:00Z"),
            ("-7d", "2026-06-08T12:00:00Z"),
            ("-30m", "2026-06-15T11:30:00Z"),
            ("-0s", "2026-06-15T12:00:00Z"),
            ("-36525d", "1926-06-15T12:00:00Z"),
        ] {
            let moment: DateTime<Utc> = moment.parse().unwrap();
            assert_eq!(text.parse::<When>().map(|when| when.at(now)), Ok(moment), "{text}");
        }
        for wrong in [
            "",
            "-",
            "24h",
            "+24h",
            "-24",
            "--24h",
            "-1.5h",
            "-24H",
            "-1w",
            "-1h30m",
            "- 24h",
            "-36526d",
            "-999999999d",
            "-9999999999s",
            "now",
            "yesterday",
            "2026-02-30",
            "2025-02-29",
            "2026-6-15",
            "2026-06-15Z",
            "2026-06-15T",
            "2026-06-15T12:00",
            "2026-06-15T12:00:00",
            "+2026-06-15",
            "-2026-06-15",
            " 2026-06-15",
            "20260615",
            "2026/06/15",
            "٢٠٢٦-٠٦-١٥",
            "1781524800",
        ] {
            assert_eq!(wrong.parse::<When>(), Err(NotATime), "{wrong}");
        }
    }

    #[test]
    fn lengths_have_a_unit() {
        for (text, seconds) in [("60s", 60), ("5m", 300), ("1h", 3_600), ("7d", 604_800), ("0s", 0)] {
            assert_eq!(length(text), Some(TimeDelta::seconds(seconds)), "{text}");
        }
        for wrong in ["", "s", "5", "5 m", "-5m", "+5m", "1.5h", "5M", "5min", "1h30m", "9999999999d", "5ß", "٥m"] {
            assert_eq!(length(wrong), None, "{wrong}");
        }
    }
}
