//! JetStream for consumers: connection, streams, reading in order, purging.
//!
//! This is the only crate that reads from NATS. It knows nothing of Postgres, which holds the positions: the caller
//! passes the sequence from which to read.

mod announce;
mod connect;
mod reader;
mod services;
mod settings;
mod signals;
mod stream;
mod topology;

pub use announce::{AnnounceError, Announcement};
pub use connect::{Bus, ConnectError, OLDEST_SERVER};
pub use reader::{Delivery, Lost, Read, Reader, Window, headers};
pub use settings::{Difference, Mend};
pub use signals::Signals;
pub use stream::{BusError, StreamState};
pub use topology::Ensured;
