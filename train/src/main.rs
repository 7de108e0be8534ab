//! The `t5-train` command.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use t5_train::config::Config;
use t5_train::export::{self, Weights};
use t5_train::pipeline::{self, Pipeline};
use t5_train::trainer::{Parts, Trainer};
use t5_train::{batches::BatchSource, tasks::Task};

/// Text-to-text pre-training and fine-tuning of T5 models.
#[derive(Parser)]
#[command(version, about)]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Train, or continue a run that was interrupted
    Run(ConfigArguments),
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
        What::Run(arguments) => run(&arguments),
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

fn run(arguments: &ConfigArguments) -> Result<()> {
    let config = arguments.load()?;
    let pipeline = Pipeline::load(&config)?;
    for task in pipeline.tasks.iter() {
        report(task);
    }
    let model = pipeline::model(&config, &pipeline.vocabulary)?;
    eprintln!("model: {} parameters in {} tensors", model.parameters(), model.vars().len());
    let extra = pipeline::model_files(&config, model.config(), &pipeline.vocabulary)?;
    let parts = Parts {
        source: Box::new(pipeline.batches(&config)?),
        dev: pipeline.dev_batches(config.evaluation.examples)?,
        evaluator: None,
        model,
        extra,
    };
    let mut trainer = Trainer::open(&config, parts)?;
    trainer.run()?;
    eprintln!("done: {}", trainer.checkpoints().path(trainer.step()).display());
    Ok(())
}

fn report(task: &Task) {
    let report = &task.report;
    eprintln!(
        "task {}: {} examples of {} records ({} truncated, {} too long and left out, {} filtered, {} unused), {} for evaluation",
        task.config.name,
        report.examples,
        report.records,
        report.truncated,
        report.dropped,
        report.filtered,
        report.unused,
        report.dev_examples
    );
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
    let spelled = |ids: &[u32]| -> String {
        ids.iter().map(|&id| pipeline.vocabulary.piece(id)).collect::<Vec<_>>().join(" ")
    };
    for task in pipeline.tasks.iter() {
        report(task);
        for n in 0..arguments.examples.min(task.len()) {
            let example = task.draw(n as u64, &pipeline.vocabulary)?;
            println!("{} {n}", task.config.name);
            println!("  inputs  ({:3}) {}", example.inputs.len(), spelled(&example.inputs));
            println!("  targets ({:3}) {}", example.targets.len(), spelled(&example.targets));
        }
    }
    let mut batches = pipeline.batches(&config)?;
    let (mut fill, mut tokens, count) = (0.0, 0, 64);
    for _ in 0..count {
        let batch = batches.next_batch()?;
        fill += batch.fill().2;
        tokens += batch.tokens();
    }
    println!("{count} batches: {} tokens each, {:.1} % of the slots filled", tokens / count, 100.0 * fill / count as f64);
    Ok(())
}
