//! What goes when, and what stays, whoever dies meanwhile. All of it on records that are too old to be sent: they are
//! written into the tables by hand.

mod archives;
mod changed_plans;
mod concurrent_access;
mod contention;
mod erasures;
mod exact;
mod fixtures;
mod foreign;
mod holds;
mod kills;
mod long_numbers;
mod plans;
mod schedule;
mod self_audit;
