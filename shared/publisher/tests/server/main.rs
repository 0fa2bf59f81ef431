//! Tests of the publisher against a real nats-server, which the tests also freeze, kill and restart.
#![cfg(test)]
#![allow(unreachable_pub, reason = "a test binary has no public API")]

mod batch;
mod buffer;
mod layer;
mod publish;
mod world;
