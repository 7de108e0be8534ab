//! The `t5-quantize` command.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use t5_quantize::policy::FILE_TYPES;
use t5_quantize::{Keep, Policy, Progress, Report, quantize};
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::output::OutputFile;
use t5_runtime::tensor::DType;
use t5_runtime::{Error, Result, command, hub};

/// Turns a T5 checkpoint into one self-contained GGUF file.
///
/// The file is written beside OUT and takes its place when it is complete, so that a failure leaves what was there.
#[derive(Parser)]
#[command(name = "t5-quantize", version)]
struct Arguments {
    /// A Hugging Face folder, a .safetensors or .gguf file, or hf:OWNER/NAME[/FILE.gguf][@REVISION]
    #[arg(value_name = "IN")]
    input: String,
    /// The GGUF file to write
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// How matrices are stored: q8_0, f16, f32, q4_0 or q4_k. Norms and bias tables are always f32.
    #[arg(long = "type", value_name = "TYPE", default_value = "q8_0", value_parser = file_type)]
    dtype: DType,
    /// Another type for the tensors or roles that PATTERN (with * and ?) matches: 'wo=f16', 'decoder.*=q8_0',
    /// 'output_head=f16'. May be given several times; the last match counts.
    #[arg(long, value_name = "PATTERN=TYPE", value_parser = keep)]
    keep: Vec<Keep>,
    /// Store norms and the matrices behind them as they are, instead of balancing them before they are rounded
    #[arg(long)]
    no_balance: bool,
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

fn main() -> ExitCode {
    let result = command::parse(std::env::args_os()).and_then(|arguments| Ok(run(&arguments)?));
    command::report::<Arguments>(result)
}

fn run(arguments: &Arguments) -> Result<()> {
    let policy = Policy { base: arguments.dtype, keep: arguments.keep.clone(), balance: !arguments.no_balance };
    let path = if hub::is_hub_name(&arguments.input) {
        hub::fetch(&arguments.input, &mut hub::TerminalProgress::default())?
    } else {
        PathBuf::from(&arguments.input)
    };
    let checkpoint = Checkpoint::open(&path)?;
    let notes = if arguments.verbose { &checkpoint.notes } else { &checkpoint.not_obeyed };
    notes.iter().for_each(|note| eprintln!("note: {note}"));
    if checkpoint.vocabulary.is_none() {
        eprintln!("note: {} has no tokenizer: the new file will take ids only", checkpoint.file);
    }
    // Both files before the work, so that a name that cannot be written is found at once.
    let mut output = OutputFile::create(&arguments.output)?;
    let report_file = arguments.report.as_deref().map(OutputFile::create).transpose()?;
    if let Some(report) = &report_file {
        let taken = if report.target() == output.target() {
            Some("OUT")
        } else if checkpoint.reads(report.target()) {
            Some("a file of IN")
        } else {
            None
        };
        if let (Some(taken), Some(path)) = (taken, &arguments.report) {
            let what = format!("expected another file than {taken}, found {}", path.display());
            return Err(Error::Option { option: "report", what });
        }
    }

    let mut progress = Bar(ProgressBar::hidden());
    let name = arguments.output.display().to_string();
    let report = quantize(&checkpoint, &policy, &name, &mut output, &mut progress);
    progress.0.finish_and_clear();
    let report = report?;
    output.commit()?;
    if let (Some(mut file), Some(path)) = (report_file, &arguments.report) {
        let json = describe(arguments, &report);
        file.write_all(format!("{json:#}\n").as_bytes()).map_err(Error::io(path))?;
        file.commit()?;
    }
    let requantised =
        report.tensors.iter().filter(|tensor| tensor.from.block_len() > 1 && tensor.from != tensor.to).count();
    if requantised > 0 {
        eprintln!("note: {requantised} tensors were quantised before; start from the original where there is one");
    }
    // A reader of the table who left does not make the file worse.
    let _ = write!(std::io::stdout(), "{report}");
    Ok(())
}

/// The report with what was asked for.
fn describe(arguments: &Arguments, report: &Report) -> serde_json::Value {
    let mut json = report.to_json();
    json["input"] = arguments.input.as_str().into();
    json["output"] = arguments.output.display().to_string().into();
    json["type"] = arguments.dtype.name().into();
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
