//! Splits a body into records: one record, an array, or JSON lines.

use std::fmt;

use axum::http::StatusCode;
use serde::Deserializer;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::form::Form;
use crate::problem::{Fault, Problem};

/// Maximum number of records in a request: ten atomic batches. Producers with more send several requests, and get a
/// result for each.
const RECORDS: usize = 10_000;

/// Returns the records of a body as slices of it. Records above the limit are counted but not kept: the slices of a
/// body of commas and digits would take eight times its size.
///
/// # Errors
/// 400 for a body without records or an invalid array, 413 for too many records.
pub(super) fn records_of<'b>(body: &'b [u8], form: &Form) -> Result<Vec<&'b [u8]>, Problem> {
    let one = || Found { records: vec![body], count: 1 };
    let found = match (form, body.trim_ascii_start().first()) {
        (Form::Lines, _) => lines(body),
        // The event is in the headers, and its data may be absent.
        (Form::Binary(_), _) => one(),
        (_, None) => Found::default(),
        (Form::Json, Some(b'[')) | (Form::Batch, _) => elements(body)?,
        // Anything else is left to the decoder, which gives a better error message.
        (Form::Json | Form::Structured, Some(_)) => one(),
    };
    match found.count {
        0 => Err(bad("contains no records".to_owned())),
        1..=RECORDS => Ok(found.records),
        many => {
            let detail = format!("{many} records in one request; at most {RECORDS} are accepted");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "payload-too-large", "Payload Too Large", detail))
        }
    }
}

/// The first [`RECORDS`] records of a body, and the number of all records.
#[derive(Debug, Default)]
struct Found<'b> {
    records: Vec<&'b [u8]>,
    count: usize,
}

fn lines(body: &[u8]) -> Found<'_> {
    let mut lines = body.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let records: Vec<_> = lines.by_ref().take(RECORDS).collect();
    Found { count: records.len() + lines.count(), records }
}

fn elements(body: &[u8]) -> Result<Found<'_>, Problem> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let found = json.deserialize_seq(Elements).and_then(|found| json.end().map(|()| found));
    found.map_err(|error| bad(format!("is not a JSON array: line {}, column {}", error.line(), error.column())))
}

/// Reads the elements of an array.
struct Elements;

impl<'b> Visitor<'b> for Elements {
    type Value = Found<'b>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of records")
    }

    fn visit_seq<A: SeqAccess<'b>>(self, mut array: A) -> Result<Found<'b>, A::Error> {
        let mut found = Found::default();
        while found.count < RECORDS
            && let Some(record) = array.next_element::<&'b RawValue>()?
        {
            found.records.push(record.get().as_bytes());
            found.count += 1;
        }
        if found.count == RECORDS {
            while array.next_element::<IgnoredAny>()?.is_some() {
                found.count += 1;
            }
        }
        Ok(found)
    }
}

fn bad(reason: String) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "bad-body",
        "The body cannot be read",
        "expected one record, an array of records, or JSON lines",
    )
    .with_faults(vec![Fault::of("body", reason)], 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_one_many_or_lines() {
        let count = |body: &str, lines| {
            let form = if lines { Form::Lines } else { Form::Json };
            records_of(body.as_bytes(), &form).map(|records| records.len()).map_err(|problem| problem.status().as_u16())
        };
        assert_eq!(count(" {\"a\":1} ", false), Ok(1));
        assert_eq!(count("[{}, {\"a\":[1]},3]", false), Ok(3));
        assert_eq!(count("{}\n\r\n {} \n", true), Ok(2));
        assert_eq!(count("nonsense", false), Ok(1));
        for (empty, lines) in
            [("", false), (" \n", false), ("[]", false), ("[{}", false), ("[{}]x", false), ("\n\n", true)]
        {
            assert_eq!(count(empty, lines), Err(400), "{empty:?}");
        }
        assert_eq!(count(&"{}\n".repeat(RECORDS), true), Ok(RECORDS));
        assert_eq!(count(&"{}\n".repeat(RECORDS + 1), true), Err(413));
        assert_eq!(count(&format!("[{}3]", "3,".repeat(RECORDS - 1)), false), Ok(RECORDS));
        assert_eq!(count(&format!("[{}3]", "3,".repeat(RECORDS)), false), Err(413));
        assert_eq!(count(&format!("[{}x]", "3,".repeat(RECORDS)), false), Err(400), "all records are parsed");
    }

    #[test]
    fn what_is_too_much_is_counted_and_not_kept() {
        let many = 3 * RECORDS;
        let (array, lines_of) = (format!("[{}3]", "3,".repeat(many - 1)), "3\n".repeat(many));
        for found in [elements(array.as_bytes()).unwrap(), lines(lines_of.as_bytes())] {
            assert_eq!((found.records.len(), found.count), (RECORDS, many));
        }
    }
}
