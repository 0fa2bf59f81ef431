//! Decodes rows in the binary format of COPY, written from its documentation:
//! <https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS>.
//! It shares no code with the encoder, so that both do not have the same bug.

use std::net::{Ipv4Addr, Ipv6Addr};

use chrono::{DateTime, SecondsFormat, TimeDelta};
use records::Kind;
use serde_json::{Value, json};
use uuid::Uuid;

/// A row: each column with its bytes, `None` for NULL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row(Vec<(&'static str, Option<Vec<u8>>)>);

impl Row {
    /// Returns the columns in order.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(name, _)| *name)
    }

    fn bytes(&self, column: &str) -> Option<&[u8]> {
        let found = self.0.iter().find(|(name, _)| *name == column);
        found.unwrap_or_else(|| panic!("no column {column}")).1.as_deref()
    }

    /// Returns the value of a column; times, UUIDs and addresses as text.
    pub(crate) fn get(&self, column: &str) -> Value {
        let Some(bytes) = self.bytes(column) else { return Value::Null };
        match column {
            "id" | "fingerprint" => json!(Uuid::from_slice(bytes).unwrap()),
            "created_at" | "received_at" => timestamptz(bytes),
            "attributes" | "payload" | "detail" | "metadata" => serde_json::from_str(jsonb(bytes)).unwrap(),
            "memory_usage_bytes" | "network_rx_bytes" | "network_tx_bytes" | "execution_time_ms" | "memory_used_mb"
            | "error_count" | "warning_count" => json!(i64::from_be_bytes(bytes.try_into().unwrap())),
            "cpu_usage_percent" => json!(f64::from_be_bytes(bytes.try_into().unwrap())),
            "success" | "timed_out" | "deleted" => boolean(bytes),
            "ip_address" => inet(bytes),
            "classes_found" => text_array(bytes),
            _ => json!(std::str::from_utf8(bytes).unwrap()),
        }
    }

    /// Returns whether a column is NULL.
    pub(crate) fn is_null(&self, column: &str) -> bool {
        self.bytes(column).is_none()
    }

    /// Returns the text of a `jsonb` column.
    pub(crate) fn json_text(&self, column: &str) -> &str {
        jsonb(self.bytes(column).unwrap())
    }
}

/// Decodes `bytes`, which must be exactly one row.
pub(crate) fn only_row(kind: Kind, bytes: &[u8]) -> Row {
    let mut rest = Reader(bytes);
    let count = usize::try_from(rest.i16()).unwrap();
    let names: Vec<_> = kind.columns().collect();
    assert_eq!(count, names.len(), "as many fields as {kind} has columns");
    let row = names.into_iter().map(|name| (name, rest.field())).collect();
    assert!(rest.0.is_empty(), "{} bytes behind the row", rest.0.len());
    Row(row)
}

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> &'b [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    /// Reads a length and that many bytes; the length -1 means NULL.
    fn field(&mut self) -> Option<Vec<u8>> {
        match self.i32() {
            -1 => None,
            length => Some(self.take(usize::try_from(length).unwrap()).to_vec()),
        }
    }
}

/// Decodes microseconds since 2000-01-01 00:00 UTC.
fn timestamptz(bytes: &[u8]) -> Value {
    let micros = i64::from_be_bytes(bytes.try_into().unwrap());
    let epoch = DateTime::parse_from_rfc3339("2000-01-01T00:00:00Z").unwrap().to_utc();
    json!((epoch + TimeDelta::microseconds(micros)).to_rfc3339_opts(SecondsFormat::Micros, true))
}

/// Decodes a version, which is 1, and the text.
fn jsonb(bytes: &[u8]) -> &str {
    assert_eq!(bytes.first(), Some(&1), "the version of jsonb's format");
    std::str::from_utf8(&bytes[1..]).unwrap()
}

fn boolean(bytes: &[u8]) -> Value {
    match bytes {
        [0] => json!(false),
        [1] => json!(true),
        _ => panic!("not a boolean: {bytes:?}"),
    }
}

/// Decodes the family (2 is IPv4, 3 is IPv6), bits, whether it is a cidr, the number of bytes, and the bytes.
fn inet(bytes: &[u8]) -> Value {
    match bytes {
        [2, bits @ 0..=32, 0, 4, ip @ ..] => {
            let ip: [u8; 4] = ip.try_into().unwrap();
            json!(format!("{}/{bits}", Ipv4Addr::from(ip)))
        }
        [3, bits @ 0..=128, 0, 16, ip @ ..] => {
            let ip: [u8; 16] = ip.try_into().unwrap();
            json!(format!("{}/{bits}", Ipv6Addr::from(ip)))
        }
        _ => panic!("not an inet: {bytes:?}"),
    }
}

/// Decodes the number of dimensions, whether there are NULLs, and the type of the elements; the length and the lower
/// bound of each dimension; each element as a field.
fn text_array(bytes: &[u8]) -> Value {
    let mut rest = Reader(bytes);
    let dimensions = rest.i32();
    assert_eq!((rest.i32(), rest.i32()), (0, 25), "no NULLs, elements of type text");
    let count = match dimensions {
        0 => 0,
        1 => {
            let count = rest.i32();
            assert!(count > 0, "an empty array has no dimension");
            assert_eq!(rest.i32(), 1, "arrays count from 1");
            count
        }
        _ => panic!("{dimensions} dimensions"),
    };
    let items = (0..count).map(|_| json!(String::from_utf8(rest.field().unwrap()).unwrap())).collect();
    assert!(rest.0.is_empty());
    Value::Array(items)
}
