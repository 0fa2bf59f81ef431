//! What retention removes and keeps, even if processes die meanwhile. The records are too old to be published, so the
//! tests insert them into the tables.

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
