//! The publisher against a real nats-server, which the tests also freeze, kill and start again.
#![cfg(test)]
#![allow(unreachable_pub, reason = "a test is nobody's library")]

mod batch;
mod buffer;
mod layer;
mod publish;
mod world;
