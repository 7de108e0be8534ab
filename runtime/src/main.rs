//! The `t5` command: text in, text out. Results go to stdout, everything else to stderr.

mod cli;
#[cfg(feature = "serve")]
mod serve;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(std::env::args_os().collect())
}
