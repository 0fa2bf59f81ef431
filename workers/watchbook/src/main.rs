//! The `watchbook` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    watchbook::main()
}
