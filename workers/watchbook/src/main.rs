//! The binary `watchbook`.

use std::process::ExitCode;

fn main() -> ExitCode {
    watchbook::main()
}
