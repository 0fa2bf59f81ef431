//! What nobody may guess.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result};

/// 24 bytes are as hard to guess as any key; in hexadecimal they need no escaping anywhere.
const SECRET_BYTES: usize = 24;

/// A new secret from the system's source of randomness.
pub(crate) fn generate() -> Result<String> {
    let mut bytes = [0_u8; SECRET_BYTES];
    let mut source = File::open("/dev/urandom").context("cannot open /dev/urandom")?;
    source.read_exact(&mut bytes).context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
