//! The `t5-train` command.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::mpsc::RecvTimeoutError;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::storage::is_same_file;
use t5_runtime::{Mean, Model, command};
use t5_train::config::{self, Config};
use t5_train::distill::answers::{self, Search, Written};
use t5_train::evaluate::RuntimeEvaluator;
use t5_train::export::{self, Weights};
use t5_train::extend::{self, Extension};
use t5_train::finetune::{Prepared, Request};
use t5_train::mean::WeightedMean;
use t5_train::pipeline::{self, Pipeline};
use t5_train::plan::{self, Plan};
use t5_train::ranks::{self, Ranks, World};
use t5_train::trainer::{Parts, Trainer};
use t5_train::tuning::Method;
use t5_train::{
    Error, batches::BatchSource, corpus, data, evaluate, files, precision, report, storing, study, trainer, vocabulary,
};

/// Text-to-text pre-training and fine-tuning of T5 models.
#[derive(Parser)]
#[command(version, about)]
struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Train a vocabulary on the tasks' texts
    Vocab(VocabArguments),
    /// Make a corpus of web text: cleaned by the rules of C4, without repeats, and as ids; or go on with one
    Corpus(CorpusArguments),
    /// Train, or continue a run that was interrupted
    Run(ConfigArguments),
    /// Print what a run will take: parameters, memory, arithmetic, and time at this machine's speed
    Plan(ConfigArguments),
    /// Fine-tune a model on the two columns of a table, and write the best checkpoint as one file
    Finetune(FinetuneArguments),
    /// Write what a run's teacher answers to the training inputs, as records to train on
    Answers(AnswersArguments),
    /// Run a model, or several as one, over the dev examples and print the tasks' metrics
    Eval(EvalArguments),
    /// Run an experiment with all its arms and seeds, and print its table beside the paper's
    Study(StudyArguments),
    /// Print what storing a model costs: the tasks' metrics, size and speed in each type that a file can have
    Storing(StoringArguments),
    /// Write a run's checkpoint as a Hugging Face folder
    Export(ExportArguments),
    /// Write a model to train on from: an existing one with more tokens, with blocks left out or put in
    Extend(ExtendArguments),
    /// Write the mean of models of one shape and vocabulary, such as rounds of training, as a Hugging Face folder
    Mean(MeanArguments),
    /// Write one HTML page about a run: curves, samples, configuration
    Report(ReportArguments),
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
    /// Runs `work` on the threads that the configuration asks for. Everything happens on threads of that pool: calling
    /// it from outside would cost a change of threads for every small product.
    fn with_config(&self, work: impl FnOnce(Config) -> Result<()> + Send) -> Result<()> {
        let config = Config::load(&self.config, &self.sets)?;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(config.run.threads).build()?;
        pool.install(|| work(config))
    }
}

#[derive(Args)]
#[cfg_attr(feature = "cluster", command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true))]
struct CorpusArguments {
    #[cfg(feature = "cluster")]
    #[command(subcommand)]
    server: Option<CorpusServer>,
    /// The corpus's TOML file; every knob is in train/configs/corpus.toml
    #[arg(required = true)]
    config: Option<PathBuf>,
    /// Change one knob
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Keep so many pages of each rule that removed some, in removed.jsonl
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_removed: usize,
    /// Let the executors of this scheduler do the work: df://HOST:PORT. All machines see the files by the same paths
    #[cfg(feature = "cluster")]
    #[arg(long, value_name = "ADDRESS")]
    cluster: Option<String>,
}

/// The processes of a cluster. They ask nobody who they are: for networks of your own.
#[cfg(feature = "cluster")]
#[derive(Subcommand)]
enum CorpusServer {
    /// Share the steps of corpora out to executors
    Scheduler {
        /// Where to listen
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:50050")]
        listen: std::net::SocketAddr,
        /// Seconds after which an executor that says nothing is taken for dead, and its work done again
        #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(6..))]
        executor_timeout: u64,
    },
    /// Do what a scheduler gives out
    Executor {
        /// The scheduler
        #[arg(long, value_name = "HOST:PORT", default_value = "localhost:50050")]
        scheduler: String,
        /// Where others fetch exchanged data
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:50051")]
        listen: std::net::SocketAddr,
        /// The name by which others reach this machine; otherwise the address that the scheduler sees
        #[arg(long)]
        host: Option<String>,
        /// Parts at the same time; 0: as many as processors
        #[arg(long, default_value_t = 0)]
        threads: usize,
        /// The folder for exchanged data; otherwise one for temporary files
        #[arg(long, value_name = "FOLDER")]
        work: Option<PathBuf>,
    },
}

