//! The command line: arguments first, then one module for each subcommand.

mod align;
mod args;
mod bench;
mod choose;
mod classify;
mod embed;
mod generate;
mod input;
mod inputs;
mod inspect;
mod lines;
mod records;
mod results;
mod score;
#[cfg(feature = "serve")]
mod serve;
mod side_by_side;
mod states_file;
mod tokenize;

use std::ffi::OsString;
use std::process::ExitCode;

use t5_runtime::command;
use t5_runtime::command::usage;

use args::{Arguments, Command};

/// Runs the command and tells a failure. `arguments` begin with the program's name.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    command::report::<Arguments>(run(arguments))
}

fn run(mut arguments: Vec<OsString>) -> anyhow::Result<()> {
    // `t5 TEXT` is short for `t5 generate TEXT`.
    let first = arguments.get(1).and_then(|argument| argument.to_str()).unwrap_or_default();
    #[cfg(not(feature = "serve"))]
    if first == "serve" {
        return Err(usage("serve: expected a build with --features serve, which is off by default, found another"));
    }
    if !(args::COMMANDS.contains(&first) || matches!(first, "" | "-h" | "--help" | "-V" | "--version" | "help"))
        || (first.is_empty() && arguments.len() > 1)
    {
        arguments.insert(1, "generate".into());
    }
    match command::parse::<Arguments>(arguments)?.command {
        Command::Generate(args) => generate::run(&args),
        Command::Score(args) => score::run(&args),
        Command::Align(args) => align::run(&args),
        Command::Embed(args) => embed::run(&args),
        Command::Classify(args) => classify::classify(&args),
        Command::Answer(args) => classify::answer(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Bench(args) => bench::run(&args),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(&args),
    }
}
