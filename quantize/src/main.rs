//! The `t5-quantize` command.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use t5_quantize::adapter::{self, Adapter};
use t5_quantize::align;
use t5_quantize::compare::{Comparison, compare};
use t5_quantize::policy::FILE_TYPES;
use t5_quantize::{Keep, Policy, Progress, Report, pytorch, quantize};
use t5_runtime::checkpoint::{Checkpoint, defaults, is_weights};
use t5_runtime::config::T5Config;
use t5_runtime::generate::{GenerationDefaults, Settings};
use t5_runtime::output::OutputFile;
use t5_runtime::storage::is_same_file;
use t5_runtime::tensor::DType;
use t5_runtime::{AlignmentHeads, Error, Model, ModelOptions, Overrides, Result, command, hub};

/// Turns a T5 checkpoint into one self-contained GGUF file.
///
/// The file is written beside OUT and takes its place when it is complete, so that a failure leaves what was there.
#[derive(Parser)]
#[command(name = "t5-quantize", version)]
struct Arguments {
    /// A folder of Hugging Face's or of a Diffusers pipeline, a .safetensors, .gguf or .bin file, or
    /// hf:OWNER/NAME[/FOLDER|/FILE][:TYPE][@REVISION]. Downloads obey HF_TOKEN, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE
    /// and HF_ENDPOINT
    #[arg(value_name = "IN")]
    input: String,
    /// The GGUF file to write. It may be IN itself, where that is one: the new file takes its place when it is complete
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// How matrices are stored: q8_0, f16, f32, q4_0 or q4_k. Norms and bias tables are always f32.
    #[arg(long = "type", value_name = "TYPE", default_value = "q8_0", value_parser = file_type)]
    dtype: DType,
    /// Another type for the tensors or roles that PATTERN (with * and ?) matches: 'wo=f16', 'decoder.*=q8_0',
    /// 'output_head=f16'. May be given several times; the last match counts.
    #[arg(long, value_name = "PATTERN=TYPE", value_parser = keep)]
    keep: Vec<Keep>,
    /// Say something about the model in the file, which the browser's page and `t5 inspect` show: 'license=CC BY 4.0',
    /// 'attribution=…', 'name=…', 'url=…'. What IN says of itself is kept.
    #[arg(long, value_name = "KEY=TEXT", value_parser = about)]
    about: Vec<(String, String)>,
    /// Generation settings and tasks to note in the file, over those of IN: the keys of generation_config.json, and
    /// `task_specific_params` as in config.json. A task takes the place of IN's of the same name
    #[arg(long, value_name = "FILE.json")]
    settings: Option<PathBuf>,
    /// Merge a LoRA adapter into the model: a folder with adapter_config.json and adapter_model.safetensors, as PEFT
    /// and t5-train write them. IN is what it was trained on, not a quantised file of that
    #[arg(long, value_name = "FOLDER")]
    adapter: Option<PathBuf>,
    /// Find the heads of attention that show which words belong together, from lines SOURCE<TAB>TARGET, and note them
    /// in the file. Some thousand lines do; the last 500 are measured
    #[arg(long, value_name = "FILE")]
    align: Option<PathBuf>,
    /// Measure how far the new file's predictions are from IN's, on lines SOURCE<TAB>TARGET: KL divergence, how often
    /// both find the same token likeliest, log-probability of the targets. The report has it, too
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Leave the decoder out: for embeddings, and before image and video models
    #[arg(long, conflicts_with_all = ["align", "compare"])]
    encoder_only: bool,
    /// Store norms and the matrices behind them as they are, instead of balancing them before they are rounded
    #[arg(long)]
    no_balance: bool,
    /// How many neighbouring values share a scale in q8_0 matrices of the encoder and of cross-attention's keys and
    /// values: 32, 128 or 256, or fewer where rows are shorter. More are faster and a little less exact; any program
    /// reads the file
    #[arg(long, value_name = "VALUES", default_value_t = Policy::new(DType::Q8_0).scale_run)]
    scale_run: usize,
    /// The same in the decoder's other matrices. More are a seventh faster where the processor's caches hold a small
    /// model, hardly elsewhere; what they cost in exactness is three to five times of what they cost in the encoder
    #[arg(long, value_name = "VALUES", default_value_t = Policy::new(DType::Q8_0).decoder_scale_run)]
    decoder_scale_run: usize,
    /// Write sizes and errors of every tensor and role to a JSON file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print remarks about the checkpoint (settings ignored, tensors skipped)
    #[arg(long, short)]
    verbose: bool,
}

