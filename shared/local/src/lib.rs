//! Finds or fetches nats-server and Postgres and runs them as child processes, for the local stack and the tests.
//!
//! [`Programs::locate`] finds the programs, [`NatsServer`] and [`PostgresServer`] run them, and [`DirLock`] keeps a
//! second process from using the same directory. The children die with the process that started them, even if it is
//! killed.

mod advice;
mod child;
mod cluster;
mod files;
mod lock;
mod log;
mod machine;
mod nats;
mod packages;
mod ports;
mod postgres;
mod programs;
mod run;
mod secret;
mod server;
mod slot;
mod sys;
mod user;
mod version;

pub use lock::{DirLock, LockError};
pub use nats::{DEFAULT_MAX_FILE_STORE, NatsOptions, NatsServer};
pub use postgres::{PostgresOptions, PostgresServer};
pub use programs::{Programs, ProgressCallback, RequiredPrograms, cache_dir};
pub use server::Stopped;
pub use sys::bind_to_starter;
