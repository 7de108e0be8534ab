//! What can be typed.

// What documents an argument is its help on a terminal, which is not Markdown.
#![allow(rustdoc::broken_intra_doc_links, rustdoc::invalid_html_tags)]

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use t5_runtime::{EarlyStopping, LengthPenaltyKind, Lookup, Mean, Pooling};

use super::usage;

/// Runs models of the T5 family: text in, text out.
#[derive(Parser)]
#[command(name = "t5", version = VERSION, about, after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

/// With what it was built for and, in releases, of which commit.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("POCKET_T5_BUILD"), ")");

/// `t5 TEXT` is short for `t5 generate TEXT`.
const EXAMPLES: &str = "\
t5 TEXT is short for t5 generate TEXT, and so is echo TEXT | t5. Without arguments, on a terminal, t5 asks for texts.

Examples:
  t5 \"translate English to German: Where is the station?\"
  t5 --model hf:google/flan-t5-small \"summarize: ...\"
  t5 generate --input texts.txt --output answers.txt

The built-in model knows: translate English to German: ..., translate German to English: ...,
translate English to French: ..., translate French to English: ..., pronounce: WORD, fix: ..., and text with gaps
<extra_id_0>, <extra_id_1>, ...

Exit codes: 0, 1 for what cannot be done, 2 for arguments that cannot be understood, 3 where some inputs of a job with
--strict gave no result.";

#[derive(Subcommand)]
pub enum Command {
    /// Generate a text for each line of input
    Generate(Box<GenerateArgs>),
    /// Log-probability of a target text given a source text, for each line SOURCE<TAB>TARGET
    Score(ScoreArgs),
    /// Which word of the source each word of a target comes from, for each line SOURCE<TAB>TARGET
    Align(PairArgs),
    /// The encoder's states of each text: one vector, or one for each token
    Embed(Box<EmbedArgs>),
    /// The class of each text, or of each of its tokens
    Classify(ClassifyArgs),
    /// The part of a text that answers a question, for each line QUESTION<TAB>CONTEXT
    Answer(AnswerArgs),
    /// Token ids of each line of input, or the text of token ids
    Tokenize(TokenizeArgs),
    /// What a model file holds
    Inspect(InspectArgs),
    /// Measure speed and memory with random ids
    Bench(BenchArgs),
    /// What makes a shell complete t5's arguments
    #[command(hide = true)]
    Completions {
        /// bash, elvish, fish, powershell or zsh
        shell: clap_complete::Shell,
    },
    /// Write manual pages, a file for each subcommand
    #[command(hide = true)]
    Man {
        /// Where to
        folder: PathBuf,
    },
    /// Answer requests over HTTP
    #[cfg(feature = "serve")]
    Serve(ServeArgs),
}

#[derive(Args)]
pub struct ModelArgs {
    /// A GGUF or safetensors file, a folder, or hf:OWNER/NAME[/FOLDER|/FILE][:TYPE][@REVISION]; by default the built-in
    /// model. Downloads obey HF_TOKEN, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE and HF_ENDPOINT. Several, for t5 generate,
    /// decode as one
    #[arg(long, short, value_name = "MODEL")]
    pub model: Vec<String>,
    /// Force an instruction set (scalar, avx2, avx512, ...); by default the best one is used
    #[arg(long, value_name = "NAME")]
    pub isa: Option<String>,
    /// Keep the weights in this file as products read them: made the first time, then mapped, so that a large model
    /// starts at once and processes share its memory
    #[arg(long, value_name = "FILE")]
    pub packed: Option<PathBuf>,
    /// Read the weights into memory, do not map their file: for files that may be written in place meanwhile, as on a
    /// network drive
    #[arg(long, conflicts_with = "packed")]
    pub no_mmap: bool,
    /// Say what was noticed while opening the model
    #[arg(long, short)]
    pub verbose: bool,
}

#[derive(Args)]
pub struct InputArgs {
    /// Input texts; each gives one result
    #[arg(value_name = "TEXT")]
    pub text: Vec<String>,
    /// Read input lines from a file, or from standard input if it is -
    #[arg(long, short, value_name = "FILE", conflicts_with = "text")]
    pub input: Option<PathBuf>,
}