fn file_type(name: &str) -> Result<DType, String> {
    let names: Vec<_> = FILE_TYPES.iter().map(|dtype| dtype.name()).collect();
    DType::from_name(name)
        .filter(|dtype| FILE_TYPES.contains(dtype))
        .ok_or_else(|| format!("expected one of {}", names.join(", ")))
}

/// What a flag's value should be; the argument parser names the flag.
fn keep(text: &str) -> Result<Keep, String> {
    Keep::parse(text).map_err(|error| match error {
        Error::Option { what, .. } => what,
        error => error.to_string(),
    })
}

/// A text of the kind that GGUF files have under `general.`.
fn about(text: &str) -> Result<(String, String), String> {
    let known =
        |key: &str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b"_.0123456789".contains(&b));
    match text.split_once('=').map(|(key, value)| (key.strip_prefix("general.").unwrap_or(key), value)) {
        Some((key, _)) if ["architecture", "type", "file_type", "quantization_version", "alignment"].contains(&key) => {
            Err(format!("expected what a person may say of a model, found {key}, which is not up to you"))
        }
        Some((key, value)) if known(key) => Ok((format!("general.{key}"), value.to_owned())),
        _ => Err("expected KEY=TEXT, such as license=MIT".to_owned()),
    }
}

fn main() -> ExitCode {
    let result = command::parse(std::env::args_os()).and_then(|arguments| Ok(run(&arguments)?));
    command::report::<Arguments>(result)
}

