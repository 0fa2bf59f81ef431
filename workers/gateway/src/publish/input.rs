//! What is in a body: one record, an array of them, or one a line.

use axum::http::StatusCode;
use serde_json::value::RawValue;

use crate::problem::{Fault, Problem};

/// Records of one request at the most: ten atomic batches. Whoever has more sends them in several requests, and knows
/// of each whether it is stored.
const RECORDS: usize = 10_000;

/// The records of a body, as they stand in it.
pub(super) fn records_of(body: &[u8], is_ndjson: bool) -> Result<Vec<&[u8]>, Problem> {
    let records = match body.trim_ascii_start().first() {
        _ if is_ndjson => body.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).collect(),
        Some(b'[') => elements(body)?,
        // Whatever else it is, the decoder says better what is wrong with it.
        Some(_) => vec![body],
        None => Vec::new(),
    };
    match records.len() {
        0 => Err(bad("there is no record in it".to_owned())),
        1..=RECORDS => Ok(records),
        many => {
            let detail = format!("{many} records in one request; at most {RECORDS} are taken");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "payload-too-large", "Payload Too Large", detail))
        }
    }
}

fn elements(body: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    let elements: Vec<&RawValue> = serde_json::from_slice(body)
        .map_err(|error| bad(format!("is no JSON array: line {}, column {}", error.line(), error.column())))?;
    Ok(elements.into_iter().map(|element| element.get().as_bytes()).collect())
}

fn bad(reason: String) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "bad-body",
        "The body cannot be read",
        "expected one record, an array of records, or one a line",
    )
    .with_faults(vec![Fault::of("body", reason)], 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_one_many_or_lines() {
        let count = |body: &str, lines| {
            records_of(body.as_bytes(), lines).map(|records| records.len()).map_err(|problem| problem.status().as_u16())
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
    }
}
