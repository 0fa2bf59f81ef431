//! JetStream for consumers: connection, streams, reading in order, trimming.
//!
//! The only crate that reads from NATS. It knows nothing of Postgres: what is settled is a fact there,
//! and whoever reads here says from where.

mod connect;
mod reader;
mod stream;
mod topology;

pub use connect::{Bus, ConnectError, OLDEST_SERVER};
pub use reader::{Delivery, Lost, Read, Reader, Window};
pub use stream::{BusError, StreamState};
pub use topology::{Difference, Ensured};
