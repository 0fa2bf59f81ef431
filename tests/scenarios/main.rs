//! Scenarios: `watchbook` as real processes, with a real nats-server and a real Postgres that are broken on purpose.
//!
//! After each scenario, `World::finish` of the harness checks that the sum of the outcomes is right (section 3 of the
//! contract), and that nothing is left over.

// Helpers of tests may panic: the panic is the report of the test.
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

/// Returns a world in which `watchbook` is the binary of this build.
fn world() -> Builder {
    World::builder(env!("CARGO_BIN_EXE_watchbook"))
}
