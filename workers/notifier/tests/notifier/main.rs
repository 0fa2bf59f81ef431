//! Tests of the notifier: each receiver against the real service or its published schema, two contract suites over
//! all receivers, and deliveries from a real outbox.

// Test helpers may panic: a panic is how a test reports a failure.
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