fn run(arguments: &Arguments) -> Result<()> {
    let policy = Policy {
        base: arguments.dtype,
        keep: arguments.keep.clone(),
        balance: !arguments.no_balance,
        scale_run: arguments.scale_run,
        decoder_scale_run: arguments.decoder_scale_run,
    };
    let path = if hub::is_hub_name(&arguments.input) {
        let hub = hub::Hub { pickles: true, ..hub::Hub::from_env()? };
        hub.fetch(&arguments.input, &mut hub::TerminalProgress::default())?
    } else {
        PathBuf::from(&arguments.input)
    };
    let mut checkpoint = pytorch::open(&path)?;
    if arguments.encoder_only && checkpoint.config.one_stack().is_some() {
        let what = format!("expected a model with an encoder, found one stack, {}", checkpoint.config.model_type);
        return Err(Error::Option { option: "encoder-only", what });
    }
    let notes = if arguments.verbose { &checkpoint.notes } else { &checkpoint.not_obeyed };
    notes.iter().for_each(|note| command::say(format_args!("note: {note}")));
    if checkpoint.vocabulary.is_none() {
        command::say(format_args!("note: {} has no tokenizer: the new file will take ids only", checkpoint.file));
    }
    let adapter = arguments.adapter.as_deref().map(Adapter::open).transpose()?;
    if let Some(adapter) = &adapter {
        adapter.doubt(&checkpoint).iter().for_each(|note| command::say(format_args!("note: {note}")));
        adapter.merge(&mut checkpoint)?;
    }
    // After merging: most adapters change the decoder, too.
    if arguments.encoder_only {
        let head = checkpoint.head.as_ref().map(|head| head.task.name());
        checkpoint.keep_encoder_only();
        if let (Some(head), None) = (head, &checkpoint.head) {
            command::say(format_args!("note: the head for {head} reads the decoder's states and is left out with it"));
        }
    }
    checkpoint.about.extend(arguments.about.iter().cloned());
    if let Some(file) = &arguments.settings {
        settings(file, &mut checkpoint)?;
    }
    let aligned = arguments.align.as_deref().map(pairs).transpose()?;
    let compared = arguments.compare.as_deref().map(pairs).transpose()?;
    let (no_tokenizer, no_decoder) = (checkpoint.vocabulary.is_none(), checkpoint.config.is_encoder_only());
    if compared.is_some() && (no_tokenizer || no_decoder) {
        let part = if no_tokenizer { "tokenizer" } else { "decoder" };
        let what = format!("expected a checkpoint with a {part}, found none in {}", checkpoint.file);
        return Err(Error::Option { option: "compare", what });
    }
    // Types and both files before the work, of which aligning may take minutes, so that an exception that matches
    // nothing and a name that cannot be written are found at once.
    policy.plan(&checkpoint.config)?;
    let mut output = OutputFile::create(&arguments.output)?;
    let report_file = arguments.report.as_deref().map(OutputFile::create).transpose()?;
    refuse_taken(arguments, &checkpoint, &output, report_file.as_ref())?;
    if let Some(pairs) = &aligned {
        align(&path, pairs, adapter.as_ref(), &mut checkpoint)?;
    }

    let mut progress = Bar(ProgressBar::hidden());
    let name = arguments.output.display().to_string();
    let report = quantize(&checkpoint, &policy, &name, &mut output, &mut progress);
    progress.0.finish_and_clear();
    let report = report?;
    output.commit()?;
    let comparison = match &compared {
        Some(pairs) => {
            let stored = Model::open(&arguments.output)?;
            Some(compare(&Model::from_checkpoint(checkpoint, &ModelOptions::default())?, &stored, pairs)?)
        }
        None => None,
    };
    if let (Some(mut file), Some(path)) = (report_file, &arguments.report) {
        let mut json = describe(arguments, &report);
        json["comparison"] = comparison.as_ref().map_or(serde_json::Value::Null, Comparison::to_json);
        file.write_all(format!("{json:#}\n").as_bytes()).map_err(Error::io(path))?;
        file.commit()?;
    }
    let requantised =
        report.tensors.iter().filter(|tensor| tensor.from.block_len() > 1 && tensor.from != tensor.to).count();
    if requantised > 0 {
        let what = "tensors were quantised before; start from the original where there is one";
        command::say(format_args!("note: {requantised} {what}"));
    }
    // The file is good even where nobody reads the table.
    let _ = write!(std::io::stdout(), "{report}");
    if let Some(comparison) = comparison {
        let _ = writeln!(std::io::stdout(), "{comparison}");
    }
    Ok(())
}

/// Refuses outputs that would destroy what is read, and names by which every program would take OUT for another kind of
/// file. A GGUF file may be written over itself: it is replaced whole, at the end.
fn refuse_taken(
    arguments: &Arguments,
    checkpoint: &Checkpoint,
    output: &OutputFile,
    report: Option<&OutputFile>,
) -> Result<()> {
    let read = |target: &Path| {
        if arguments.settings.as_ref().is_some_and(|file| is_same_file(file, target)) {
            Some("the settings")
        } else if arguments.align.as_ref().is_some_and(|file| is_same_file(file, target)) {
            Some("the pairs to align")
        } else if arguments.compare.as_ref().is_some_and(|file| is_same_file(file, target)) {
            Some("the pairs to compare on")
        } else if arguments.adapter.as_ref().is_some_and(|folder| {
            [adapter::CONFIG, adapter::WEIGHTS].iter().any(|name| is_same_file(&folder.join(name), target))
        }) {
            Some("a file of the adapter")
        } else {
            checkpoint.reads(target).then_some("a file of IN")
        }
    };
    let refuse = |option, taken: &str, path: &Path| {
        Err(Error::Option { option, what: format!("expected another file than {taken}, found {}", path.display()) })
    };
    if let Some(taken) = read(output.target()).filter(|_| !is_same_file(Path::new(&checkpoint.file), output.target())) {
        return refuse("output", taken, &arguments.output);
    }
    if let Some(path) = [arguments.output.as_path(), output.target()].into_iter().find(|path| is_weights(path)) {
        let found = path.display();
        let what = format!("expected a name such as model.gguf, found {found}, the name of another kind of file");
        return Err(Error::Option { option: "output", what });
    }
    let (Some(report), Some(path)) = (report, &arguments.report) else { return Ok(()) };
    let is_output = report.target() == output.target();
    match is_output.then_some("OUT").or_else(|| read(report.target())) {
        Some(taken) => refuse("report", taken, path),
        None => Ok(()),
    }
}

