//! The whole road for one's own file: a table with two columns and a model become the configuration of a run, with the
//! paper's way to fine-tune (Adafactor at a constant rate of 0.001, dropout 0.1) at lengths that the texts need.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::config::Config;
use crate::extend::Extension;
use crate::source::{self, Format};
use crate::tasks::{self, HoldOut, TaskConfig, TextExample};
use crate::vocabulary::{UNK, Vocabulary};
use crate::{Error, Result, checkpoint, files};

/// The name of the one task.
const TASK: &str = "finetune";
/// Longer inputs and targets are cut, as the paper's.
const LONGEST: usize = 512;
/// So many different targets or fewer are classes, where each is seen ten times on average.
const MOST_CLASSES: usize = 50;
/// Slots of a batch.
const TOKENS: usize = 2048;
/// Evaluations in an epoch.
const EVALUATIONS: u64 = 2;
/// The share of the records that is held out.
pub const HELD_OUT: f64 = 0.1;
/// Examples held out at most.
const MOST_HELD_OUT: usize = 1000;

/// Metrics of texts, and the score of each that a checkpoint is best by.
const METRICS: [(&str, &str); 7] = [
    ("exact-match", "exact-match"),
    ("bleu", "bleu"),
    ("chrf", "chrf"),
    ("rouge", "rougeLsum"),
    ("squad", "squad-f1"),
    ("pearson", "pearson"),
    ("spearman", "spearman"),
];

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The model: a folder or a GGUF file.
    pub from: PathBuf,
    /// The table: CSV, TSV, JSON lines, Parquet or a data-set folder, by its name.
    pub data: PathBuf,
    /// A table to evaluate on; `None`: the folder's validation split, or a held-out part.
    pub dev: Option<PathBuf>,
    /// The column of the inputs.
    pub input: String,
    /// The column of the targets.
    pub target: String,
    /// What stands before every input.
    pub prefix: String,
    /// The folder for all that is made.
    pub output: PathBuf,
    /// Texts that become tokens first.
    pub add_tokens: Vec<String>,
    /// The share of the records that is held out; `None`: [`HELD_OUT`], where there is nothing else to evaluate on.
    pub hold_out: Option<f64>,
    /// Passes over the records at most.
    pub epochs: u64,
    /// Evaluations without a better one after which the run ends.
    pub patience: u64,
    /// What the best checkpoint is best by; `None`: exact matches of classes, chrF of other texts.
    pub metric: Option<String>,
    /// Knobs of the configuration that are changed, as KEY=VALUE.
    pub sets: Vec<String>,
}

/// A run that is ready to begin.
pub struct Prepared {
    pub config: Config,
    /// What was found in the data, for people.
    pub report: String,
    /// Characters that the vocabulary loses, as [`crate::extend::parse_tokens`] takes them.
    pub strange: Vec<String>,
}

/// What the model with more tokens was made of, beside it.
#[derive(Serialize, Deserialize)]
struct Base {
    from: PathBuf,
    add_tokens: Vec<String>,
}

impl Base {
    /// Refuses what is asked for otherwise than the folder was made.
    fn expect(&self, asked: &Base, folder: &Path) -> Result<()> {
        let refuse = |option, made: String, found: String| {
            let what = format!("expected {made}, of which {} was made, found {found}", folder.display());
            Err(Error::Option { option, what })
        };
        if self.from != asked.from {
            return refuse("from", self.from.display().to_string(), asked.from.display().to_string());
        }
        if self.add_tokens != asked.add_tokens {
            return refuse("add_tokens", format!("{:?}", self.add_tokens), format!("{:?}", asked.add_tokens));
        }
        Ok(())
    }
}

impl Request {
    /// The run's folder.
    pub fn run(&self) -> PathBuf {
        self.output.join("run")
    }

    /// The Hugging Face folder of the best checkpoint.
    pub fn model(&self) -> PathBuf {
        self.output.join("model")
    }

    /// The quantised file of the best checkpoint.
    pub fn gguf(&self) -> PathBuf {
        self.output.join("model.gguf")
    }

