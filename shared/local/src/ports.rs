//! Free ports.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result};

/// Number of ports to try if another program takes the chosen port before the server binds it. This happens once in
/// thousands of starts; five in a row have another cause.
pub(crate) const PORT_ATTEMPTS: u32 = 5;

/// Returns a free port of the loopback address, chosen by the system.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot bind any port of 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}
