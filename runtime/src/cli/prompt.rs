//! `t5` on a terminal, without arguments: texts are typed one by one, and answered as they come.

use std::io::Write;

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use t5_runtime::Overrides;
use t5_runtime::command::say;

use super::input::{open_checkpoint, session};
use super::usage;

/// Reads texts until there are no more, and answers each.
pub fn run() -> anyhow::Result<()> {
    let Ok(checkpoint) = open_checkpoint(None) else { return Err(usage("expected a text; see --help")) };
    let model = t5_runtime::Model::from_checkpoint(checkpoint, &t5_runtime::ModelOptions::default())?;
    let options = model.options(&Overrides { logprobs: Some(false), ..Overrides::default() })?;
    let mut session = session(&model, None)?;
    let mut editor = DefaultEditor::new()?;
    let mut output = std::io::stdout();
    writeln!(output, "Pocket T5, {}. A text a line; it begins with what is to be done:", model.file())?;
    for task in &model.generation_defaults().tasks {
        writeln!(output, "  {}...", task.prefix)?;
    }
    writeln!(output, "Ctrl-D ends; t5 --help tells of other models.")?;
    loop {
        let line = match editor.readline("t5> ") {
            Ok(line) => line,
            // Ctrl-C leaves the line, Ctrl-D the prompt.
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if line.trim().is_empty() {
            continue;
        }
        editor.add_history_entry(line.as_str())?;
        match session.generate(line.trim(), &options) {
            Ok(mut generation) => {
                while let Some(piece) = generation.next_piece() {
                    write!(output, "{piece}")?;
                    output.flush()?;
                }
                writeln!(output)?;
            }
            Err(error) => say(format_args!("t5: {error}")),
        }
    }
}
