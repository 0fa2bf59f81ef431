//! The commands of the `watchbook` binary and their wiring. A library, so that everything but `main` can be tested.

// Commands print their results to standard output and progress to standard error.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod cli;
mod commands;
mod demo;
mod internal_records;
mod kind_argument;
mod output;
mod process;
mod rules;
mod token;
mod workers;

use std::process::ExitCode;

use clap::Parser;

/// Exit code of a command that failed. For wrong usage clap exits with 2.
const FAILED: u8 = 1;

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("watchbook: start the async runtime: {error}");
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
