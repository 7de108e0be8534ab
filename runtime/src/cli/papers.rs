//! What is made of the description of the arguments: completions and manual pages.

use std::fs;
use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use super::args::Arguments;

/// `t5 completions SHELL`, on standard output.
pub fn completions(shell: Shell) -> anyhow::Result<()> {
    clap_complete::generate(shell, &mut Arguments::command(), "t5", &mut std::io::stdout().lock());
    Ok(())
}

/// `t5 man FOLDER`: `t5.1`, `t5-generate.1` and so on.
pub fn man(folder: &Path) -> anyhow::Result<()> {
    let told = || folder.display().to_string();
    fs::create_dir_all(folder).with_context(told)?;
    clap_mangen::generate_to(Arguments::command(), folder).with_context(told)
}