/// How the inputs of a job are to be read.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TextFormat {
    /// A text a line
    Lines,
    /// A JSON object a line
    Jsonl,
}

/// What is done with a text that is too long.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TooLong {
    Error,
    Truncate,
}

/// How a job of many inputs is done.
#[derive(Args)]
pub struct WorkArgs {
    /// How input is read. jsonl: objects, whose fields come back with the result; one that has no result gives {"id",
    /// "line", "error"} in its place, and the work goes on
    #[arg(long, value_enum, default_value = "lines")]
    pub input_format: TextFormat,
    /// jsonl: the key of the text [default: text]
    #[arg(long, value_name = "KEY")]
    pub text_field: Option<String>,
    /// jsonl: the key of the object's name [default: id]
    #[arg(long, value_name = "KEY")]
    pub id_field: Option<String>,
    /// jsonl: the key of the result [default: output]
    #[arg(long, value_name = "KEY")]
    pub output_field: Option<String>,
    /// jsonl: exit code 3 if an object has no result
    #[arg(long)]
    pub strict: bool,
    /// Write to a file, compressed if it is called .gz or .zst. Until it is whole it is called FILE.partial
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Go on with what a killed job has left in FILE.partial, given the same input
    #[arg(long, requires = "output")]
    pub resume: bool,
}

impl WorkArgs {
    pub fn are_objects(&self) -> bool {
        self.input_format == TextFormat::Jsonl
    }

    pub fn text_field(&self) -> &str {
        self.text_field.as_deref().unwrap_or("text")
    }

    pub fn id_field(&self) -> &str {
        self.id_field.as_deref().unwrap_or("id")
    }

    pub fn output_field(&self) -> &str {
        self.output_field.as_deref().unwrap_or("output")
    }

    /// Refuses what says how objects are read where there are none.
    pub fn check(&self) -> anyhow::Result<()> {
        let given = [
            ("--text-field", self.text_field.is_some()),
            ("--id-field", self.id_field.is_some()),
            ("--output-field", self.output_field.is_some()),
            ("--strict", self.strict),
        ];
        only_of_objects(self.are_objects(), &given)
    }
}

/// Refuses flags that say how objects are read, those that are given, where inputs are none.
pub fn only_of_objects(objects: bool, given: &[(&str, bool)]) -> anyhow::Result<()> {
    match given.iter().find(|(_, given)| *given && !objects) {
        Some((flag, _)) => Err(usage(format!("{flag}: expected --input-format jsonl with it"))),
        None => Ok(()),
    }
}

/// Which formula compares beams of different length.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Penalty {
    /// T5's own: ((5 + n) / 6)^A
    T5,
    /// The transformers library's: n^A
    Hf,
}

impl From<Penalty> for LengthPenaltyKind {
    fn from(penalty: Penalty) -> LengthPenaltyKind {
        match penalty {
            Penalty::T5 => LengthPenaltyKind::T5,
            Penalty::Hf => LengthPenaltyKind::HuggingFace,
        }
    }
}

/// When beam search with the transformers library's penalty ends.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stopping {
    Yes,
    No,
    Never,
}

impl From<Stopping> for EarlyStopping {
    fn from(stopping: Stopping) -> EarlyStopping {
        match stopping {
            Stopping::Yes => EarlyStopping::Yes,
            Stopping::No => EarlyStopping::No,
            Stopping::Never => EarlyStopping::Never,
        }
    }
}

/// When tokens are looked up.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum When {
    Auto,
    On,
    Off,
}

impl From<When> for Lookup {
    fn from(when: When) -> Lookup {
        match when {
            When::Auto => Lookup::Auto,
            When::On => Lookup::On,
            When::Off => Lookup::Off,
        }
    }
}

/// Whether something is done that is done by default in some cases only.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum YesNo {
    Yes,
    No,
}

/// A sequence of token ids: `5,6`.
#[derive(Clone)]
pub struct Ids(pub Vec<u32>);

impl std::str::FromStr for Ids {
    type Err = String;

    fn from_str(text: &str) -> Result<Ids, String> {
        let ids = text.split(',').map(|id| id.trim().parse::<u32>().ok()).collect::<Option<Vec<u32>>>();
        ids.map(Ids).ok_or_else(|| "expected token ids with commas between them".to_owned())
    }
}

