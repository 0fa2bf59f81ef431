//! The subcommands, one module each.

pub(crate) mod alerts;
pub(crate) mod audit;
pub(crate) mod bench;
pub(crate) mod config;
pub(crate) mod dead;
pub(crate) mod doctor;
pub(crate) mod erase;
pub(crate) mod migrate;
pub(crate) mod publish;
pub(crate) mod replay;
pub(crate) mod retention;
pub(crate) mod run;
pub(crate) mod setup;
pub(crate) mod status;
pub(crate) mod tail;
pub(crate) mod token;
pub(crate) mod up;
