//! The `t5-train` command.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use t5_train::config::Config;
use t5_train::export::{self, Weights};
use t5_train::pipeline::{self, Pipeline};
use t5_train::trainer::{Evaluator, Parts, Trainer};
use t5_train::{batches::BatchSource, data, evaluate, vocabulary};

/// Text-to-text pre-training and fine-tuning of T5 models.
#[derive(Parser)]
#[command(version, about)]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Train a vocabulary on the tasks' texts
    Vocab(VocabArguments),
    /// Train, or continue a run that was interrupted
    Run(ConfigArguments),
    /// Run a model over the dev examples and print the tasks' metrics
    Eval(EvalArguments),
    /// Write a run's checkpoint as a Hugging Face folder
    Export(ExportArguments),
    /// Print examples as the model sees them
    InspectData(InspectArguments),
}

#[derive(Args)]
struct ConfigArguments {
    /// The run's TOML file; every knob is in train/configs/base.toml
    config: PathBuf,
    /// Change one knob
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

impl ConfigArguments {
    fn load(&self) -> Result<Config> {
        let config = Config::load(&self.config, &self.sets)?;
        // Fails only where the pool exists already, which it does not this early.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(config.run.threads).build_global();
        Ok(config)
    }
}

#[derive(Args)]
struct VocabArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// The file to write
    #[arg(short, long, default_value = "tokenizer.json")]
    output: PathBuf,
}

#[derive(Args)]
struct EvalArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// A model folder or GGUF file; otherwise the run's best checkpoint
    #[arg(short, long)]
    model: Option<PathBuf>,
    /// Examples of each task; 0: all
    #[arg(short = 'n', long, default_value_t = 0)]
    examples: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct ExportArguments {
    /// The run's folder
    run: PathBuf,
    /// The folder to write
    output: PathBuf,
    /// The step whose checkpoint is taken; otherwise the best, or the newest where there was no evaluation
    #[arg(long)]
    step: Option<u64>,
    /// Take the parameters even where the run keeps a moving average of them
    #[arg(long, conflicts_with = "mean_of_last")]
    current: bool,
    /// Take the mean over the last so many checkpoints
    #[arg(long, value_name = "CHECKPOINTS")]
    mean_of_last: Option<usize>,
}

#[derive(Args)]
struct InspectArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Examples of each task
    #[arg(short = 'n', long, default_value_t = 3)]
    examples: usize,
}

fn main() -> ExitCode {
    let result = match Command::parse().what {
        What::Vocab(arguments) => vocab(&arguments),
        What::Run(arguments) => run(&arguments),
        What::Eval(arguments) => eval(&arguments),
        What::Export(arguments) => export(&arguments),
        What::InspectData(arguments) => inspect(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("t5-train: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn vocab(arguments: &VocabArguments) -> Result<()> {
    let config = arguments.config.load()?;
    let tokenizer = config.data.train_vocabulary(&config.vocabulary, config.run.seed)?;
    pipeline::create_parent(&arguments.output)?;
    let vocabulary = vocabulary::save(&tokenizer, &arguments.output)?;
    let (pieces, sentinels) = (vocabulary.size(), vocabulary.sentinels().count);
    eprintln!("{}: {pieces} ids, {sentinels} of them sentinels", arguments.output.display());
    Ok(())
}

fn run(arguments: &ConfigArguments) -> Result<()> {
    let config = arguments.load()?;
    let pipeline = Pipeline::load(&config)?;
    eprint!("{}", data::inspect(&pipeline.tasks, &pipeline.vocabulary, 0)?);
    let model = pipeline::model(&config, &pipeline.vocabulary)?.with_precision(config.run.precision)?;
    eprintln!("model: {} parameters in {} tensors", model.parameters(), model.vars().len());
    let extra = pipeline::model_files(&config, model.config(), &pipeline.vocabulary)?;
    let parts = Parts {
        source: Box::new(pipeline.batches(&config)?),
        dev: pipeline.dev_batches(config.evaluation.examples)?,
        evaluator: Some(Box::new(pipeline.evaluator(&config, config.evaluation.examples))),
        model,
        extra,
    };
    let mut trainer = Trainer::open(&config, parts)?;
    trainer.run()?;
    eprintln!("done: {}", trainer.checkpoints().path(trainer.step()).display());
    Ok(())
}

fn eval(arguments: &EvalArguments) -> Result<()> {
    let config = arguments.config.load()?;
    let pipeline = Pipeline::load(&config)?;
    let exported = config.run.output.join("evaluated");
    let model = match &arguments.model {
        Some(model) => model.clone(),
        None => {
            export::export(&config.run.output, None, Weights::Best, &exported)?;
            exported
        }
    };
    let report = pipeline.evaluator(&config, arguments.examples).evaluate(&model)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", evaluate::table(&report.metrics, &report.samples));
    }
    Ok(())
}

fn export(arguments: &ExportArguments) -> Result<()> {
    let weights = match (arguments.mean_of_last, arguments.current) {
        (Some(count), _) => Weights::MeanOfLast(count),
        (None, true) => Weights::Current,
        (None, false) => Weights::Best,
    };
    let step = export::export(&arguments.run, arguments.step, weights, &arguments.output)?;
    eprintln!("step {step} -> {}", arguments.output.display());
    Ok(())
}

fn inspect(arguments: &InspectArguments) -> Result<()> {
    let config = arguments.config.load()?;
    let pipeline = Pipeline::load(&config)?;
    print!("{}", data::inspect(&pipeline.tasks, &pipeline.vocabulary, arguments.examples)?);
    let mut batches = pipeline.batches(&config)?;
    let (mut fill, mut tokens, count) = (0.0, 0, 64);
    for _ in 0..count {
        let batch = batches.next_batch()?;
        fill += batch.fill().2;
        tokens += batch.tokens();
    }
    println!(
        "{count} batches: {} tokens each, {:.1} % of the slots filled",
        tokens / count,
        100.0 * fill / count as f64
    );
    Ok(())
}
