//! Evaluation, reasons and recurring times, tested from outside: tables, timelines and random histories.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic in a test is its report")]

mod evaluation;
mod reasons;
mod recurrence;
mod samples;