#[cfg(feature = "cluster")]
impl CorpusServer {
    fn serve(&self) -> Result<()> {
        match self {
            CorpusServer::Scheduler { listen, executor_timeout } => {
                corpus::cluster::Scheduler { listen: *listen, executor_timeout: *executor_timeout }.serve()?;
            }
            CorpusServer::Executor { scheduler, listen, host, threads, work } => {
                let port = |(host, port): (&str, &str)| Some((host.to_owned(), port.parse().ok()?));
                let Some(scheduler) = scheduler.rsplit_once(':').and_then(port) else {
                    bail!(command::usage(format!("--scheduler: expected HOST:PORT, found {scheduler}")));
                };
                let own = || std::env::temp_dir().join(format!("t5-train-executor-{}", listen.port()));
                let work = work.clone().unwrap_or_else(own);
                corpus::cluster::Executor { scheduler, listen: *listen, host: host.clone(), threads: *threads, work }
                    .serve()?;
            }
        }
        Ok(())
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
struct FinetuneArguments {
    /// The model: a folder or a GGUF file, whose stored values are expanded
    #[arg(long, value_name = "MODEL")]
    from: PathBuf,
    /// The table: .csv, .tsv or .jsonl (also .gz, .xz, .zst), .parquet, or a Hugging Face data-set folder
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// The column of the inputs
    #[arg(long, value_name = "COLUMN")]
    input: String,
    /// The column of the targets
    #[arg(long, value_name = "COLUMN")]
    target: String,
    /// What stands before every input: 'sst2 sentence: '
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// The folder for the run, the model (a Hugging Face folder) and model.gguf
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// A table to evaluate on; otherwise the data set's validation split, or records that are held out
    #[arg(long, value_name = "FILE", conflicts_with = "hold_out")]
    dev: Option<PathBuf>,
    /// The share of the records that is held out to evaluate on, where no others are; otherwise 0.1
    #[arg(long, value_name = "SHARE")]
    hold_out: Option<f64>,
    /// Passes over the records at most
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    epochs: u64,
    /// Evaluations, two in an epoch, without a better one that end the run; 0: none do
    #[arg(long, default_value_t = 6)]
    patience: u64,
    /// What makes a checkpoint the best: exact-match, bleu, chrf, rouge, squad, pearson, spearman or loss; otherwise
    /// exact-match where the targets are classes (at most 50 different ones, each seen ten times on average), chrf
    /// where they are texts
    #[arg(long)]
    metric: Option<String>,
    /// Texts that become one token each first, with commas between them: '{,},\n'
    #[arg(long, value_name = "TOKENS")]
    add_tokens: Option<String>,
    /// Change one knob of the run
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

#[derive(Args)]
struct AnswersArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// The file to write: JSON lines with input, target (the answer), reference, score and task
    output: PathBuf,
    /// Answers kept while searching; 1: greedy
    #[arg(short, long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    beams: u8,
}

#[derive(Args)]
struct EvalArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// A model folder or GGUF file; otherwise the run's best checkpoint. Several decode as one
    #[arg(short, long)]
    model: Vec<PathBuf>,
    /// What is averaged where several models decode as one; otherwise logits
    #[arg(long, value_name = "WHAT")]
    average: Option<Averaged>,
    /// Examples of each task; 0: all
    #[arg(short = 'n', long, default_value_t = 0)]
    examples: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What several models' predictions become.
#[derive(Clone, Copy, ValueEnum)]
enum Averaged {
    /// The mean of the logits, before the softmax
    Logits,
    /// The mean of the probabilities
    Probabilities,
}

#[derive(Args)]
struct StudyArguments {
    /// The study's TOML file; those of the paper's tables are in train/studies
    study: PathBuf,
    /// Lengths, sizes and steps: tiny takes minutes an arm, base is the paper's
    #[arg(long, default_value = study::USUAL_SCALE, value_name = "SCALE")]
    scale: String,
    /// The folder for all that is made; otherwise studies/STUDY-SCALE
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Run this arm alone, for jobs on several machines with one folder; may be given several times
    #[arg(long = "arm", value_name = "NAME")]
    arms: Vec<String>,
    /// Measure these columns alone, with commas between them
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    columns: Vec<String>,
    /// Runs side by side, which share the processors
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: u16,
    /// Print the table as far as it is there, and the jobs that are open, and run nothing
    #[arg(long)]
    look: bool,
    /// Change one knob of every run, but not its seed and its folder
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

#[derive(Args)]
struct StoringArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// A model folder or file, best with the values that it was trained to
    #[arg(short, long)]
    model: PathBuf,
    /// Examples of each task; 0: all
    #[arg(short = 'n', long, default_value_t = 0)]
    examples: usize,
    /// A way to store it: a file's type, and exceptions as t5-quantize --keep has them, 'q4_k,decoder.*=q8_0'. May be
    /// given several times; otherwise every type of a file and one mixture
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
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
    /// Write the LoRA factors alone, as PEFT's adapter_config.json and adapter_model.safetensors
    #[arg(long, conflicts_with_all = ["current", "mean_of_last"])]
    adapter: bool,
    /// Take the parameters even where the run keeps a moving average of them
    #[arg(long, conflicts_with = "mean_of_last")]
    current: bool,
    /// Take the mean over the last so many checkpoints
    #[arg(long, value_name = "CHECKPOINTS")]
    mean_of_last: Option<usize>,
    /// Take the mean with other runs of the same model that began alike, say with other seeds: each gives what this one
    /// does
    #[arg(long, value_name = "RUN", conflicts_with = "adapter")]
    mean_with: Vec<PathBuf>,
}

#[derive(Args)]
struct ExtendArguments {
    /// The model: a folder or a GGUF file, whose stored values are expanded
    model: PathBuf,
    /// The folder to write, for model.from
    output: PathBuf,
    /// Texts that become one token each, with commas between them: '{,},\n'; a new row is the mean of the rows of the
    /// pieces that spelled it
    #[arg(long, value_name = "TOKENS")]
    add_tokens: Option<String>,
    /// The new encoder's blocks by their numbers in the old one: 0,1,2,3,3 has one more, which starts as no change
    #[arg(long, value_name = "BLOCKS", value_delimiter = ',')]
    encoder_blocks: Option<Vec<usize>>,
    /// The new decoder's blocks: 0,3 leaves out those between
    #[arg(long, value_name = "BLOCKS", value_delimiter = ',')]
    decoder_blocks: Option<Vec<usize>>,
}

#[derive(Args)]
struct MeanArguments {
    /// The models, two or more: folders or GGUF files, whose stored values are expanded
    #[arg(required = true)]
    models: Vec<PathBuf>,
    /// The folder to write
    #[arg(short, long)]
    output: PathBuf,
    /// Each model's share of the mean, in their order: 0.6,0.4; otherwise equal ones
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', allow_negative_numbers = true)]
    shares: Option<Vec<f64>>,
}

#[derive(Args)]
struct ReportArguments {
    /// The run's folder
    run: PathBuf,
    /// The file to write; otherwise report.html in the run's folder
    #[arg(short, long)]
    output: Option<PathBuf>,
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
    command::report::<Command>(start())
}

fn start() -> Result<()> {
    let arguments: Command = command::parse(std::env::args_os())?;
    keep_candle_single_threaded();
    match arguments.action {
        Action::Vocab(arguments) => arguments.config.with_config(|config| vocab(&config, &arguments)),
        Action::Corpus(arguments) => corpus(&arguments),
        Action::Run(arguments) => run_with_others(&arguments),
        Action::Plan(arguments) => arguments.with_config(plan),
        Action::Finetune(arguments) => finetune(arguments),
        Action::Answers(arguments) => arguments.config.with_config(|config| write_answers(&config, &arguments)),
        Action::Eval(arguments) => arguments.config.with_config(|config| eval(&config, &arguments)),
        Action::Study(arguments) => run_study(arguments),
        Action::Storing(arguments) => arguments.config.with_config(|config| storing(&config, &arguments)),
        Action::Export(arguments) => export(&arguments),
        Action::Extend(arguments) => extend(arguments),
        Action::Mean(arguments) => mean(&arguments),
        Action::Report(arguments) => report(&arguments),
        Action::InspectData(arguments) => arguments.config.with_config(|config| inspect(&config, &arguments)),
    }
}

/// Candle adds gradients on a pool of its own, whose threads spin while they wait, and the pool's size is read from
/// the environment. The large work is done on our threads, so the process starts again with that pool switched off.
fn keep_candle_single_threaded() {
    #[cfg(unix)]
    if std::env::var_os("CANDLE_NUM_THREADS").is_none()
        && let Ok(program) = std::env::current_exe()
    {
        use std::os::unix::process::CommandExt;
        // Returns only if it failed. The run is then slower, and that is all.
        let _ =
            std::process::Command::new(program).args(std::env::args_os().skip(1)).env("CANDLE_NUM_THREADS", "1").exec();
    }
}

/// Refuses an output that would take the place of something that is read.
fn refuse_read(name: &str, output: &Path, read: impl IntoIterator<Item = PathBuf>) -> Result<()> {
    match read.into_iter().find(|file| is_same_file(file, output)) {
        Some(file) => {
            bail!(command::usage(format!("{name}: expected another file than {}, which is read", file.display())))
        }
        None => Ok(()),
    }
}

/// Prints what a command is called for. Where nobody reads any more it fails, which [`command::report`] takes for no
/// failure; the macro would panic.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

fn vocab(config: &Config, arguments: &VocabArguments) -> Result<()> {
    vocabulary::check_name(&arguments.output).map_err(by_flag)?;
    let data = &config.data;
    let texts = data.tasks.iter().flat_map(|task| task.train.iter().chain(&task.dev)).map(|file| data.dir.join(file));
    refuse_read("--output", &arguments.output, texts.chain([arguments.config.config.clone()]))?;
    let tokenizer = config.data.train_vocabulary(&config.vocabulary, config.run.seed)?;
    pipeline::create_parent(&arguments.output)?;
    let vocabulary = vocabulary::save(&tokenizer, &arguments.output)?;
    let (pieces, sentinels) = (vocabulary.size(), vocabulary.sentinels().count);
    command::say(format_args!("{}: {pieces} ids, {sentinels} of them sentinels", arguments.output.display()));
    Ok(())
}

fn corpus(arguments: &CorpusArguments) -> Result<()> {
    #[cfg(feature = "cluster")]
    if let Some(server) = &arguments.server {
        return server.serve();
    }
    let Some(config) = &arguments.config else { bail!(command::usage("expected the corpus's TOML file")) };
    let options = corpus::options::Options::load(config, &arguments.sets, arguments.keep_removed)?;
    #[cfg(feature = "cluster")]
    let cluster = arguments.cluster.as_deref().map(corpus::cluster::Cluster::new).transpose()?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build()?;
    let (progress, started) = (corpus::job::Progress::default(), std::time::Instant::now());
    let bar = indicatif::ProgressBar::new_spinner();
    let (working, ended) = std::sync::mpsc::channel::<()>();
    let (report, before) = std::thread::scope(|scope| {
        let (bar, progress, started) = (&bar, &progress, &started);
        scope.spawn(move || {
            // Also where the work panics, its end of the channel goes.
            while ended.recv_timeout(std::time::Duration::from_millis(100)) == Err(RecvTimeoutError::Timeout) {
                let (pages, bytes) = (progress.pages.load(Ordering::Relaxed), progress.bytes.load(Ordering::Relaxed));
                let mb = bytes as f64 / 1e6;
                // Each page counts when it is read, when it is written and when it becomes ids.
                let rate = mb / started.elapsed().as_secs_f64().max(0.001);
                bar.set_message(format!("{pages} pages worked on, {mb:.0} MB, {rate:.1} MB/s"));
                bar.tick();
            }
        });
        let _working = working;
        #[cfg(feature = "cluster")]
        if let Some(cluster) = &cluster {
            return corpus::cluster::run(cluster, &options, progress);
        }
        pool.install(|| corpus::job::run(&options, progress))
    })?;
    bar.finish_and_clear();
    print(&report.table())?;
    let (output, seconds) = (options.output.display(), started.elapsed().as_secs_f64());
    if before {
        command::say(format_args!("{output}: was made before of the same files by the same rules"));
    } else {
        let memory = trainer::peak_memory_mb().map_or(String::new(), |mb| format!(", {mb:.0} MB of memory at most"));
        command::say(format_args!("{output}: {seconds:.1} s{memory}"));
    }
    Ok(())
}

/// Runs a configuration as one of the processes that a launcher may have started. One that fails ends all.
fn run_with_others(arguments: &ConfigArguments) -> Result<()> {
    let world = World::join()?;
    let ranks = world.ranks();
    let loaded = ranks.together(Config::load(&arguments.config, &arguments.sets));
    let result = loaded.and_then(|config| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(world.threads(config.run.threads)).build()?;
        let local_rank = world.local_rank();
        pool.install(|| run(config, None, ranks, local_rank))
    });
    match result {
        Ok(()) => world.leave(),
        Err(error) if ranks.size() == 1 => return Err(error),
        Err(error) => {
            if !error.downcast_ref::<Error>().is_some_and(Error::is_of_all_ranks) {
                command::report::<Command>(Err(error.context(format!("rank {}", ranks.rank()))));
            } else if ranks.is_first() {
                command::report::<Command>(Err(error));
            } else {
                // Until the first has said it and ends all.
                ranks.meet();
            }
            world.abort();
        }
    }
    Ok(())
}

/// Trains. One of many runs has a title; one of several processes of a run has a number on its machine.
fn run(mut config: Config, title: Option<&str>, ranks: Ranks, local_rank: usize) -> Result<()> {
    let say = |text: &str| {
        if ranks.is_first() {
            command::say(text.trim_end());
        }
    };
    let (batches, size) = (config.run.accumulate, ranks.size());
    let enough = if batches >= size {
        Ok(())
    } else {
        let what = format!("run.accumulate: expected {size} batches, one for each rank, or more; found {batches}");
        Err(Error::Invalid(what))
    };
    // Configurations have not been compared yet: another rank's may have enough.
    ranks.together(enough)?;
    let load = || -> Result<_> {
        let pipeline = Pipeline::load(&config)?;
        evaluate::check_best_by(&config.evaluation, &pipeline.tasks)?;
        let model = pipeline::model(&config, &pipeline.vocabulary)?;
        Ok((pipeline, model))
    };
    let (pipeline, mut model) = ranks.together(load())?;
    if title.is_none() {
        say(&data::inspect(&pipeline.tasks, &pipeline.vocabulary, 0));
    }
    // What one rank measures holds for all.
    let settled = if ranks.is_first() {
        precision::settle(&mut config, model.config().d_model, model.config().d_ff)
    } else {
        Ok(None)
    };
    if let Some(line) = ranks.together(settled)? {
        say(&line);
    }
    let precision = ranks.first_says(&serde_json::to_vec(&config.run.precision)?);
    config.run.precision = serde_json::from_slice(&precision)?;
    pipeline.expect_same(&config, ranks)?;
    let config = &config;
    let device = ranks.together(config.run.device.device(local_rank))?;
    let connected = device.as_ref().map_or(Ok(false), |device| ranks.connect_gpus(device));
    if ranks.together(connected)? {
        say("gradients: added up by NCCL");
    }
    let finish = || -> Result<_> {
        if let Some(device) = device {
            model = model.composed_on(device);
        }
        let model = model.with_precision(config.run.precision.precision())?;
        let extra = pipeline::model_files(config, model.config(), &pipeline.vocabulary)?;
        let teacher = pipeline::teacher(config, model.config(), &pipeline.vocabulary, ranks)?;
        let evaluator = RuntimeEvaluator { ranks, ..pipeline.evaluator(config, config.evaluation.examples) };
        Ok(Parts {
            source: Box::new(pipeline.batches(config)?),
            dev: pipeline.dev_batches(config.evaluation.examples)?,
            dev_name: pipeline.dev_name(),
            evaluator: Some(Box::new(evaluator)),
            teacher,
            model,
            extra,
            ranks,
        })
    };
    let parts = ranks.together(finish())?;
    let model = &parts.model;
    let trained = match config.tuning.method {
        Method::Lora => format!(", {} of factors are trained", model.trained_values()),
        Method::Adapters => format!(", {} of adapters are trained", model.trained_values()),
        Method::All | Method::Gradual => String::new(),
    };
    let before = title.map_or(String::new(), |title| format!("{title}: "));
    let (count, tensors) = (model.parameters(), model.vars().len());
    say(&format!("{before}model: {count} parameters in {tensors} tensors{trained}"));
    if let Some(cost) = Plan::new(config, model.config()).cost_of_recomputing() {
        say(&format!("{before}computed again: {cost}"));
    }
    let mut trainer = Trainer::open(config, parts)?;
    if let Some(title) = title {
        trainer.set_title(title);
    }
    trainer.run()?;
    if title.is_none() {
        say(&format!("done: {}", trainer.checkpoints().path(trainer.step()).display()));
    }
    Ok(())
}

fn run_study(arguments: StudyArguments) -> Result<()> {
    let StudyArguments { study: file, scale, output, arms, columns, jobs, look, sets } = arguments;
    let output = output.unwrap_or_else(|| {
        let name = file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Path::new("studies").join(format!("{name}-{scale}"))
    });
    let plan = study::Plan::new(&study::Request { file, scale, output, arms, columns, sets });
    let plan = plan.map_err(|error| match error {
        Error::LeftOut { what, why } if why.len() > 1 => {
            why.iter().for_each(command::say);
            Error::Invalid(format!("{what}: expected what the {} lines above name", why.len())).into()
        }
        error => by_flag(error),
    })?;
    for arm in &plan.arms {
        if let Some(why) = &arm.left_out {
            command::say(format_args!("arm {} is left out: {}", arm.arm.name, why.join("\n")));
        }
    }
    if look {
        for job in plan.wanted().into_iter().filter(|&job| !plan.is_done(job)) {
            command::say(format_args!("open: {} ({})", plan.jobs[job].title, plan.jobs[job].name));
        }
    } else {
        let train = |config: Config, title: &str| {
            run(config, Some(title), Ranks::ALONE, 0).map_err(|error| Error::Invalid(format!("{error:#}")))
        };
        study::run(&plan, jobs.into(), &train)?;
    }
    let results = study::Results::read(&plan)?;
    let page = study::write(&plan, &results)?;
    print(&results.terminal(&plan))?;
    command::say(format_args!("{} and table.md, table.csv, table.tex beside it", page.display()));
    Ok(())
}

/// The configuration for a model that was named; where the configuration names no vocabulary, with the model's own.
fn with_vocabulary(config: &Config, model: Option<&Path>) -> Config {
    let mut config = config.clone();
    if let Some(model) = model
        && config.model.vocabulary.is_empty()
        && config.model.from.is_empty()
    {
        config.model.vocabulary = model.display().to_string();
    }
    config
}

fn plan(mut config: Config) -> Result<()> {
    let model = pipeline::t5_config(&config)?;
    if let Some(line) = precision::settle(&mut config, model.d_model, model.d_ff)? {
        command::say(line);
    }
    let speed = plan::measure(&config, &model)?;
    print(&Plan::new(&config, &model).table(speed))
}

fn finetune(arguments: FinetuneArguments) -> Result<()> {
    ranks::expect_alone("t5-train finetune")?;
    let request = Request {
        from: arguments.from,
        data: arguments.data,
        dev: arguments.dev,
        input: arguments.input,
        target: arguments.target,
        prefix: arguments.prefix,
        output: arguments.output,
        add_tokens: add_tokens(arguments.add_tokens.as_deref())?,
        hold_out: arguments.hold_out,
        epochs: arguments.epochs,
        patience: arguments.patience,
        metric: arguments.metric,
        sets: arguments.sets,
    };
    let Prepared { config, report, strange } = request.prepare().map_err(by_flag)?;
    command::say(report.trim_end());
    if !strange.is_empty() {
        command::say(format_args!("--add-tokens '{}' teaches them", strange.join(",")));
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(config.run.threads).build()?;
    pool.install(|| run(config.clone(), None, Ranks::ALONE, 0))?;
    // A knob may have named another folder than the request does.
    let (run, model, gguf) = (&config.run.output, request.model(), request.gguf());
    let step = export::export(run, None, Weights::Best, &[], &model)?;
    let bytes = storing::write_q8_0(&Checkpoint::open(&model)?, &gguf)?;
    let memory = trainer::peak_memory_mb().map_or(String::new(), |mb| format!(", {mb:.0} MB of memory at most"));
    command::say(format_args!("step {step} is the best: {} ({:.1} MB){memory}", gguf.display(), bytes as f64 / 1e6));
    command::say("Use it:");
    let (kept, gguf) = (run.join(config::KEPT), gguf.display());
    print(&format!(
        "t5 generate --model {gguf} '{}…'\nt5-train eval {} --model {gguf}\n",
        request.prefix.replace('\'', "'\\''"),
        kept.display()
    ))
}

/// An error of a field, by the name of the flag that gives it.
fn by_flag(error: Error) -> anyhow::Error {
    match error {
        Error::Option { option, what } => command::usage(format!("--{}: {what}", option.replace('_', "-"))),
        error => error.into(),
    }
}

/// A list of tokens as it was typed.
fn add_tokens(list: Option<&str>) -> Result<Vec<String>> {
    Ok(list.map(extend::parse_tokens).transpose().map_err(by_flag)?.unwrap_or_default())
}

fn write_answers(config: &Config, arguments: &AnswersArguments) -> Result<()> {
    let data = &config.data;
    let read = data.tasks.iter().flat_map(|task| task.train.iter().chain(&task.dev)).map(|file| data.dir.join(file));
    refuse_read("OUTPUT", &arguments.output, read.chain([arguments.config.config.clone()]))?;
    let search = Search { beams: arguments.beams.into(), length_penalty: config.evaluation.length_penalty };
    let bar = indicatif::ProgressBar::new(0).with_style(trainer::progress_style());
    let written = answers::write(config, search, &arguments.output, |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    let Written { answers, unfinished, continued } = written;
    let output = arguments.output.display();
    command::say(format_args!(
        "{output}: {answers} answers ({continued} inputs were answered before; {unfinished} answers without an end \
         within {} tokens were left out)",
        data.targets_length
    ));
    Ok(())
}

fn eval(config: &Config, arguments: &EvalArguments) -> Result<()> {
    if arguments.average.is_some() && arguments.model.len() < 2 {
        let found = arguments.model.len();
        return Err(command::usage(format!("--average: expected two --model or more with it, found {found}")));
    }
    let named = arguments.model.first().map(PathBuf::as_path);
    let pipeline = Pipeline::load(&with_vocabulary(config, named))?;
    let exported;
    let models = if arguments.model.is_empty() {
        // The run may go on at this time, and has a folder of its own for what it evaluates.
        export::expect_checkpoint(&config.run.output)?;
        exported = files::TemporaryFolder::new(&config.run.output, "eval")?;
        export::export(&config.run.output, None, Weights::Best, &[], exported.path())?;
        vec![Model::open(exported.path())?]
    } else {
        arguments.model.iter().map(Model::open).collect::<Result<_, _>>()?
    };
    let mean = match arguments.average {
        None | Some(Averaged::Logits) => Mean::Logits,
        Some(Averaged::Probabilities) => Mean::Probabilities,
    };
    let report = pipeline.evaluator(config, arguments.examples).judge(&Model::ensemble(models, mean)?)?.report;
    print(&if arguments.json {
        serde_json::to_string_pretty(&report)? + "\n"
    } else {
        evaluate::table(&report.metrics, &report.samples)
    })
}

fn storing(config: &Config, arguments: &StoringArguments) -> Result<()> {
    let checkpoint = Checkpoint::open(&arguments.model)?;
    let evaluator =
        Pipeline::load(&with_vocabulary(config, Some(&arguments.model)))?.evaluator(config, arguments.examples);
    let types = match arguments.types.as_slice() {
        [] => storing::USUAL.map(str::to_owned).to_vec(),
        types => types.to_vec(),
    };
    let stored = storing::compare(&checkpoint, &types, &evaluator, |stored| {
        command::say(format_args!(
            "{}: {} bytes, {:.0} words a second",
            stored.name, stored.bytes, stored.words_per_second
        ));
    })?;
    print(&storing::table(&stored))
}

fn export(arguments: &ExportArguments) -> Result<()> {
    let weights = match (arguments.mean_of_last, arguments.current) {
        (Some(count), _) => Weights::MeanOfLast(count),
        (None, true) => Weights::Current,
        (None, false) => Weights::Best,
    };
    let step = if arguments.adapter {
        export::adapter(&arguments.run, arguments.step, &arguments.output)?
    } else {
        export::export(&arguments.run, arguments.step, weights, &arguments.mean_with, &arguments.output)?
    };
    command::say(format_args!("step {step} -> {}", arguments.output.display()));
    Ok(())
}

fn extend(arguments: ExtendArguments) -> Result<()> {
    let add_tokens = add_tokens(arguments.add_tokens.as_deref())?;
    let ExtendArguments { encoder_blocks, decoder_blocks, .. } = arguments;
    let checkpoint = Checkpoint::open(&arguments.model)?;
    let extension = Extension { add_tokens, encoder_blocks, decoder_blocks };
    let model = extension.write(&checkpoint, &arguments.output).map_err(by_flag)?;
    let (config, output) = (model.config(), arguments.output.display());
    let (rows, encoder, decoder) = (config.vocab_size, config.num_layers, config.num_decoder_layers);
    command::say(format_args!(
        "{output}: {} parameters, {rows} rows, {encoder} and {decoder} blocks",
        model.parameters()
    ));
    Ok(())
}

fn mean(arguments: &MeanArguments) -> Result<()> {
    let models = arguments.models.iter().map(|model| Checkpoint::open(model)).collect::<Result<Vec<_>, _>>()?;
    let mean = WeightedMean::new(models, arguments.shares.as_deref()).map_err(by_flag)?;
    mean.doubt().iter().for_each(|note| command::say(format_args!("note: {note}")));
    let output = arguments.output.display();
    let model = mean.write(&arguments.output)?;
    command::say(format_args!(
        "{output}: {} parameters, the mean of {} models",
        model.parameters(),
        arguments.models.len()
    ));
    Ok(())
}

fn report(arguments: &ReportArguments) -> Result<()> {
    let output = arguments.output.clone().unwrap_or_else(|| arguments.run.join("report.html"));
    refuse_read("--output", &output, report::files(&arguments.run))?;
    let page = report::html(&arguments.run)?;
    files::replace(&output, page.as_bytes())?;
    command::say(format_args!("{}", output.display()));
    Ok(())
}

fn inspect(config: &Config, arguments: &InspectArguments) -> Result<()> {
    let pipeline = Pipeline::load(config)?;
    print(&data::inspect(&pipeline.tasks, &pipeline.vocabulary, arguments.examples))?;
    let mut batches = pipeline.batches(config)?;
    let (mut fill, mut tokens, count) = (0.0, 0, 64);
    for _ in 0..count {
        let batch = batches.next_batch()?;
        fill += batch.fill().2;
        tokens += batch.tokens();
    }
    print(&format!(
        "{count} batches: {} tokens each, {:.1} % of the slots filled\n",
        tokens / count,
        100.0 * fill / count as f64
    ))
}