/// A sequence of token ids and a number: `5,6=-2.5`.
#[derive(Clone)]
pub struct Bias(pub Vec<u32>, pub f32);

impl std::str::FromStr for Bias {
    type Err = String;

    fn from_str(text: &str) -> Result<Bias, String> {
        let parse = |(ids, bias): (&str, &str)| Some(Bias(ids.parse::<Ids>().ok()?.0, bias.trim().parse().ok()?));
        text.split_once('=').and_then(parse).ok_or_else(|| "expected IDS=BIAS, such as 5,6=-2.5".to_owned())
    }
}

/// A count and a factor: `20:1.05`.
#[derive(Clone, Copy)]
pub struct Decay(pub usize, pub f32);

impl std::str::FromStr for Decay {
    type Err = String;

    fn from_str(text: &str) -> Result<Decay, String> {
        let parse =
            |(start, factor): (&str, &str)| Some(Decay(start.trim().parse().ok()?, factor.trim().parse().ok()?));
        text.split_once(':').and_then(parse).ok_or_else(|| "expected START:FACTOR, such as 20:1.05".to_owned())
    }
}

impl ModelArgs {
    /// The model, where one is named. Several are an error.
    pub fn one(&self) -> anyhow::Result<Option<&str>> {
        match &self.model[..] {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            several => Err(usage(format!("--model: expected one model for this, found {}", several.len()))),
        }
    }
}

/// What several models' predictions become.
#[derive(Clone, Copy, Default, ValueEnum)]
pub enum Averaged {
    /// The mean of the logits, before the softmax
    #[default]
    Logits,
    /// The mean of the probabilities
    Probabilities,
}

impl From<Averaged> for Mean {
    fn from(averaged: Averaged) -> Mean {
        match averaged {
            Averaged::Logits => Mean::Logits,
            Averaged::Probabilities => Mean::Probabilities,
        }
    }
}

