//! The harness of the scenario tests: a real nats-server and Postgres, a database and a stream prefix for each test,
//! and proxies that cut connections.
//!
//! A test starts with [`World::builder`] and ends with [`World::finish`], which fails if anything is left over: a
//! message without an outcome, a sum that does not add up, a consumer, a database session, a process that did not stop
//! cleanly, or a body in a log. In between it waits for conditions ([`eventually`]), never for time.
//!
//! - [`servers`]: one nats-server and one Postgres for all tests of a process, and others for tests that break them
//! - [`world`]: the database, the prefix and the settings of one test
//! - [`worker`]: `watchbook` as a real process, with its log
//! - [`account`]: the accounting of section 3 of the contract, read from the tables
//! - [`proxy`]: a connection that can be cut and frozen
//! - [`messages`]: bodies of every kind
//! - [`webhook`]: a webhook that records its calls

// Test code: a failure is reported by a panic, and output is for the developer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

pub mod account;
pub mod http;
pub mod messages;
pub mod proxy;
pub mod servers;
pub mod wait;
pub mod webhook;
pub mod worker;
pub mod world;

pub use account::Account;
pub use proxy::Proxy;
pub use wait::{BOUND, eventually};
pub use webhook::Webhook;
pub use worker::{Finished, Signal, Watchbook};
pub use world::{Builder, Load, World};
