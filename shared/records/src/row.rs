//! Rows in the binary format of COPY.
//!
//! The binary format spares Postgres the parsing of timestamps, UUIDs and numbers, and spares the writers the escaping.
//! It is defined in <https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS>; each type is encoded
//! as its `_recv` function in Postgres reads it.

use chrono::{DateTime, Utc};
use std::net::IpAddr;
use uuid::Uuid;

/// The bytes before the first row: signature, flags, header extension.
pub const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// The bytes after the last row.
pub const TRAILER: &[u8] = &[0xff, 0xff];

/// Microseconds from the Unix epoch to the epoch of Postgres, 2000-01-01.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Returns the values of a row in the order of its columns, `None` for NULL. A row is the number of its columns in two
/// bytes, then the length and the bytes of each value. Ends at the end of `row`.
pub fn values(row: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = row.get(2..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        // A negative length means NULL, which has no bytes.
        let (value, behind) = match usize::try_from(i32::from_be_bytes(*length)) {
            Ok(length) => behind.split_at_checked(length).map(|(value, behind)| (Some(value), behind))?,
            Err(_) => (None, behind),
        };
        rest = behind;
        Some(value)
    })
}

/// Decodes a value of [`RowWriter::optional_inet`] into the address and its prefix length in bits; `None` if it is not
/// such a value.
pub fn inet(value: &[u8]) -> Option<(IpAddr, u8)> {
    match *value {
        [2, bits, 0, 4, ref address @ ..] => Some((IpAddr::from(<[u8; 4]>::try_from(address).ok()?), bits)),
        [3, bits, 0, 16, ref address @ ..] => Some((IpAddr::from(<[u8; 16]>::try_from(address).ok()?), bits)),
        _ => None,
    }
}

/// Appends one row to a buffer, value by value. Dropping it without [`RowWriter::finish`] removes the row, so a
/// rejection in the middle of a row leaves the buffer unchanged.
#[derive(Debug)]
pub struct RowWriter<'b> {
    buffer: &'b mut Vec<u8>,
    start: usize,
    columns: u16,
    finished: bool,
}

impl<'b> RowWriter<'b> {
    /// Starts a row at the end of `buffer`.
    pub fn begin(buffer: &'b mut Vec<u8>) -> Self {
        let start = buffer.len();
        buffer.extend_from_slice(&[0, 0]);
        Self { buffer, start, columns: 0, finished: false }
    }

    /// Completes the row.
    pub fn finish(mut self) {
        let count = self.columns.to_be_bytes();
        if let Some(head) = self.buffer.get_mut(self.start..self.start + 2) {
            head.copy_from_slice(&count);
        }
        self.finished = true;
    }

    fn value(&mut self, bytes: &[u8]) {
        self.columns += 1;
        self.length(bytes.len());
        self.buffer.extend_from_slice(bytes);
    }

    /// Appends a length. A message has at most 1 MiB, so the cast does not truncate.
    fn length(&mut self, bytes: usize) {
        self.buffer.extend_from_slice(&(bytes as i32).to_be_bytes());
    }

    /// Appends NULL.
    pub fn null(&mut self) {
        self.columns += 1;
        self.buffer.extend_from_slice(&(-1i32).to_be_bytes());
    }

    fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            Some(value) => write(self, value),
            None => self.null(),
        }
    }

    /// Appends a `text`.
    pub fn text(&mut self, text: &str) {
        self.value(text.as_bytes());
    }

    /// Appends a `text` or NULL.
    pub fn optional_text(&mut self, text: Option<&str>) {
        self.optional(text, Self::text);
    }

    /// Appends a `jsonb`, from JSON text. Postgres rejects the whole COPY if the text is not valid.
    pub fn jsonb(&mut self, json: &str) {
        self.columns += 1;
        self.length(json.len() + 1);
        self.buffer.push(1); // the version of the format: the only one so far
        self.buffer.extend_from_slice(json.as_bytes());
    }

    /// Appends a `jsonb` or NULL.
    pub fn optional_jsonb(&mut self, json: Option<&str>) {
        self.optional(json, Self::jsonb);
    }

    /// Appends a `uuid`.
    pub fn uuid(&mut self, id: Uuid) {
        self.value(id.as_bytes());
    }

    /// Appends a `timestamptz`, truncated to microseconds. (Postgres would round a text.)
    pub fn timestamp(&mut self, time: DateTime<Utc>) {
        self.bigint(time.timestamp_micros() - POSTGRES_EPOCH_MICROS);
    }

    /// Appends a `bigint`.
    pub fn bigint(&mut self, number: i64) {
        self.value(&number.to_be_bytes());
    }

    /// Appends a `bigint` or NULL.
    pub fn optional_bigint(&mut self, number: Option<i64>) {
        self.optional(number, Self::bigint);
    }

    /// Appends a `double precision`.
    pub fn double(&mut self, number: f64) {
        self.value(&number.to_be_bytes());
    }

    /// Appends a `double precision` or NULL.
    pub fn optional_double(&mut self, number: Option<f64>) {
        self.optional(number, Self::double);
    }

    /// Appends a `boolean`.
    pub fn boolean(&mut self, value: bool) {
        self.value(&[u8::from(value)]);
    }

    /// Appends an `inet` or NULL, from an address and its prefix length in bits.
    pub fn optional_inet(&mut self, address: Option<(IpAddr, u8)>) {
        // Address families of utils/inet.h in Postgres: 2 is IPv4 (AF_INET), 3 is IPv6.
        self.optional(address, |row, (address, bits)| match address {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                row.value(&[2, bits, 0, 4, a, b, c, d]);
            }
            IpAddr::V6(v6) => {
                let mut value = [0; 20];
                value[..4].copy_from_slice(&[3, bits, 0, 16]);
                value[4..].copy_from_slice(&v6.octets());
                row.value(&value);
            }
        });
    }

    /// Appends a `text[]` or NULL.
    pub fn optional_text_array<S: AsRef<str>>(&mut self, items: Option<&[S]>) {
        const TEXT_OID: i32 = 25;
        self.optional(items, |row, items| {
            let bytes: usize = items.iter().map(|item| item.as_ref().len() + 4).sum();
            row.columns += 1;
            if items.is_empty() {
                row.length(12);
                for head in [0, 0, TEXT_OID] {
                    row.buffer.extend_from_slice(&head.to_be_bytes());
                }
                return;
            }
            row.length(20 + bytes);
            for head in [1, 0, TEXT_OID, items.len() as i32, 1] {
                row.buffer.extend_from_slice(&head.to_be_bytes());
            }
            for item in items {
                row.length(item.as_ref().len());
                row.buffer.extend_from_slice(item.as_ref().as_bytes());
            }
        });
    }
}

impl Drop for RowWriter<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.buffer.truncate(self.start);
        }
    }
}