#[derive(Args)]
pub struct GenerateArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// What is averaged where several models decode as one [default: logits]
    #[arg(long, value_name = "WHAT")]
    pub average: Option<Averaged>,
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub work: WorkArgs,
    /// Put a task's prefix before each text and generate with its settings; `t5 inspect` lists the tasks of a model
    #[arg(long, value_name = "NAME")]
    pub task: Option<String>,
    /// Beam search with N beams; 1 is greedy search
    #[arg(long, value_name = "N")]
    pub beams: Option<usize>,
    /// Divide the beams into N groups, each unlike those before it
    #[arg(long, value_name = "N")]
    pub beam_groups: Option<usize>,
    /// What a token loses for each beam of the groups before that chose it in the same step
    #[arg(long, value_name = "D", allow_negative_numbers = true)]
    pub diversity_penalty: Option<f32>,
    /// The exponent of the length penalty: 0.6 in the T5 paper
    #[arg(long, value_name = "A", allow_negative_numbers = true)]
    pub length_penalty: Option<f32>,
    /// The formula of the length penalty
    #[arg(long, value_enum)]
    pub penalty: Option<Penalty>,
    /// When beam search ends, with --penalty hf
    #[arg(long, value_enum)]
    pub early_stopping: Option<Stopping>,
    /// Give the N best results, or N independent samples. With T5's length penalty, fewer where fewer beams have ended
    #[arg(long, value_name = "N")]
    pub n_best: Option<usize>,
    /// At most N new tokens
    #[arg(long, value_name = "N")]
    pub max_new_tokens: Option<usize>,
    /// At least N new tokens
    #[arg(long, value_name = "N")]
    pub min_new_tokens: Option<usize>,
    /// Sample with this temperature; 0 chooses the most likely token
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub temperature: Option<f32>,
    /// Sample among the K most likely tokens; 0: among all, without a limit
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Sample among the most likely tokens that together reach probability P
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub top_p: Option<f32>,
    /// Sample among tokens at least P times as likely as the most likely one
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub min_p: Option<f32>,
    /// Sample among the most typical tokens that together reach probability P
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub typical_p: Option<f32>,
    /// Sample among tokens of at least probability P
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub epsilon_cutoff: Option<f32>,
    /// The same with a bound that falls as the distribution widens
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub eta_cutoff: Option<f32>,
    /// Sample among the most likely tokens that hold this share of the entropy
    #[arg(long, value_name = "H", allow_negative_numbers = true)]
    pub top_h: Option<f32>,
    /// The same seed gives the same text
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// Make tokens that were generated already less likely (above 1)
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    pub repetition_penalty: Option<f32>,
    /// Make tokens of the source more likely (above 1)
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    pub encoder_repetition_penalty: Option<f32>,
    /// Never generate the same N tokens in a row twice
    #[arg(long, value_name = "N")]
    pub no_repeat_ngram: Option<usize>,
    /// Never generate N tokens in a row that stand in the source
    #[arg(long, value_name = "N")]
    pub encoder_no_repeat_ngram: Option<usize>,
    /// After START new tokens the end becomes likelier by a factor with each
    #[arg(long, value_name = "START:FACTOR")]
    pub exponential_decay: Option<Decay>,
    /// The first token
    #[arg(long, value_name = "ID")]
    pub forced_bos: Option<u32>,
    /// The token at the limit of new tokens
    #[arg(long, value_name = "IDS")]
    pub forced_eos: Option<Ids>,
    /// Tokens that are never generated
    #[arg(long, value_name = "IDS")]
    pub suppress: Option<Ids>,
    /// Tokens that are not generated first
    #[arg(long, value_name = "IDS")]
    pub begin_suppress: Option<Ids>,
    /// A sequence of tokens that is never generated; may be given several times
    #[arg(long, value_name = "IDS")]
    pub bad_words: Vec<Ids>,
    /// Add BIAS to the logit of the last of IDS where the others stand before it; may be given several times
    #[arg(long, value_name = "IDS=BIAS")]
    pub sequence_bias: Vec<Bias>,
    /// Beams: normalise log-probabilities again after penalties and the like
    #[arg(long)]
    pub renormalize: bool,
    /// Take NaN for 0 and infinities for the largest numbers
    #[arg(long)]
    pub remove_invalid: bool,
    /// Greedy search of one text tries tokens that follow its last ones in the source [default: where that costs
    /// next to nothing]
    #[arg(long, value_enum, value_name = "WHEN")]
    pub lookup: Option<When>,
    /// Read each text sentence by sentence, or whole [default: as its task says]
    #[arg(long, value_enum, value_name = "YES|NO")]
    pub split_sentences: Option<YesNo>,
    /// Refuse a text of more than N tokens (a sentence, where texts are read so)
    #[arg(long, value_name = "N")]
    pub max_input_tokens: Option<usize>,
    /// What is done with such a text
    #[arg(long, value_enum, value_name = "HOW", default_value = "error")]
    pub too_long: TooLong,
    /// The same as --too-long truncate
    #[arg(long)]
    pub truncate: bool,
    /// Rank texts as answers and print the likeliest: A,B,C, or a file with one on each line; with --json all of them
    #[arg(long, value_name = "FILE|A,B,C", conflicts_with_all = [
        "beams", "beam_groups", "diversity_penalty", "length_penalty", "penalty", "early_stopping", "max_new_tokens",
        "min_new_tokens", "temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff",
        "top_h", "seed", "repetition_penalty", "encoder_repetition_penalty", "no_repeat_ngram",
        "encoder_no_repeat_ngram", "exponential_decay", "forced_bos", "forced_eos", "suppress", "begin_suppress",
        "bad_words", "sequence_bias", "renormalize", "remove_invalid", "lookup", "split_sentences", "prefix", "stop",
        "batch", "jobs", "stats",
    ])]
    pub choices: Option<String>,
    /// Let each result match a regular expression as a whole; a text is then read whole, too. Of a result that is cut
    /// short, as by --max-new-tokens, a note says so
    #[arg(long, value_name = "PATTERN", conflicts_with_all = ["choices", "json_schema", "split_sentences"])]
    pub regex: Option<String>,
    /// Let each result be JSON by a schema, which stands here or in a file. A result that is cut short may be none,
    /// and a note says so
    #[arg(long, value_name = "FILE|{…}", conflicts_with_all = ["choices", "split_sentences"])]
    pub json_schema: Option<String>,
    /// Text that each result must begin with
    #[arg(long, value_name = "TEXT")]
    pub prefix: Option<String>,
    /// End a result before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Decode N inputs side by side; by default as many as is fast, of those that are there already, but one at a time
    /// where its text is shown as it comes
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// With --batch, wait so many milliseconds for as many inputs before those that are there are begun
    #[arg(long, value_name = "MS", default_value_t = 20)]
    pub flush_ms: u64,
    /// Share each step's work among N threads [default: the cores of a NUMA node, at most 16]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Work on N groups of inputs at once, each with threads of its own
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub jobs: usize,
    /// Show each text as it comes, into pipes and files, too, one input after the other; with --json an object for each
    /// piece, {"line", "piece"}, and one of all behind them
    #[arg(long, conflicts_with_all = ["batch", "jobs", "choices"])]
    pub stream: bool,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    /// Print times to standard error
    #[arg(long)]
    pub stats: bool,
}

