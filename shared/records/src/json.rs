//! Checks JSON text against what `jsonb` can hold and print.
//!
//! `jsonb` stores numbers as `numeric` and prints them without exponents, so 18 KB of `1e131000` are printed as 262 MB.
//! Numbers that `numeric` cannot hold, and nesting that exhausts the server's stack, would make a whole COPY fail. Both
//! are rejected here, before the row reaches Postgres.

use crate::fields::excerpt;
use crate::limits::{JSON_BYTES, JSON_DEPTH, NUMERIC_INTEGER_DIGITS, NUMERIC_SCALE};
use crate::{Reason, Reject};

/// Checks a valid JSON text: its nesting against [`JSON_DEPTH`], its numbers against `numeric`, and its length with
/// numbers written out against [`JSON_BYTES`]. White space does not count, so Postgres prints up to one byte more for
/// each `:` and `,`.
pub(crate) fn check(name: &'static str, json: &str) -> Result<(), Reject> {
    if is_harmless(json.as_bytes()) { Ok(()) } else { scan(name, json) }
}

/// Returns whether a text passes without a scan. Only an exponent or a long text can make a number too long, and the
/// number of brackets bounds their nesting. The loops have no branches and work on bytes, so they are vectorized.
fn is_harmless(json: &[u8]) -> bool {
    /// Maximum chunk whose sum of ones fits into a byte.
    const CHUNK_BYTES: usize = 128;
    if json.len() > NUMERIC_SCALE {
        return false;
    }
    let behind = json.get(1..).unwrap_or_default();
    let is_exponent = |digit: u8, e: u8| u8::from(digit.wrapping_sub(b'0') < 10) & u8::from(e | 0x20 == b'e');
    let exponents = json.iter().zip(behind).fold(0, |found, (digit, e)| found | is_exponent(*digit, *e));
    // `[` and `{` differ by one bit, as `e` and `E` do.
    let opening = |chunk: &[u8]| chunk.iter().fold(0_u8, |count, byte| count + u8::from(byte | 0x20 == b'{'));
    let brackets: usize = json.chunks(CHUNK_BYTES).map(|chunk| usize::from(opening(chunk))).sum();
    exponents == 0 && brackets <= JSON_DEPTH
}

fn scan(name: &'static str, json: &str) -> Result<(), Reject> {
    let bytes = json.as_bytes();
    let (mut at, mut depth, mut printed) = (0, 0_usize, 0_usize);
    while let Some(&byte) = bytes.get(at) {
        let rest = bytes.get(at..).unwrap_or_default();
        let (length, prints) = match byte {
            b'"' => same(string_length(rest)),
            b'-' | b'0'..=b'9' => {
                let length = rest.iter().take_while(|byte| is_of_a_number(**byte)).count();
                let number = json.get(at..at + length).unwrap_or_default();
                (length, printed_length(number).ok_or_else(|| unholdable(name, number))?)
            }
            b' ' | b'\t' | b'\n' | b'\r' => (1, 0),
            _ => same(1),
        };
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > JSON_DEPTH {
            let detail = format!("nested deeper than {JSON_DEPTH} levels, the limit");
            return Err(Reject::field(Reason::TooLarge, name, detail));
        }
        printed += prints;
        if printed > JSON_BYTES {
            let detail = format!("more than {JSON_BYTES} bytes, the limit, with its numbers written out");
            return Err(Reject::field(Reason::TooLarge, name, detail));
        }
        at += length;
    }
    Ok(())
}

/// Returns the length read and printed of text that is printed unchanged.
fn same(length: usize) -> (usize, usize) {
    (length, length)
}

/// Returns the length of the string at the start of `text`, including its quotes.
fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', text.get(at..).unwrap_or_default()) {
        if text.get(at + found) == Some(&b'"') {
            return at + found + 1;
        }
        at += found + 2; // a backslash and the character that it escapes
    }
    text.len()
}

