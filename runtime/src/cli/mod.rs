//! The command line: arguments first, then one module for each subcommand.

mod args;
mod bench;
mod embed;
mod generate;
mod input;
mod inspect;
mod score;
mod tokenize;

use std::ffi::OsString;

use clap::Parser;

use args::{Arguments, Command};

/// A request that cannot be understood: exit code 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A usage error as `anyhow::Error`.
pub fn usage(what: impl Into<String>) -> anyhow::Error {
    Usage(what.into()).into()
}

/// Runs the command. `arguments` begin with the program's name.
pub fn run(mut arguments: Vec<OsString>) -> anyhow::Result<()> {
    // `t5 TEXT` is short for `t5 generate TEXT`.
    let first = arguments.get(1).and_then(|argument| argument.to_str()).unwrap_or_default();
    if !(args::COMMANDS.contains(&first) || matches!(first, "" | "-h" | "--help" | "-V" | "--version" | "help"))
        || (first.is_empty() && arguments.len() > 1)
    {
        arguments.insert(1, "generate".into());
    }
    let parsed = match Arguments::try_parse_from(arguments) {
        Ok(parsed) => parsed,
        Err(error) if !error.use_stderr() => {
            print!("{error}");
            return Ok(());
        }
        Err(error) => return Err(usage(shorten(&error.to_string()))),
    };
    match parsed.command {
        Command::Generate(args) => generate::run(&args),
        Command::Score(args) => score::run(&args),
        Command::Embed(args) => embed::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Bench(args) => bench::run(&args),
    }
}

/// The part of the argument parser's message that says what is wrong, on one line.
fn shorten(message: &str) -> String {
    let after = |line: &str| ["Usage:", "For more", "  tip:"].iter().any(|start| line.starts_with(start));
    let wrong = message.lines().take_while(|line| !after(line));
    let line = wrong.map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

/// An error with its causes, on one line.
pub fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether the reader of our output went away (`t5 … | head`), which is no failure.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}
