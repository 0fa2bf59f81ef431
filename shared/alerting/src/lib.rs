//! Rules and their evaluation, silences, routing and wording. Pure: times are arguments.

pub mod acknowledgement;
pub mod annotation;
pub mod board;
mod configuration;
pub mod evaluation;
mod failed_when;
pub mod health;
mod judgement;
pub mod labels;
pub mod matcher;
pub mod notification;
mod rate;
pub mod receiver;
pub mod recurrence;
pub mod routing;
pub mod rule;
pub mod sample;
pub mod series;
pub mod silence;
pub mod telling;
mod units;
mod words;

pub use configuration::{Alerting, Problem, builtin_rules};
