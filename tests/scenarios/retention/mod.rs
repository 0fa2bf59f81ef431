//! What goes when, and what stays, whoever dies meanwhile. All of it on records that are too old to be sent: they are
//! written into the tables by hand.

mod aged;
mod archives;
mod erasures;
mod exact;
mod foreign;
mod holds;
mod in_the_way;
mod judged;
mod kills;
mod long_numbers;
mod others;
mod plans;
mod schedule;
mod told;
