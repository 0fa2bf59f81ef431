//! The notifier: each receiver against the real thing or its published schema, two contract suites over all of them,
//! and deliveries from a real outbox.

// A test's helpers are its words: a panic in one of them is the test's report.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod alertmanager;
mod deliveries;
mod email;
mod faults;
mod nats;
mod schemas;
mod secrets;
mod statuses;
mod stub;
mod table;
mod webhook;
