//! Formats numbers and times for people.

use std::fmt::Write;

use bytesize::ByteSize;
use chrono::{DateTime, TimeDelta, Utc};

/// Formats `part` of `whole` in percent, with at most one decimal.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    let (part, whole) = (u128::from(part), u128::from(whole.max(1)));
    let tenths = (part * 2_000 + whole) / (2 * whole);
    if tenths.is_multiple_of(10) { format!("{} %", tenths / 10) } else { format!("{}.{} %", tenths / 10, tenths % 10) }
}

/// Formats a ratio between 0 and 1 in percent.
pub(crate) fn percent_of(share: f64) -> String {
    format!("{} %", number(share * 100.0))
}

/// Formats a number with at most one decimal.
pub(crate) fn number(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// Formats a level with the unit from its field's name.
pub(crate) fn measured(field: &str, level: f64) -> String {
    if field.ends_with("_bytes") && level >= 1024.0 {
        return ByteSize::b(level as u64).display().iec().to_string();
    }
    if field.ends_with("_percent") { format!("{} %", number(level)) } else { number(level) }
}

/// Formats a duration in its two largest units: `1 h 30 min`.
pub(crate) fn duration(duration: TimeDelta) -> String {
    let mut rest = duration.num_seconds().max(0);
    let mut words = String::new();
    let mut units = 0;
    for (unit, seconds) in [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)] {
        let count = rest / seconds;
        rest %= seconds;
        if count > 0 && units < 2 {
            let space = if units > 0 { " " } else { "" };
            // Writing to a String cannot fail.
            let _ = write!(words, "{space}{count} {unit}");
        }
        units += i32::from(count > 0 || units > 0);
    }
    match (words.is_empty(), duration.num_milliseconds()) {
        (true, ms) if ms > 0 => format!("{ms} ms"),
        (true, _) => "0 s".to_owned(),
        (false, _) => words,
    }
}

/// Formats a time in UTC, without the date if it is today.
pub(crate) fn clock(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    if at.date_naive() == now.date_naive() { at.format("%H:%M:%S").to_string() } else { date(at) }
}

/// Formats a time in UTC with its date.
pub(crate) fn date(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_have_one_decimal_at_the_most() {
        for (part, whole, words) in [
            (4, 9, "44.4 %"),
            (31, 101, "30.7 %"),
            (20, 100, "20 %"),
            (1, 3, "33.3 %"),
            (2, 3, "66.7 %"),
            (1, 10_000, "0 %"),
            (60, 12, "500 %"),
            (u64::MAX, u64::MAX, "100 %"),
        ] {
            assert_eq!(percent(part, whole), words);
        }
        assert_eq!((percent_of(0.1888), percent_of(0.5)), ("18.9 %".to_owned(), "50 %".to_owned()));
    }

    #[test]
    fn times_are_said_in_their_two_largest_units() {
        for (seconds, words) in [
            (0, "0 s"),
            (30, "30 s"),
            (60, "1 min"),
            (61, "1 min 1 s"),
            (3_600, "1 h"),
            (3_601, "1 h"),
            (5_400, "1 h 30 min"),
            (86_400, "1 d"),
            (90_061, "1 d 1 h"),
            (604_800, "7 d"),
            (-5, "0 s"),
        ] {
            assert_eq!(duration(TimeDelta::seconds(seconds)), words, "{seconds}");
        }
        assert_eq!(duration(TimeDelta::milliseconds(250)), "250 ms");
    }

    #[test]
    fn levels_are_said_in_their_unit() {
        for (field, level, words) in [
            ("cpu_usage_percent", 93.25, "93.2 %"),
            ("memory_usage_bytes", 512.0, "512"),
            ("memory_usage_bytes", 1_610_612_736.0, "1.5 GiB"),
            ("other", 1.0, "1"),
        ] {
            assert_eq!(measured(field, level), words);
        }
    }
}