    /// Looks at the data and the model, and makes the configuration. With tokens to add, the extended model is written.
    ///
    /// # Errors
    /// Where the model or a table cannot be read, a column is not there, or there are too few records.
    pub fn prepare(&self) -> Result<Prepared> {
        let task = self.task()?;
        let mut report = String::new();
        let from = self.extended()?;
        let checkpoint = t5_quantize::pytorch::open(&from)?;
        if checkpoint.vocabulary.is_none() {
            return Err(Error::file(&from, "expected a model with its vocabulary, found none"));
        }
        let vocabulary = Vocabulary::read(&from)?;
        let (examples, held_out) = tasks::training_examples(&task, Path::new(""), 1)?;
        if examples.is_empty() {
            return Err(Error::file(&self.data, "expected records below the columns' names, found none"));
        }
        let _ = writeln!(report, "{}: {} records to train on", self.data.display(), examples.len());
        let (found, strange) = strange_characters(&examples, &vocabulary);
        report += &found;
        if held_out == 0 {
            let what = "expected records to evaluate on, found none: hold out a larger share or name a table";
            return Err(Error::file(&self.data, what));
        }
        let lengths = Lengths::of(&examples, &vocabulary);
        if lengths.cut > 0 {
            let _ = writeln!(report, "{} of them are longer than {LONGEST} tokens and are cut", lengths.cut);
        }
        let metric = match &self.metric {
            Some(name) if name == "loss" => None,
            Some(name) => Some(name.clone()),
            None => Some(if are_classes(&examples) { "exact-match" } else { "chrf" }.to_owned()),
        };
        let config = self.config(&from, task, metric.as_deref(), &lengths)?;
        Ok(Prepared { config, report, strange })
    }

    /// The model with the tokens that were asked for.
    fn extended(&self) -> Result<PathBuf> {
        if self.add_tokens.is_empty() {
            return Ok(self.from.clone());
        }
        let (folder, record) = (self.output.join("base"), self.output.join("base.json"));
        let from = std::path::absolute(&self.from).map_err(Error::io(&self.from))?;
        let asked = Base { from, add_tokens: self.add_tokens.clone() };
        // A run that was killed goes on from what was written then.
        if folder.join(checkpoint::MODEL).exists() {
            // Older versions left no record.
            if let Some(made) = files::read_json::<Base>(&record)? {
                made.expect(&asked, &folder)?;
            }
        } else {
            files::create_folder(&self.output)?;
            files::write_json(&record, &asked)?;
            let extension = Extension { add_tokens: self.add_tokens.clone(), ..Extension::default() };
            extension.write(&t5_quantize::pytorch::open(&self.from)?, &folder)?;
        }
        Ok(folder)
    }

    /// The task, after a look at the tables' columns.
    fn task(&self) -> Result<TaskConfig> {
        let format = self.check_table(&self.data)?;
        let mut train = self.data.clone();
        let mut dev = self.dev.clone();
        if self.data.is_dir() {
            let split = |name: &str| source::has_split(&self.data, name).then(|| self.data.join(name));
            if let Some(split_to_train) = split("train") {
                train = split_to_train;
                dev = dev.or_else(|| split("validation")).or_else(|| split("dev"));
            }
        }
        if let Some(dev) = &self.dev
            && self.check_table(dev)? != format
        {
            return Err(Error::file(dev, format!("expected a table of the same kind as {}", self.data.display())));
        }
        let absolute = |path: PathBuf| std::path::absolute(&path).map_err(Error::io(&path));
        let brace = |text: &str| text.replace('{', "{{").replace('}', "}}");
        if let (Some(share), Some(dev)) = (self.hold_out, &dev) {
            let what = format!("expected none, as {} is there to evaluate on, found {share}", dev.display());
            return Err(Error::Option { option: "hold_out", what });
        }
        let hold_out = HoldOut { field: self.input.clone(), share: self.hold_out.unwrap_or(HELD_OUT) };
        Ok(TaskConfig {
            limit_tokens: None,
            name: TASK.to_owned(),
            source: tasks::SourceConfig { format, header: format == Format::Tsv, ..Default::default() },
            train: vec![absolute(train)?],
            hold_out: dev.is_none().then_some(hold_out),
            dev: dev.map(absolute).transpose()?.into_iter().collect(),
            examples: tasks::Examples::Template {
                input: format!("{}{{{}}}", brace(&self.prefix), self.input),
                target: format!("{{{}}}", self.target),
            },
            metrics: Vec::new(),
            rate: None,
            max_examples: None,
            divide_inputs: 0.0,
            divide_targets: 0.0,
            max_dev_examples: Some(MOST_HELD_OUT),
            merge_references: false,
        })
    }

