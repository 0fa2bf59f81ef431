//! Parses times.
//!
//! The format is RFC 3339. Variants that many libraries print are accepted too: offsets without a colon or without
//! minutes, a space before the offset, `UTC`, a comma before the fraction. Times without an offset and numbers are
//! rejected, because their offset or unit would be a guess.

use chrono::{DateTime, Timelike, Utc};

/// Maximum length of a time. The longest accepted format with nine digits of fraction has 36 bytes.
const TIME_BYTES: usize = 64;
/// Length of `YYYY-MM-DD`.
const DATE_BYTES: usize = 10;

/// Parses a time and truncates it to microseconds. A leap second becomes the start of the next second.
pub(crate) fn parse(text: &str) -> Option<DateTime<Utc>> {
    let parsed = DateTime::parse_from_rfc3339(text).or_else(|error| match as_rfc_3339(text) {
        Some(text) => DateTime::parse_from_rfc3339(&text),
        None => Err(error),
    });
    let time = parsed.ok()?.to_utc();
    (!is_leap_second(time) || (time.hour(), time.minute()) == (23, 59)).then(|| whole_microseconds(time))
}

/// Truncates a time to microseconds, the precision of Postgres.
pub(crate) fn whole_microseconds(time: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(time.timestamp_micros()).unwrap_or(time)
}

/// Returns the end of an error message: what is missing in a JSON value that is not a time.
pub(crate) fn advice(json: &str) -> &'static str {
    let is_number = json.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    let is_local = json
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .is_some_and(|text| text.len() <= TIME_BYTES && parse(&format!("{text}Z")).is_some());
    match (is_number, is_local) {
        (true, _) => ", a number without a unit",
        (_, true) => ", which has no offset: append Z for UTC or one such as +01:00",
        _ => "",
    }
}

/// Returns whether a time is in a leap second. chrono represents second 60 as second 59 with at least 10^9 nanoseconds,
/// and accepts it in any minute. Leap seconds are only inserted at 23:59:60 UTC (ITU-R TF.460).
fn is_leap_second(time: DateTime<Utc>) -> bool {
    time.nanosecond() >= 1_000_000_000
}

/// Converts an accepted variant to RFC 3339.
fn as_rfc_3339(text: &str) -> Option<String> {
    let text = text.trim();
    let (date, rest) = text.split_at_checked(DATE_BYTES).filter(|_| text.len() <= TIME_BYTES)?;
    let utc = ["Z", "z", "UTC", "GMT"].iter().find_map(|zone| rest.strip_suffix(zone));
    let (clock, offset) = match utc {
        Some(clock) => (clock, "Z".to_owned()),
        None => {
            let (clock, offset) = rest.split_at_checked(rest.rfind(['+', '-'])?)?;
            let (sign, digits) = offset.split_at_checked(1)?;
            let (hours, minutes) = match digits.len() {
                2 => (digits, "00"),
                4 => digits.split_at_checked(2)?,
                _ => digits.split_once(':')?,
            };
            (clock, format!("{sign}{hours}:{minutes}"))
        }
    };
    Some(format!("{date}{}{offset}", clock.trim_end().replace(',', ".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_769_860_800_000_000;

    #[test]
    fn an_instant_is_read_however_it_is_written() {
        for text in [
            "2026-01-31T12:00:00Z",
            "2026-01-31t12:00:00z",
            "2026-01-31T12:00:00z",
            "2026-01-31 12:00:00Z",
            "2026-01-31T12:00:00+00:00",
            "2026-01-31T12:00:00-00:00",
            "2026-01-31T12:00:00+0000",
            "2026-01-31T12:00:00.000+0000",
            "2026-01-31T13:30:00+0130",
            "2026-01-31T07:00:00-0500",
            "2026-01-31 12:00:00+00",
            "2026-01-31 12:00:00.000000+00",
            "2026-01-31 12:00:00 +0000",
            "2026-01-31 12:00:00 UTC",
            "2026-01-31 12:00:00 Z",
            "2026-01-31T12:00:00,000Z",
            " 2026-01-31T12:00:00Z\n",
        ] {
            assert_eq!(parse(text).map(|time| time.timestamp_micros()), Some(NOON), "{text}");
        }
        assert_eq!(parse("2026-01-31T13:00:00.1234569+0100").map(|time| time.timestamp_micros()), Some(NOON + 123_456));
    }

    #[test]
    fn nothing_is_guessed() {
        for text in [
            "",
            "2026-01-31",
            "2026-01-31T12:00:00",
            "2026-01-31 12:00:00,123",
            "2026-01-31T12:00Z",
            "2026-02-30T12:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T12:00:00+1",
            "2026-01-31T12:00:00+01:0",
            "2026-01-31T12:00:00+ab",
            "2026-01-31T12:00:00+ab:cd",
            "2026-01-31T12:00:00 CET",
            "2026-01-31T12:00:00+",
            "31.01.2026 12:00:00Z",
            "1769860800",
            "2026-01-3\u{e9}T12:00:00+0000",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(&format!("2026-01-31T12:00:00.{}+0000", "0".repeat(TIME_BYTES))), None);
    }

    #[test]
    fn a_leap_second_stands_at_the_end_of_a_day_in_utc() {
        let new_year = Some(1_483_228_800_000_000);
        for (text, micros) in [
            ("2016-12-31T23:59:60Z", new_year),
            ("2017-01-01T00:59:60+01:00", new_year),
            ("2016-12-31T18:59:60-0500", new_year),
            ("2017-01-01T05:29:60+05:30", new_year),
            ("2016-12-31T23:59:60.5Z", Some(1_483_228_800_500_000)),
            ("2016-12-31T12:00:60Z", None),
            ("2016-12-31T23:58:60Z", None),
            ("2016-12-31T23:59:60+01:00", None),
            ("2016-12-31T23:59:61Z", None),
        ] {
            assert_eq!(parse(text).map(|time| time.timestamp_micros()), micros, "{text}");
        }
    }

    #[test]
    fn advice_names_what_is_missing() {
        for (json, part) in [
            ("1769860800", "a number"),
            ("-1.5", "a number"),
            (r#""2026-01-31T12:00:00""#, "no offset"),
            (r#""2026-01-31 12:00:00.5""#, "no offset"),
        ] {
            assert!(advice(json).contains(part), "{json}");
        }
        for json in ["{}", r#""yesterday""#, "true"] {
            assert_eq!(advice(json), "", "{json}");
        }
    }
}
