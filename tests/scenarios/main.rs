//! Scenarios: `watchbook` as real processes against a real nats-server and Postgres, which are broken on purpose.
//!
//! After each of them the accounting of section 3 of the contract holds, and nothing is left over; the harness sees to
//! both in `World::finish`.

// A test's helpers are its words: a panic in one of them is the test's report.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod alerts;
mod batches;
mod bodies;
mod commands;
mod crashes;
mod dead_letters;
mod demo;
mod directory;
mod duplicates;
mod exports;
mod gateway;
mod leaf_nodes;
mod leftovers;
mod levels;
mod log_volumes;
mod long_numbers;
mod metrics;
mod micro;
mod mistakes;
mod nats_clusters;
mod nats_outages;
mod poison;
mod postgres_outages;
mod queries;
mod replays;
mod retention;
mod rollups;
mod secrets;
mod shutdown;
mod trimming;
mod writers;

use harness::{Builder, World};

/// A world in which `watchbook` is the binary of this build.
fn world() -> Builder {
    World::builder(env!("CARGO_BIN_EXE_watchbook"))
}
