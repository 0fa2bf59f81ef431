//! Benchmarks: the figures of the README, on your machine.
//!
//! Each run measures the limit in the same breath as the product, on a stack of its own, so that a
//! slow machine makes both slow and the ratio holds.

mod copy_limit;
mod latency;
mod pipeline;
mod sample;
mod stack;
mod worker;

pub(crate) use pipeline::Pipeline;
