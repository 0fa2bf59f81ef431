//! One conformance suite over all kinds: what a message means, told by its row or its refusal.
//!
//! Nothing here knows how the crate works inside: bodies go in, and rows are read back by a decoder
//! of their own, written from the documentation of Postgres. Tests go through `Kind::ALL`, so
//! another kind is covered as soon as it has fixtures.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic in a test is its report")]

mod attributes;
mod bodies;
mod cloudevents;
mod dead_letters;
mod fields;
mod fixtures;
mod identity;
mod kinds;
mod limits;
mod organizations;
mod properties;
mod sanitizing;
mod schemas;
mod support;
mod times;
