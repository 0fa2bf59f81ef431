//! Every bound of the wire contract, in bytes unless the name says otherwise.

/// Ids and types: what is indexed and grouped by. Well below the 2704 bytes that a btree entry holds.
pub const ID_BYTES: usize = 256;
/// Any other text: names, reasons, messages.
pub const TEXT_BYTES: usize = 4 * 1024;
/// A stack trace; deep ones of managed runtimes reach tens of KiB.
pub const STACK_BYTES: usize = 64 * 1024;
/// A JSON column as it was sent, whitespace included.
pub const JSON_BYTES: usize = 256 * 1024;
/// A container's log line; a longer one is cut, because a log line is never worth refusing.
pub const LOG_LINE_BYTES: usize = 16 * 1024;
/// A whole message. The default `max_payload` of a NATS server, so nothing larger arrives anyway.
pub const MESSAGE_BYTES: usize = 1024 * 1024;
/// Elements of a text list such as `classes_found`.
pub const LIST_ITEMS: usize = 4096;
/// An organization in a subject.
pub const ORGANIZATION_BYTES: usize = 64;
/// How far ahead of the stream's clock a producer's may be, in seconds: a day covers a wrong zone.
pub const AHEAD_SECONDS: i64 = 24 * 60 * 60;