/// Takes settings and tasks from a file over those that the checkpoint has.
fn settings(file: &Path, checkpoint: &mut Checkpoint) -> Result<()> {
    let text = std::fs::read_to_string(file).map_err(Error::io(file))?;
    let given = defaults::parse(&file.display().to_string(), &text)?;
    if let Some(what) = given.not_obeyed.first() {
        let what = format!("expected settings of generation_config.json and task_specific_params, found {what}");
        return Err(Error::format(file.display().to_string(), what));
    }
    check_ids(file, "", &given.settings, &checkpoint.config)?;
    for task in &given.tasks {
        check_ids(file, &of_task(&task.name), &task.settings, &checkpoint.config)?;
    }
    let own = &mut checkpoint.generation;
    own.settings = given.settings.over(&own.settings);
    own.tasks.retain(|task| given.tasks.iter().all(|new| new.name != task.name));
    own.tasks.extend(given.tasks);
    // As files have them.
    own.tasks.sort_by(|a, b| a.name.cmp(&b.name));
    check_options(file, own)
}

/// What stands before the names of a task's settings.
fn of_task(name: &str) -> String {
    format!("task_specific_params.{name}.")
}

/// Refuses ids and heads that the model does not have: every request would be refused for them. `place` stands before
/// the names of settings.
fn check_ids(file: &Path, place: &str, settings: &Settings, config: &T5Config) -> Result<()> {
    let T5Config { vocab_size, num_decoder_layers: blocks, num_heads: heads, .. } = *config;
    let biased = settings.sequence_bias.iter().flatten();
    let ids: [(&str, Vec<u32>); 8] = [
        ("bad_words_ids", settings.bad_words_ids.iter().flatten().flatten().copied().collect()),
        ("sequence_bias", biased.flat_map(|(ids, _)| ids).copied().collect()),
        ("suppress_tokens", settings.suppress_tokens.clone().unwrap_or_default()),
        ("begin_suppress_tokens", settings.begin_suppress_tokens.clone().unwrap_or_default()),
        ("forced_bos_token_id", Vec::from_iter(settings.forced_bos_token_id)),
        ("forced_eos_token_id", settings.forced_eos_token_id.clone().unwrap_or_default()),
        ("decoder_start_token_id", Vec::from_iter(settings.decoder_start_token_id)),
        ("eos_token_id", settings.eos_token_id.clone().unwrap_or_default()),
    ];
    for (name, ids) in ids {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
            let what = format!("expected ids below {vocab_size}, found {id}");
            return Err(Error::config(file.display().to_string(), format!("{place}{name}"), what));
        }
    }
    // Nothing asks an encoder alone where its tokens come from.
    let is_head = |pair: &[u32]| matches!(*pair, [block, head] if (block as usize) < blocks && (head as usize) < heads);
    let mut pairs = settings.alignment_heads.iter().flatten();
    if let Some(pair) = pairs.find(|pair| !config.is_encoder_only() && !is_head(pair)) {
        let what = format!("expected pairs of a block below {blocks} and a head below {heads}, found {pair:?}");
        return Err(Error::config(file.display().to_string(), format!("{place}alignment_heads"), what));
    }
    Ok(())
}

/// Options whose settings have other names.
const SETTINGS: [(&str, &str); 4] = [
    ("beams", "num_beams"),
    ("beam_groups", "num_beam_groups"),
    ("n_best", "num_return_sequences"),
    ("exponential_decay", "exponential_decay_length_penalty"),
];

