//! For the scenario tests: a real nats-server and Postgres, a database and stream prefix a test, a proxy to cut links.
//!
//! A test begins with [`World::builder`] and ends with [`World::finish`], which fails it where anything is left over:
//! a message without an outcome, a sum that does not add up, a consumer, a database session, a process that did not
//! stop cleanly, or a body in a log. In between it waits for conditions ([`eventually`]), never for time.
//!
//! - [`servers`]: one nats-server and one Postgres for all tests of a process, and more for those that break them
//! - [`world`]: a database, a prefix and the settings of one test
//! - [`worker`]: `watchbook` as a real process, with its log
//! - [`account`]: section 3 of the contract, asked of the tables and not of our own code
//! - [`proxy`]: a link that can be cut and frozen
//! - [`messages`]: bodies of every kind
//! - [`webhook`]: a webhook that notes how it was called

// Not a library that anybody ships: a panic here is how a test reports, and its output is for the person who reads it.
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
