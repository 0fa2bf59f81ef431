//! Random secrets.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result};

/// Length of a secret. 24 random bytes cannot be guessed, and in hexadecimal they never need escaping.
const SECRET_BYTES: usize = 24;

/// Generates a secret from the random source of the system.
pub(crate) fn generate() -> Result<String> {
    let mut bytes = [0_u8; SECRET_BYTES];
    let mut source = File::open("/dev/urandom").context("cannot open /dev/urandom")?;
    source.read_exact(&mut bytes).context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