fn is_of_a_number(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

/// Returns how many bytes Postgres prints for a number; `None` if `numeric` cannot hold it.
fn printed_length(number: &str) -> Option<usize> {
    let (sign, number) = number.strip_prefix('-').map_or((0, number), |number| (1, number));
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    // An exponent that does not fit into 64 bits is far beyond either bound.
    let exponent: i64 = exponent.parse().ok()?;
    let scale = (fraction.len() as i64).saturating_sub(exponent).max(0);
    let zeros = integer.bytes().chain(fraction.bytes()).take_while(|digit| *digit == b'0').count();
    let integer_digits = match integer.len() + fraction.len() - zeros {
        0 => 1, // zero, with any exponent
        _ => (integer.len() as i64 - zeros as i64).saturating_add(exponent).max(1),
    };
    let scale = usize::try_from(scale).ok().filter(|scale| *scale <= NUMERIC_SCALE)?;
    let integer_digits = usize::try_from(integer_digits).ok().filter(|digits| *digits <= NUMERIC_INTEGER_DIGITS)?;
    let point = usize::from(scale > 0);
    Some(sign + integer_digits + point + scale)
}

fn unholdable(name: &'static str, number: &str) -> Reject {
    Reject::invalid(
        name,
        format!(
            "the number {} does not fit into Postgres' numeric: at most {NUMERIC_INTEGER_DIGITS} digits before \
             and {NUMERIC_SCALE} after the decimal point",
            excerpt(number)
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_long_as_postgres_prints_them() {
        // Each second value is `length('…'::jsonb::text)` in Postgres 15; `None` if `numeric` refuses the number.
        for (number, printed) in [
            ("0", Some(1)),
            ("-0.0", Some(4)),
            ("12.50", Some(5)),
            ("1e3", Some(4)),
            ("-1E+3", Some(5)),
            ("1.5e-3", Some(6)),
            ("150e-1", Some(4)),
            ("0.001e3", Some(1)),
            ("1e131071", Some(131_072)),
            ("9e131071", Some(131_072)),
            ("0.001e131074", Some(131_072)),
            ("1e131072", None),
            ("123e131070", None),
            ("1e-16383", Some(16_385)),
            ("1e-16384", None),
            ("1.5e-16383", None),
            ("0e200000", Some(1)),
            ("0e-200000", None),
            ("1e99999999", None),
            ("1e999999999999999999999", None),
            ("1e-999999999999999999999", None),
            ("1e9223372036854775807", None),
            ("1e-9223372036854775807", None),
        ] {
            assert_eq!(printed_length(number), printed, "{number}");
        }
    }

    fn refused(json: &str) -> Option<Reason> {
        check("payload", json).err().map(|reject| reject.reason)
    }

    #[test]
    fn numbers_that_numeric_cannot_hold_are_invalid() {
        let digits = "9".repeat(200_000);
        for number in ["1e200000", "-1e200000", "1e-20000", &digits, &format!("0.{digits}")] {
            assert_eq!(refused(&format!(r#"{{"a":[1,{number}]}}"#)), Some(Reason::InvalidField), "{number:.10}");
        }
        for json in [r#"{"a":1e400}"#, r#"{"1e200000":"1e200000"}"#, r#"{"a":"\"1e200000"}"#, r#"{"a":1e-400}"#] {
            assert_eq!(refused(json), None, "{json}");
        }
    }

    #[test]
    fn what_numbers_expand_to_is_bounded() {
        let times = |count: usize, number: &str| format!("{{\"a\":[{}]}}", vec![number; count].join(","));
        assert_eq!(refused(&times(2, "1e131000")), None);
        assert_eq!(refused(&times(3, "1e131000")), Some(Reason::TooLarge));
        assert_eq!(refused(&times(2_000, "1e131000")), Some(Reason::TooLarge));
        assert_eq!(refused(&times(15, "1e-16383")), None);
        assert_eq!(refused(&times(16, "1e-16383")), Some(Reason::TooLarge));
    }

    #[test]
    fn a_text_at_the_limit_stays_within_it() {
        for spaced in ["", " "] {
            let frame = format!("{{{spaced}\"k\":\"\"}}");
            let json = format!("{{{spaced}\"k\":\"{}\"}}", "1e5".repeat((JSON_BYTES - frame.len()) / 3));
            assert_eq!(refused(&json), None);
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let lists = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let objects = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        for nested in [lists, objects] {
            assert_eq!(refused(&nested(JSON_DEPTH)), None);
            assert_eq!(refused(&nested(JSON_DEPTH + 1)), Some(Reason::TooLarge));
            assert_eq!(refused(&nested(100_000)), Some(Reason::TooLarge));
        }
        // Many brackets next to each other, or within a string, are not nested.
        assert_eq!(refused(&format!("[{}1]", "[],".repeat(2 * JSON_DEPTH))), None);
        assert_eq!(refused(&format!("[\"{}\"]", "[".repeat(2 * JSON_DEPTH))), None);
    }
}
