//! Rules and their evaluation, silences, routing, and reasons in words. Pure: times are arguments.

pub mod acknowledgement;
pub mod annotation;
mod configuration;
pub mod evaluation;
mod explain;
mod failed_when;
pub mod health;
pub mod labels;
pub mod matcher;
pub mod notification;
pub mod notification_policy;
mod rate;
pub mod receiver;
pub mod recurrence;
pub mod routing;
pub mod rule;
pub mod rule_engine;
pub mod sample;
pub mod series;
pub mod silence;
mod threshold;
mod units;

pub use configuration::{Alerting, Problem, builtin_rules};
