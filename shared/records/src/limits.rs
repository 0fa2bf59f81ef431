//! Every bound of the wire contract, in bytes unless the name says otherwise.

/// Ids and types: what is indexed and grouped by. Well below the 2704 bytes that a btree entry holds.
pub const ID_BYTES: usize = 256;
/// Any other text: names, reasons, messages.
pub const TEXT_BYTES: usize = 4 * 1024;
/// A stack trace; deep ones of managed runtimes reach tens of KiB.
pub const STACK_BYTES: usize = 64 * 1024;
/// A JSON column as it was sent, whitespace included, and also with its numbers written out as Postgres prints them.
pub const JSON_BYTES: usize = 256 * 1024;
/// Levels of objects and lists within a JSON column. Postgres 15 parses them recursively, and refuses some tens of
/// thousands with the default `max_stack_depth` of 2 MB; readers of JSON commonly refuse far fewer.
pub const JSON_DEPTH: usize = 1_000;
/// Digits before the decimal point that `numeric` holds, and so a number in `jsonb`
/// (<https://www.postgresql.org/docs/current/datatype-numeric.html>).
pub const NUMERIC_INTEGER_DIGITS: usize = 131_072;
/// Digits behind the decimal point that `numeric` holds.
pub const NUMERIC_SCALE: usize = 16_383;
/// A container's log line; a longer one is cut, because a log line is never worth refusing.
pub const LOG_LINE_BYTES: usize = 16 * 1024;
/// A whole message, compressed or not. The default `max_payload` of a NATS server, so nothing larger arrives anyway.
pub const MESSAGE_BYTES: usize = 1024 * 1024;
/// Codings of one body, such as `gzip`: two, because each may unpack to a whole message.
pub const CONTENT_CODINGS: usize = 2;
/// The window that a zstd body may ask for, as a power of two: the 8 MiB that every decoder of the coding supports
/// (RFC 9659, section 3).
pub const ZSTD_WINDOW_LOG: u32 = 23;
/// Elements of a text list such as `classes_found`.
pub const LIST_ITEMS: usize = 4096;
/// An organization in a subject.
pub const ORGANIZATION_BYTES: usize = 64;
/// How far ahead of the stream's clock a producer's may be, in seconds: a day covers a wrong zone.
pub const AHEAD_SECONDS: i64 = 24 * 60 * 60;
