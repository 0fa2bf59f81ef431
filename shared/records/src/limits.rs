//! The limits of the wire contract. Lengths of text are in bytes of UTF-8, not in characters.

/// Maximum length of ids and types, which are indexed and grouped by. Well below the 2704 bytes of a btree entry.
pub const ID_BYTES: usize = 256;
/// Maximum length of other text: names, reasons, messages.
pub const TEXT_BYTES: usize = 4 * 1024;
/// Maximum length of a stack trace. Deep ones of managed runtimes reach tens of KiB.
pub const STACK_BYTES: usize = 64 * 1024;
/// Maximum length of a JSON column: as it was sent, including white space, and also with its numbers written out as
/// Postgres prints them.
pub const JSON_BYTES: usize = 256 * 1024;
/// Maximum nesting of objects and lists in a JSON column. Postgres 15 parses them recursively, and with the default
/// `max_stack_depth` of 2 MB refuses some tens of thousands of levels. JSON parsers commonly refuse far fewer.
pub const JSON_DEPTH: usize = 1_000;
/// Maximum digits before the decimal point of a `numeric`, and so of a number in `jsonb`
/// (<https://www.postgresql.org/docs/current/datatype-numeric.html>).
pub const NUMERIC_INTEGER_DIGITS: usize = 131_072;
/// Maximum digits after the decimal point of a `numeric`.
pub const NUMERIC_SCALE: usize = 16_383;
/// Maximum length of a log line. A longer line is cut rather than rejected.
pub const LOG_LINE_BYTES: usize = 16 * 1024;
/// Maximum size of a body, both compressed and decompressed. It is the default `max_payload` of nats-server, so larger
/// messages do not arrive anyway.
pub const MESSAGE_BYTES: usize = 1024 * 1024;
/// Maximum number of content codings of a body, such as `gzip`. Each may decompress to [`MESSAGE_BYTES`].
pub const CONTENT_CODINGS: usize = 2;
/// Maximum window of a zstd body, as a power of two: 8 MiB, which every decoder of the coding supports (RFC 9659,
/// section 3). A decoder allocates what the header of a frame requests, however small the frame is.
pub const ZSTD_WINDOW_LOG: u32 = 23;
/// Maximum number of elements of a text list such as `classes_found`.
pub const LIST_ITEMS: usize = 4096;
/// Maximum length of an organization in a subject.
pub const ORGANIZATION_BYTES: usize = 64;
/// How far `created_at` may be ahead of the stream's clock, in seconds. A day covers a wrong time zone.
pub const AHEAD_SECONDS: i64 = 24 * 60 * 60;
