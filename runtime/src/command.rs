//! What the commands `t5`, `t5-quantize` and `t5-train` share: how arguments are read, how a failure is told, and how
//! people hear of the rest.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::error::Error;

/// A request that cannot be understood: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// What could be done is done, but not all: exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Incomplete(pub String);

/// A usage error as `anyhow::Error`.
pub fn usage(what: impl Into<String>) -> anyhow::Error {
    Usage(what.into()).into()
}

/// Reads arguments, the program's name first. Help and version are printed, and the program ends.
///
/// # Errors
/// One line that says what cannot be understood.
pub fn parse<A: Parser>(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<A> {
    A::try_parse_from(arguments.into_iter().collect::<Vec<_>>()).map_err(|error| {
        if !error.use_stderr() {
            error.exit();
        }
        usage(shorten(&error.to_string()))
    })
}

/// Says what went wrong in one line on stderr. The exit code is 2 for usage errors, an option of the library that has a
/// flag among them, 3 for [`Incomplete`], and 1 for others. That nobody reads the output any more (`t5 … | head`) is no
/// failure.
pub fn report<A: CommandFactory>(result: Result<(), impl Into<anyhow::Error>>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let command = A::command();
    let error = with_flag(&command, error.into());
    if is_closed_pipe(&error) {
        return ExitCode::SUCCESS;
    }
    let line = format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ");
    say(format_args!("{}: {line}", command.get_name()));
    ExitCode::from(match () {
        () if error.is::<Usage>() => 2,
        () if error.is::<Incomplete>() => 3,
        () => 1,
    })
}

/// Says a line on stderr. That nobody can read it, as where a log's disk is full, stops no work: `eprintln!` would.
pub fn say(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The library names options; people type flags.
fn with_flag(command: &clap::Command, error: anyhow::Error) -> anyhow::Error {
    let Some(Error::Option { option, what }) = error.downcast_ref() else { return error };
    let positional = command.get_positionals().find(|argument| argument.get_id() == option);
    if let Some(name) = positional.and_then(|argument| argument.get_value_names()?.first()) {
        return usage(format!("{name}: {what}"));
    }
    let flag = option.replace('_', "-");
    let has = |command: &clap::Command| command.get_arguments().any(|argument| argument.get_long() == Some(&flag));
    if has(command) || command.get_subcommands().any(has) { usage(format!("--{flag}: {what}")) } else { error }
}

/// The part of the argument parser's message that says what is wrong, on one line, and what may have been meant.
fn shorten(message: &str) -> String {
    let after = |line: &str| ["Usage:", "For more", "  tip:"].iter().any(|start| line.starts_with(start));
    let wrong = message.lines().take_while(|line| !after(line));
    let line = wrong.map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let tip = message.lines().filter_map(|line| line.strip_prefix("  tip: ")).find(|tip| tip.contains("similar"));
    let tip = tip.map_or_else(String::new, |tip| format!(": {tip}"));
    format!("{}{tip}; see --help", line.strip_prefix("error: ").unwrap_or(&line))
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}