#[derive(Args)]
pub struct ScoreArgs {
    #[command(flatten)]
    pub pairs: PairArgs,
    #[command(flatten)]
    pub work: WorkArgs,
    /// jsonl: the key of the target [default: target]
    #[arg(long, value_name = "KEY")]
    pub target_field: Option<String>,
}

#[derive(Args)]
pub struct PairArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Lines SOURCE<TAB>TARGET, or standard input if it is -
    #[arg(long, short, value_name = "PAIRS.tsv")]
    pub input: PathBuf,
    /// Share each step's work among N threads [default: the cores of a NUMA node, at most 16]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// What is made of the states of a text's tokens.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PoolingArg {
    /// Their mean
    Mean,
    /// The states of all tokens
    None,
    /// The first token's
    First,
    /// The last token's, which is </s>
    Last,
    /// The largest value of each dimension
    Max,
}

impl From<PoolingArg> for Pooling {
    fn from(pooling: PoolingArg) -> Pooling {
        match pooling {
            PoolingArg::Mean => Pooling::Mean,
            PoolingArg::None => Pooling::None,
            PoolingArg::First => Pooling::First,
            PoolingArg::Last => Pooling::Last,
            PoolingArg::Max => Pooling::Max,
        }
    }
}

/// How input is to be read.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    /// A text a line
    Lines,
    /// A JSON object a line
    Jsonl,
    /// Proteins: records of a name and residues
    Fasta,
}

/// The numbers in a file of states.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StatesType {
    F32,
    F16,
    Bf16,
}

