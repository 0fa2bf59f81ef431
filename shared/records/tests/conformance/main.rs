//! The conformance suite over all kinds: which row or rejection a message becomes.
//!
//! The tests do not depend on the internals of the crate. They encode messages and read the rows with a separate
//! decoder, written from the documentation of Postgres. They iterate over `Kind::ALL`, so a new kind is covered as soon
//! as it has fixtures.

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