/// Refuses what settings that were taken from `file` make of the checkpoint's, if requests without options of their own
/// are refused for it.
fn check_options(file: &Path, defaults: &GenerationDefaults) -> Result<()> {
    let tasks = defaults.tasks.iter().map(|task| (Some(task.name.clone()), of_task(&task.name)));
    for (task, place) in std::iter::once((None, String::new())).chain(tasks) {
        let asked = Overrides { task, ..Overrides::default() };
        let Err(Error::Option { option, what }) = asked.apply(defaults) else { continue };
        let name = SETTINGS.into_iter().find(|(known, _)| *known == option).map_or(option, |(_, name)| name);
        return Err(Error::config(file.display().to_string(), format!("{place}{name}"), what));
    }
    Ok(())
}

/// The pairs of texts in a file.
fn pairs(file: &Path) -> Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(file).map_err(Error::io(file))?;
    let mut pairs = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some((source, target)) = line.split_once('\t') else {
            let what = format!("line {}: expected SOURCE<TAB>TARGET, found no tab", index + 1);
            return Err(Error::format(file.display().to_string(), what));
        };
        pairs.push((source.to_owned(), target.to_owned()));
    }
    if pairs.is_empty() {
        return Err(Error::format(file.display().to_string(), "expected lines SOURCE<TAB>TARGET, found none"));
    }
    Ok(pairs)
}

/// Chooses the heads that align words, and notes them.
fn align(
    model: &Path,
    pairs: &[(String, String)],
    adapter: Option<&Adapter>,
    checkpoint: &mut Checkpoint,
) -> Result<()> {
    let mut model = pytorch::open(model)?;
    adapter.map_or(Ok(()), |adapter| adapter.merge(&mut model))?;
    // They say how sources are read; and words of a task's prefix are not aligned.
    model.generation.clone_from(&checkpoint.generation);
    let choice = align::choose(&Model::from_checkpoint(model, &ModelOptions::default())?, pairs)?;
    let AlignmentHeads { heads, reading } = &choice.heads;
    let named: Vec<String> = heads.iter().map(|(block, head)| format!("{head} of block {block}")).collect();
    let step = if *reading { "reads" } else { "predicts" };
    let percent = |found: usize| 100.0 * found as f64 / choice.links as f64;
    command::say(format_args!(
        "alignment: head {}, in the step that {step} a word: {:.1} % of {} words; the average of all heads: {:.1} %",
        named.join(" and "),
        percent(choice.found),
        choice.links,
        percent(choice.by_average),
    ));
    let settings = &mut checkpoint.generation.settings;
    settings.alignment_heads = Some(heads.iter().map(|&(block, head)| vec![block as u32, head as u32]).collect());
    settings.alignment_reading = Some(*reading);
    Ok(())
}

/// The report with what was asked for.
fn describe(arguments: &Arguments, report: &Report) -> serde_json::Value {
    let mut json = report.to_json();
    json["input"] = arguments.input.as_str().into();
    json["output"] = arguments.output.display().to_string().into();
    json["type"] = arguments.dtype.name().into();
    json["scale_run"] = arguments.scale_run.into();
    json["decoder_scale_run"] = arguments.decoder_scale_run.into();
    json["encoder_only"] = arguments.encoder_only.into();
    json["balance"] = (!arguments.no_balance).into();
    let keep = arguments.keep.iter().map(|keep| format!("{}={}", keep.pattern, keep.dtype));
    json["keep"] = keep.collect::<Vec<_>>().into();
    json
}

/// A bar on a terminal, nothing elsewhere.
struct Bar(ProgressBar);

impl Progress for Bar {
    fn start(&mut self, values: u64) {
        if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{wide_bar} {percent}% {eta} {msg}");
            self.0 = ProgressBar::new(values).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        }
    }

    fn tensor(&mut self, name: &str) {
        self.0.set_message(name.to_owned());
    }

    fn advance(&mut self, values: u64) {
        self.0.inc(values);
    }
}
