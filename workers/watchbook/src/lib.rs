//! The commands of `watchbook` and what they are wired to. A library, so that `main` stays one line
//! and everything else can be tested.

// The commands speak to people and scripts on standard output and standard error.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod cli;
mod commands;
mod demo;
mod kind_argument;
mod output;
mod own_records;
mod process;
mod rules;
mod token;
mod workers;

use std::process::ExitCode;

use clap::Parser;

/// Exit code of a command that did not do what it was asked to. Wrong usage exits with 2, by clap.
const FAILED: u8 = 1;

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("watchbook: start the runtime: {error}");
            return ExitCode::from(FAILED);
        }
    };
    match runtime.block_on(arguments.run()) {
        Ok(done) => done,
        Err(error) => {
            eprintln!("watchbook: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}