    /// The format of a table that has both columns.
    fn check_table(&self, path: &Path) -> Result<Format> {
        let Some(format) = source::format_of(path) else {
            let what = "expected a name that ends in .csv, .tsv, .jsonl or .parquet (.gz, .xz or .zst may follow), \
                 or a folder with Parquet files";
            return Err(Error::file(path, what));
        };
        let columns = source::columns(path, format)?;
        let asked = || [&self.input, &self.target].into_iter();
        if let Some(name) = asked().find(|name| name.contains(['{', '}'])) {
            let what = format!("expected a column with a name without braces, found {name}");
            return Err(Error::file(path, what));
        }
        if let [only] = &columns[..] {
            let what =
                format!("expected two columns or more, found one ({only}); is it {format:?} with other separators?");
            return Err(Error::file(path, what));
        }
        if let Some(missing) = asked().find(|name| !columns.contains(name)) {
            let what = format!("expected a column {missing}, found {}", columns.join(", "));
            return Err(Error::file(path, what));
        }
        Ok(format)
    }

    fn config(&self, from: &Path, mut task: TaskConfig, metric: Option<&str>, lengths: &Lengths) -> Result<Config> {
        if let Some(name) = metric {
            task.metrics = vec![name.to_owned()];
        }
        let best_by = match metric {
            Some(name) => format!("{TASK}/{}", score_of(name)?),
            None => "loss".to_owned(),
        };
        let [inputs, targets] = lengths.longest;
        let tokens = TOKENS.max(inputs + targets);
        // About so many batches: what padding fills is not counted.
        let per_epoch = (lengths.tokens.div_ceil(tokens) as u64).max(1);
        let evaluations = (per_epoch / EVALUATIONS).max(1);
        let table = |pairs: &[(&str, Value)]| {
            Value::Table(pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
        };
        // TOML has no larger numbers; so much is for ever.
        let integer = |value: u64| Value::Integer(i64::try_from(value).unwrap_or(i64::MAX));
        let size = |value: usize| integer(value as u64);
        let text = |value: &str| Value::String(value.to_owned());
        let path = |value: &Path| text(&value.display().to_string());
        let task = Value::try_from(task).map_err(|error| Error::Invalid(format!("configuration: {error}")))?;
        let steps = per_epoch.saturating_mul(self.epochs).max(1);
        let sections = [
            ("run", table(&[("output", path(&self.run())), ("steps", integer(steps))])),
            ("model", table(&[("from", path(from)), ("dropout", Value::Float(0.1))])),
            (
                "data",
                table(&[
                    ("dir", text("")),
                    ("inputs_length", size(inputs)),
                    ("targets_length", size(targets)),
                    (
                        "batches",
                        table(&[("layout", text("bucket")), ("tokens", size(tokens)), ("window", integer(16))]),
                    ),
                    ("tasks", Value::Array(vec![task])),
                ]),
            ),
            ("optimizer", table(&[("kind", text("adafactor"))])),
            (
                "schedule",
                table(&[("kind", text("constant")), ("peak_rate", Value::Float(1e-3)), ("warmup_steps", integer(1))]),
            ),
            ("checkpoint", table(&[("every_steps", integer(evaluations)), ("keep_last", integer(1))])),
            ("log", table(&[("every_steps", integer((evaluations / 5).clamp(1, 50)))])),
            (
                "evaluation",
                table(&[
                    ("every_steps", integer(evaluations)),
                    ("examples", size(MOST_HELD_OUT)),
                    ("max_tokens", size(targets)),
                    ("best_by", text(&best_by)),
                    ("patience", integer(self.patience)),
                ]),
            ),
        ];
        let document: Table = sections.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let toml = toml::to_string(&document).map_err(|error| Error::Invalid(format!("configuration: {error}")))?;
        Config::parse("finetune", &toml, &self.sets)
    }
}

fn score_of(metric: &str) -> Result<&'static str> {
    METRICS.iter().find(|(name, _)| *name == metric).map(|(_, score)| *score).ok_or_else(|| {
        let names: Vec<&str> = METRICS.iter().map(|(name, _)| *name).collect();
        Error::Invalid(format!("metric: expected loss, {}, found {metric}", names.join(", ")))
    })
}

/// What examples are in tokens, end marks counted.
struct Lengths {
    /// Of inputs and of targets, at most [`LONGEST`].
    longest: [usize; 2],
    /// Of all examples together, as they are cut.
    tokens: usize,
    /// How many examples are longer.
    cut: usize,
}

