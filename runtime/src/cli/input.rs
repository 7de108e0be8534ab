//! Opening models and working spaces.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{anyhow, bail};
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::command::say;
#[cfg(feature = "hub")]
use t5_runtime::hub;
use t5_runtime::{Error, MAX_THREADS, Model, ModelOptions, Session, default_threads, physical_cores};

use super::args::{GenerateArgs, ModelArgs, PairArgs};
use super::lines::Lines;
use super::usage;

/// Opens the model that the arguments name and prints its notes if asked.
pub fn open_model(args: &ModelArgs) -> anyhow::Result<Model> {
    prepare(open_checkpoint(args.one()?)?, args)
}

/// As [`open_model`]; several models become one that decodes by their mean.
pub fn open_models(args: &GenerateArgs) -> anyhow::Result<Model> {
    let GenerateArgs { model: args, average, .. } = args;
    if args.model.len() < 2 {
        if average.is_some() {
            return Err(usage(format!("--average: expected two --model or more with it, found {}", args.model.len())));
        }
        return open_model(args);
    }
    if args.packed.is_some() {
        return Err(usage(format!("--packed: expected one --model with it, found {}", args.model.len())));
    }
    let models = args.model.iter().map(|name| prepare(open_checkpoint(Some(name))?, args));
    let models = models.collect::<anyhow::Result<Vec<Model>>>()?;
    Ok(Model::ensemble(models, average.unwrap_or_default().into())?)
}

/// Makes a model of a checkpoint and prints its notes if asked.
pub fn prepare(checkpoint: Checkpoint, args: &ModelArgs) -> anyhow::Result<Model> {
    let isa = args.isa.as_deref().map(str::parse).transpose()?;
    let said = checkpoint.not_obeyed.clone();
    let options = ModelOptions { isa, copy: args.no_mmap };
    let model = match &args.packed {
        #[cfg(not(target_arch = "wasm32"))]
        Some(packed) => Model::from_checkpoint_and_packed(checkpoint, &options, packed)?,
        #[cfg(target_arch = "wasm32")]
        Some(_) => return Err(usage("--packed: expected a system that maps files, found WebAssembly")),
        None => Model::from_checkpoint(checkpoint, &options)?,
    };
    if args.verbose {
        for note in model.notes().iter().filter(|note| !said.contains(note)) {
            say(format_args!("t5: note: {note}"));
        }
        say(format_args!("t5: instruction set: {}", model.kernels().isa().name()));
    }
    Ok(model)
}

/// A working space with `threads` threads for each of `jobs` jobs; by default the cores are shared out, and none gets
/// more than it would alone.
pub fn sessions(model: &Model, jobs: usize, threads: Option<usize>) -> anyhow::Result<Vec<Session>> {
    if !(1..=1024).contains(&jobs) {
        return Err(usage(format!("--jobs: expected 1 to 1024, found {jobs}")));
    }
    if jobs > 1 && cfg!(target_family = "wasm") {
        return Err(usage(format!("--jobs: expected a system with threads for {jobs} of them, found WebAssembly")));
    }
    let threads = threads.unwrap_or_else(|| (physical_cores() / jobs).clamp(1, default_threads()));
    (0..jobs).map(|_| session(model, Some(threads))).collect()
}

/// A working space with `threads` threads, by default what is good for one.
pub fn session(model: &Model, threads: Option<usize>) -> anyhow::Result<Session> {
    let threads = threads.unwrap_or_else(default_threads);
    if !(1..=MAX_THREADS).contains(&threads) {
        return Err(usage(format!("--threads: expected 1 to {MAX_THREADS}, found {threads}")));
    }
    let mut session = model.session();
    session.set_threads(threads);
    Ok(session)
}

/// Opens a checkpoint by path or hub name; without either the built-in model. Says what it asks for and does not get.
pub fn open_checkpoint(name: Option<&str>) -> anyhow::Result<Checkpoint> {
    let Some(name) = name else {
        #[cfg(feature = "default-model")]
        return Ok(Checkpoint::pocket()?);
        #[cfg(not(feature = "default-model"))]
        return Err(usage("--model: expected a GGUF file, a Hugging Face folder or hf:OWNER/NAME"));
    };
    let checkpoint = Checkpoint::open(&local_path(name)?).map_err(|error| with_hub_name(name, error))?;
    for note in &checkpoint.not_obeyed {
        say(format_args!("t5: note: {note}"));
    }
    Ok(checkpoint)
}

/// Where there is no such file, what may have been meant is a model of the hub.
fn with_hub_name(name: &str, error: Error) -> anyhow::Error {
    match &error {
        Error::Io { error: cause, .. } if cause.kind() == std::io::ErrorKind::NotFound && is_like_hub_name(name) => {
            anyhow!("{error}; for the one of the hub: --model hf:{name}")
        }
        _ => error.into(),
    }
}

/// Whether a word looks like OWNER/NAME, a model of the hub.
pub fn is_like_hub_name(word: &str) -> bool {
    let is_name = |part: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        part.bytes().all(known) && part.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
    };
    word.split_once('/').is_some_and(|(owner, name)| is_name(owner) && is_name(name))
}

/// Puts another tokenizer in the place of the checkpoint's. Says what it asks for and does not get.
pub fn replace_tokenizer(checkpoint: &mut Checkpoint, name: &str) -> anyhow::Result<()> {
    let said = checkpoint.not_obeyed.clone();
    #[cfg(feature = "hub")]
    let path = match hub::is_hub_name(name) {
        true => hub::fetch_tokenizer(name, &mut hub::TerminalProgress::default())?,
        false => PathBuf::from(name),
    };
    #[cfg(not(feature = "hub"))]
    let path = PathBuf::from(name);
    checkpoint.replace_tokenizer(&path)?;
    for note in checkpoint.not_obeyed.iter().filter(|note| !said.contains(note)) {
        say(format_args!("t5: note: {note}"));
    }
    Ok(())
}

/// The path itself, or where the hub's cache keeps the model.
fn local_path(name: &str) -> anyhow::Result<PathBuf> {
    #[cfg(feature = "hub")]
    if hub::is_hub_name(name) {
        return Ok(hub::fetch(name, &mut hub::TerminalProgress::default())?);
    }
    #[cfg(not(feature = "hub"))]
    if name.starts_with("hf:") {
        return Err(usage(format!(
            "--model: expected a file or a folder, since this program downloads nothing, found {name}"
        )));
    }
    Ok(PathBuf::from(name))
}

/// Writes what `answer` makes of the source and target of each line `SOURCE<TAB>TARGET`, a line each, as it comes.
pub fn answer_pairs(
    args: &PairArgs,
    answer: impl Fn(&mut Session, &str, &str) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let mut lines = Lines::file(&args.input)?;
    let model = open_model(&args.model)?;
    let mut session = session(&model, args.threads)?;
    let mut out = std::io::stdout().lock();
    while let Some(line) = lines.next_line()? {
        let Some((source, target)) = line.split_once('\t') else {
            bail!("{}: expected SOURCE<TAB>TARGET, found no tab", lines.place());
        };
        writeln!(out, "{}", answer(&mut session, source, target)?)?;
        out.flush()?;
    }
    Ok(())
}