#[derive(Args)]
pub struct EmbedArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub input: InputArgs,
    /// What is made of the states of a text's tokens [default: what the model was trained with, or mean]
    #[arg(long, value_enum)]
    pub pooling: Option<PoolingArg>,
    /// Write to FILE.npy ([texts, d_model]; without pooling [texts, tokens, d_model], for texts of one length) or to
    /// FILE.safetensors (a tensor for each text, named by its number from 0, its --id-field or its FASTA record;
    /// without pooling NAME.mask beside it says which rows are no padding)
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The numbers in the file
    #[arg(long, value_enum, default_value = "f32", requires = "output")]
    pub dtype: StatesType,
    /// Divide each vector by its length
    #[arg(long)]
    pub normalize: bool,
    /// Take each text for N tokens: pad it, or cut it before </s>
    #[arg(long, value_name = "N")]
    pub pad_to: Option<usize>,
    /// Whether padding is masked; no: it is attended to, as FLUX, SD3 and CogVideoX do
    #[arg(long, value_enum, value_name = "YES|NO", default_value = "yes", requires = "pad_to")]
    pub pad_mask: YesNo,
    /// The states behind K blocks, as transformers' hidden_states[K]: 0 are the embeddings, -1 the encoder's output
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    pub layer: Option<isize>,
    /// Another tokenizer than the model's: tokenizer.json, a SentencePiece model, a folder with one, a GGUF file, or
    /// hf:OWNER/NAME, of which nothing else is downloaded
    #[arg(long, value_name = "FILE|FOLDER|hf:…")]
    pub tokenizer: Option<String>,
    /// The prompt of a sentence model that is put before each text, by its name [default: what the model says]
    #[arg(long, value_name = "NAME", conflicts_with = "prefix")]
    pub prompt: Option<String>,
    /// Text before each text, in the place of a prompt; with FASTA a space follows it
    #[arg(long, value_name = "TEXT")]
    pub prefix: Option<String>,
    /// How input is read. fasta: residues are separated, U, Z, O and B become X, and the states are those of residues
    /// alone
    #[arg(long, value_enum, default_value = "lines")]
    pub input_format: InputFormat,
    /// jsonl: the key of the text [default: text]
    #[arg(long, value_name = "KEY")]
    pub text_field: Option<String>,
    /// jsonl: the key of the text's name
    #[arg(long, value_name = "KEY")]
    pub id_field: Option<String>,
    /// jsonl: exit code 3 if an object has no result; with --output one ends the job in any case
    #[arg(long)]
    pub strict: bool,
    /// Share each step's work among N threads [default: the cores of a NUMA node, at most 16]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct ClassifyArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub input: InputArgs,
    /// Share each step's work among N threads [default: the cores of a NUMA node, at most 16]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// One JSON object a line, with the scores of all labels
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct AnswerArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub input: InputArgs,
    /// Answers have at most N tokens
    #[arg(long, value_name = "N", default_value_t = 15)]
    pub max_answer_tokens: usize,
    /// Share each step's work among N threads [default: the cores of a NUMA node, at most 16]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct TokenizeArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub input: InputArgs,
    /// Input lines hold ids; print their text
    #[arg(long)]
    pub decode: bool,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct InspectArgs {
    /// A GGUF or safetensors file, a folder, or hf:OWNER/NAME[/FOLDER|/FILE][:TYPE][@REVISION]; by default the built-in
    /// model
    #[arg(value_name = "MODEL")]
    pub model: Option<String>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct BenchArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Source tokens of each input
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub input_tokens: usize,
    /// Tokens generated for each input
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub new_tokens: usize,
    /// Inputs decoded side by side
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub batch: usize,
    /// Share each step's work among N threads [default: the cores of a NUMA node, at most 16]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Work on N groups of inputs at once, each with threads of its own
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub jobs: usize,
    /// Beams of each input
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub beams: usize,
    /// Runs counted, after one that is not
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub repeats: usize,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// How lines of the log are written.
#[cfg(feature = "serve")]
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    /// A JSON object a line
    Json,
}

/// What is written to the log.
#[cfg(feature = "serve")]
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    Error,
    Warn,
    /// A line for each request, too
    Info,
    Debug,
}

#[cfg(feature = "serve")]
#[derive(Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// The address to listen on; 0.0.0.0 for all of them
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub host: std::net::IpAddr,
    /// The port to listen on; 0: one that is free, which the log tells
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub port: u16,
    /// What requests call the model [default: the name of its file or folder]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Decode N sequences side by side in each batch: a request has as many as it has beams or draws, for each sentence
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub parallel: usize,
    /// Work the model with N threads [default: the processors' cores; where one batch has all of them, those of a NUMA
    /// node, at most 16]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Have N batches, which share the threads: each request joins the one that has least to do [default: one for each
    /// thread where the decoder is small enough for a processor's caches, else one for all]
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
    /// Take in at most N texts, those that wait included; what comes above that is answered 429
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub queue: usize,
    /// Keep at most N connections open; what comes above that waits
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub connections: usize,
    /// Refuse a body of more than N bytes
    #[arg(long, value_name = "N", default_value_t = 1 << 20)]
    pub max_body_bytes: usize,
    /// Refuse a text of more than N tokens
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub max_input_tokens: usize,
    /// Refuse a request for more than N new tokens of a text (a sentence, where texts are read so)
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub max_new_tokens: usize,
    /// Give a request up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub timeout: u64,
    /// After SIGTERM or SIGINT, wait so many seconds for what was begun
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub drain: u64,
    /// Ask for the bearer token in this file; so does the variable T5_SERVE_TOKEN
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Let pages of this origin, such as https://example.org, read answers; * for all. May be given several times
    #[arg(long, value_name = "ORIGIN")]
    pub cors: Vec<String>,
    /// How lines of the log are written
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// What is written to the log, on standard error
    #[arg(long, value_enum, default_value = "info")]
    pub log: LogLevel,
}
