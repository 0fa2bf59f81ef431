//! Free ports.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result};

/// How many ports to try when somebody else takes the chosen one between our looking and the server's binding. It
/// happens once in thousands of starts; five in a row is something else.
pub(crate) const PORT_ATTEMPTS: u32 = 5;

/// A port of the loopback address that is free now, chosen by the system.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot bind any port of 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}
