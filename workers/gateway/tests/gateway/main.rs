//! The gateway against a real nats-server and Postgres: who gets through, what is published, and how errors look.

// A test's helpers are its words: a panic in one of them is the test's report.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod actions;
mod audit;
mod document;
mod forms;
mod isolation;
mod issuer;
mod keys;
mod live;
mod log;
mod problems;
mod publishing;
mod queries;
mod responses;
mod resuming;
mod sample_rows;
mod server;
mod sessions;
mod test_gateway;
mod tokens;
mod watcher;