impl Lengths {
    fn of(examples: &[TextExample], vocabulary: &Vocabulary) -> Lengths {
        let mut lengths = Lengths { longest: [2, 2], tokens: 0, cut: 0 };
        for example in examples {
            let both = [&example.inputs, &example.targets].map(|text| vocabulary.encode(text).len() + 1);
            lengths.cut += usize::from(both.iter().any(|&length| length > LONGEST));
            for (longest, length) in lengths.longest.iter_mut().zip(both) {
                let length = length.min(LONGEST);
                *longest = (*longest).max(length);
                lengths.tokens += length;
            }
        }
        lengths
    }
}

fn are_classes(examples: &[TextExample]) -> bool {
    let classes: HashSet<&str> = examples.iter().map(|example| example.targets.as_str()).collect();
    classes.len() <= MOST_CLASSES && 10 * classes.len() <= examples.len()
}

/// Which characters of the texts the vocabulary does not know or does not give back: a line each way, and the most
/// frequent ones as [`crate::extend::parse_tokens`] takes them.
fn strange_characters(examples: &[TextExample], vocabulary: &Vocabulary) -> (String, Vec<String>) {
    const SHOWN: usize = 12;
    #[derive(Default)]
    struct Seen {
        count: usize,
        /// Records with it.
        records: usize,
        last: Option<usize>,
    }
    let mut seen: BTreeMap<char, Seen> = BTreeMap::new();
    for (number, example) in examples.iter().enumerate() {
        for c in example.inputs.chars().chain(example.targets.chars()) {
            let seen = seen.entry(c).or_default();
            seen.count += 1;
            if seen.last.replace(number) != Some(number) {
                seen.records += 1;
            }
        }
    }
    let unknown = |c: char| vocabulary.encode(&format!("a{c}b")).contains(&UNK);
    // White space that is no space comes back as one.
    let blurred = |c: char| {
        c != ' ' && c.is_whitespace() && !vocabulary.decode(&vocabulary.encode(&format!("a{c}b"))).contains(c)
    };
    let (lost, rest): (Vec<_>, Vec<_>) = seen.into_iter().partition(|&(c, _)| unknown(c));
    let blurred: Vec<_> = rest.into_iter().filter(|&(c, _)| blurred(c)).collect();
    let (mut report, mut strange) = (String::new(), Vec::new());
    for (mut found, what) in [(lost, "are unknown to the vocabulary"), (blurred, "become spaces")] {
        if found.is_empty() {
            continue;
        }
        found.sort_by_key(|(_, seen)| std::cmp::Reverse(seen.count));
        let characters: usize = found.iter().map(|(_, seen)| seen.count).sum();
        let list =
            found.iter().take(SHOWN).map(|(c, seen)| format!("{c:?} {} times in {} lines", seen.count, seen.records));
        let more = if found.len() > SHOWN { format!(" and {} more", found.len() - SHOWN) } else { String::new() };
        let _ = writeln!(
            report,
            "note: {characters} characters of the texts {what}: {}{more}",
            list.collect::<Vec<_>>().join(", ")
        );
        strange.extend(found.iter().take(SHOWN).map(|(c, _)| crate::extend::typed(*c)));
    }
    (report, strange)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_epoch_is_a_pass_over_the_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("own.csv");
        fs::write(&data, "text,class\na,b\n").unwrap();
        let (input, target) = ("text".to_owned(), "class".to_owned());
        let output = folder.path().join("out");
        let request = Request { data, input, target, output, epochs: 3, ..Request::default() };
        // A byte is a token, where four characters of a text are about one in other vocabularies.
        let vocabulary = Vocabulary::bytes(384).unwrap();
        let example = |inputs: usize, targets: usize| TextExample::new("a".repeat(inputs), "b".repeat(targets));
        let mut examples = vec![example(99, 9); 360];
        examples.push(example(5000, 9));
        let lengths = Lengths::of(&examples, &vocabulary);
        assert_eq!((lengths.longest, lengths.cut), ([LONGEST, 10], 1));
        assert_eq!(lengths.tokens, 360 * (100 + 10) + LONGEST + 10);
        let config = request.config(Path::new("none"), request.task().unwrap(), None, &lengths).unwrap();
        let epoch = lengths.tokens.div_ceil(TOKENS) as u64;
        assert_eq!((epoch, config.run.steps, config.evaluation.every_steps), (20, 3 * epoch, epoch / EVALUATIONS));
    }
}
