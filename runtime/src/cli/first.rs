//! What comes first among the arguments: a subcommand, or a text, for which `generate` is left out.

use std::ffi::OsString;
use std::io::IsTerminal;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Subcommand};

use super::args::{Arguments, Command};
use super::input::is_like_hub_name;
use super::usage;

/// What is to be done.
pub enum First {
    /// Texts are typed one by one.
    Prompt,
    /// These arguments, of which the first is a subcommand or a flag of the program itself.
    Command(Vec<OsString>),
}

/// Puts `generate` before a text.
///
/// # Errors
/// For a word that is not likely to be a text: one much like a subcommand, or the name of a model.
pub fn what(mut arguments: Vec<OsString>) -> anyhow::Result<First> {
    let Some(first) = arguments.get(1) else {
        if std::io::stdin().is_terminal() {
            return Ok(First::Prompt);
        }
        arguments.push("generate".into());
        return Ok(First::Command(arguments));
    };
    let first = first.to_str().unwrap_or_default();
    if Command::has_subcommand(first) || matches!(first, "-h" | "--help" | "-V" | "--version" | "help") {
        return Ok(First::Command(arguments));
    }
    let is_word = !first.starts_with('-') && !first.contains(char::is_whitespace);
    if is_word && is_like_hub_name(first) {
        let what = format!("expected a text or a subcommand, found {first}: a model is named by --model hf:{first}");
        return Err(usage(format!("{what}, a text like it by t5 generate {first}")));
    }
    if is_word && let Some(similar) = similar(first) {
        let what = format!("expected a text or a subcommand, found {first}: a similar subcommand exists: {similar}");
        return Err(usage(format!("{what}; for it as a text: t5 generate {first}")));
    }
    arguments.insert(1, "generate".into());
    Ok(First::Command(arguments))
}

/// The subcommand that a word is most like, if it is like one.
fn similar(word: &str) -> Option<String> {
    let error = Arguments::command().try_get_matches_from(["t5", word]).err()?;
    match error.get(ContextKind::SuggestedSubcommand)? {
        ContextValue::String(name) => Some(name.clone()),
        // The best comes last.
        ContextValue::Strings(names) => names.last().cloned(),
        _ => None,
    }
}
