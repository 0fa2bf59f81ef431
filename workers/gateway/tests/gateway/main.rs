//! Tests the gateway against a real nats-server and Postgres: authorization, publishing, queries and errors.

// A panic in a helper is the report of the test.
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
