//! The command line: arguments first, then one module for each subcommand.

mod align;
mod args;
mod bench;
mod choose;
mod classify;
mod embed;
mod first;
mod generate;
mod input;
mod inputs;
mod inspect;
mod lines;
mod papers;
mod prompt;
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
use first::First;

/// Runs the command and tells a failure. `arguments` begin with the program's name.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    command::report::<Arguments>(run(arguments))
}

fn run(arguments: Vec<OsString>) -> anyhow::Result<()> {
    #[cfg(not(feature = "serve"))]
    if arguments.get(1).is_some_and(|first| first == "serve") {
        return Err(usage("serve: expected a build with --features serve, which is off by default, found another"));
    }
    let arguments = match first::what(arguments)? {
        First::Prompt => return prompt::run(),
        First::Command(arguments) => arguments,
    };
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
        Command::Completions { shell } => papers::completions(shell),
        Command::Man { folder } => papers::man(&folder),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(&args),
    }
}
