//! The data of a run: its tasks, their mixture and the stream of batches.

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    Result,
    batches::{BatchConfig, TaskBatches},
    mixture::{Mixing, Rates, Size, probabilities},
    source::Format,
    tasks::{self, Examples, Limits, Task, TaskConfig, TooLong},
    vocabulary::{self, Vocabulary, VocabularyConfig},
};

/// The section `[data]` of a run's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// The tasks' files are named relative to this folder.
    pub dir: PathBuf,
    /// Longest inputs of an example in tokens, end mark included.
    pub inputs_length: usize,
    /// Longest targets of an example in tokens, end mark included.
    pub targets_length: usize,
    /// What becomes of longer examples; both are counted and reported.
    pub too_long: TooLong,
    /// Of each task of unlabelled text the first so many training tokens, which are repeated; 0: all.
    pub limit_tokens: u64,
    pub mixture: Mixing,
    pub batches: BatchConfig,
    pub tasks: Vec<TaskConfig>,
}

impl Default for DataConfig {
    fn default() -> DataConfig {
        DataConfig {
            dir: "data".into(),
            inputs_length: 128,
            targets_length: 128,
            too_long: TooLong::Truncate,
            limit_tokens: 0,
            mixture: Mixing::default(),
            batches: BatchConfig::default(),
            tasks: Vec::new(),
        }
    }
}

impl DataConfig {
    /// Checks what can be checked without data.
    ///
    /// # Errors
    /// Where there is no task, two have one name, a metric is unknown, or lengths do not fit the batches.
    pub fn check(&self) -> Result<()> {
        let invalid = |what: String| Err(crate::Error::Invalid(format!("data: {what}")));
        if self.tasks.is_empty() {
            return invalid("tasks: expected at least one, found none".into());
        }
        if self.inputs_length < 2 || self.targets_length < 2 {
            return invalid(format!(
                "inputs_length and targets_length: expected at least 2, found {} and {}",
                self.inputs_length, self.targets_length
            ));
        }
        for (i, task) in self.tasks.iter().enumerate() {
            if self.tasks[..i].iter().any(|other| other.name == task.name) {
                return invalid(format!("tasks: expected different names, found {} twice", task.name));
            }
            if self.mixture.rates == Rates::Fixed && task.rate.is_none() && !task.train.is_empty() {
                return invalid(format!("task {}: rate: expected one, as the mixture's rates are fixed", task.name));
            }
            if let Some(rate) = task.rate.filter(|&rate| rate > 0.0 && rate != 1.0)
                && self.mixture.rates == Rates::Equal
            {
                let what = "expected none (or 0, for a task that is left out), as the mixture's rates are equal";
                return invalid(format!("task {}: rate: {what}, found {rate}", task.name));
            }
            if task.rate.is_some_and(|rate| !rate.is_finite() || rate < 0.0) {
                return invalid(format!("task {}: rate: expected 0 or more, found {:?}", task.name, task.rate));
            }
            if task.train.is_empty() && task.dev.is_empty() {
                return invalid(format!("task {}: expected files to train or to evaluate on, found none", task.name));
            }
            for (name, share) in [("divide_inputs", task.divide_inputs), ("divide_targets", task.divide_targets)] {
                // Above one half a text falls into letters.
                if !(0.0..=0.5).contains(&share) {
                    return invalid(format!("task {}: {name}: expected 0 to 0.5, found {share}", task.name));
                }
            }
            if task.source.format != Format::Tsv && (!task.source.columns.is_empty() || task.source.header) {
                let what = "expected none, as only tsv files take them (format = \"tsv\")";
                return invalid(format!("task {}: source.columns, source.header: {what}", task.name));
            }
            if task.limit_tokens.is_some() && !matches!(task.examples, Examples::Denoise { .. }) {
                let what = "expected none, as its examples are not of unlabelled text (kind = \"denoise\")";
                return invalid(format!("task {}: limit_tokens: {what}", task.name));
            }
            if task.limit_tokens == Some(0) {
                return invalid(format!("task {}: limit_tokens: expected 1 or more, found 0", task.name));
            }
            if let Some(hold_out) = &task.hold_out
                && !(0.0..1.0).contains(&hold_out.share)
            {
                return invalid(format!(
                    "task {}: hold_out.share: expected 0 to 1, found {}",
                    task.name, hold_out.share
                ));
            }
        }
        self.mixture.check()?;
        self.batches.check(self.inputs_length, self.targets_length)
    }

    /// Limits of an example.
    pub fn limits(&self) -> Limits {
        Limits { inputs_length: self.inputs_length, targets_length: self.targets_length, too_long: self.too_long }
    }

    /// Reads and tokenises every task. `seed` decides hold-outs of a limited number, orders and corruption.
    ///
    /// # Errors
    /// As [`Task::load`].
    pub fn load(&self, vocabulary: &Vocabulary, seed: u64) -> Result<Vec<Task>> {
        self.check()?;
        let load = |task: &TaskConfig| {
            let mut task = task.clone();
            if self.limit_tokens > 0 && matches!(task.examples, Examples::Denoise { .. }) {
                task.limit_tokens.get_or_insert(self.limit_tokens);
            }
            Task::load(&task, &self.dir, vocabulary, self.limits(), seed)
        };
        self.tasks.iter().map(load).collect()
    }

    /// The stream of batches of loaded tasks.
    ///
    /// # Errors
    /// As [`TaskBatches::new`].
    pub fn batches(&self, tasks: Arc<Vec<Task>>, vocabulary: Arc<Vocabulary>, seed: u64) -> Result<TaskBatches> {
        TaskBatches::new(tasks, vocabulary, &self.mixture, self.batches.clone(), seed)
    }

    /// Trains a vocabulary on texts of the tasks, each task with its share of the mixture: counted in characters, or a
    /// task of whole paragraphs would leave few pieces to the tasks of short sentences.
    ///
    /// # Errors
    /// Where a task's files cannot be read or there is not enough text.
    pub fn train_vocabulary(&self, config: &VocabularyConfig, seed: u64) -> Result<tokenizers::Tokenizer> {
        self.check()?;
        // Sizes in records would need a first pass over the files: a task without a rate takes its limit's share.
        let mut texts: Vec<Vec<String>> = Vec::new();
        for task in &self.tasks {
            // More texts than this have no influence, unless they are shorter than words.
            texts.push(tasks::training_texts(task, &self.dir, config.characters / 10, seed)?);
        }
        let size = |(task, texts): (&TaskConfig, &Vec<String>)| Size::of(task.rate, texts.len());
        let sizes: Vec<Size> = self.tasks.iter().zip(&texts).map(size).collect();
        let shares = probabilities(&sizes, &self.mixture)?;
        let chosen = texts.iter().zip(&shares).flat_map(|(texts, share)| {
            // Evenly over what was read, more than once where a small task has a large share.
            let characters = texts.iter().map(|text| text.chars().count()).sum::<usize>().max(1);
            let wanted = (share * config.characters as f64 / characters as f64 * texts.len() as f64).ceil() as usize;
            (0..if texts.is_empty() { 0 } else { wanted }).map(move |i| {
                let place = if wanted <= texts.len() { i * texts.len() / wanted } else { i % texts.len() };
                texts[place].as_str()
            })
        });
        vocabulary::train(chosen, config)
    }
}

/// Examples as the model sees them: for each task its numbers and `count` examples, ids with pieces and the texts.
pub fn inspect(tasks: &[Task], vocabulary: &Vocabulary, count: usize) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    for task in tasks {
        let report = &task.report;
        let chunked = match report.chunked {
            0 => String::new(),
            count => format!(", {count} documents of which one chunk is taken"),
        };
        let _ = writeln!(
            out,
            "== {} · {} records, {} training examples ({} truncated, {} divided, {} too long, {} filtered, \
             {} unused{chunked}), {} for evaluation",
            task.config.name,
            report.records,
            report.examples,
            report.truncated,
            report.divided,
            report.dropped,
            report.filtered,
            report.unused,
            report.dev_examples
        );
        for n in 0..if task.is_empty() { 0 } else { count as u64 } {
            let example = task.draw(n, vocabulary);
            for (name, ids) in [("inputs", &example.inputs), ("targets", &example.targets)] {
                let pieces: Vec<String> = ids.iter().map(|&id| format!("{id}:{}", vocabulary.piece(id))).collect();
                let _ = writeln!(out, "{name:8}{}", vocabulary.decode(ids));
                let _ = writeln!(out, "{:8}{} ids: {}", "", ids.len(), pieces.join(" "));
            }
            out.push('\n');
        }
        if let Some(example) = task.dev.first() {
            let _ = writeln!(out, "evaluation: {:?} -> {:?}\n", example.inputs, example.references);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &tempfile::TempDir, task: &str) -> DataConfig {
        std::fs::write(folder.path().join("a.tsv"), "a\tb\n").unwrap();
        let template = r#"examples = { kind = "template", input = "{a}", target = "{b}" }"#;
        let text = format!("[[tasks]]\nname = \"t\"\n{template}\n{task}");
        let mut config: DataConfig = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}"));
        config.dir = folder.path().to_path_buf();
        config
    }

    #[test]
    fn columns_are_of_tsv_files() {
        let folder = tempfile::tempdir().unwrap();
        for (source, fits) in [
            (r#"format = "tsv", columns = ["a", "b"]"#, true),
            (r#"format = "tsv", header = true"#, true),
            (r#"format = "csv""#, true),
            (r#"format = "csv", columns = ["a", "b"]"#, false),
            (r#"format = "jsonl", header = true"#, false),
            (r#"format = "parquet", columns = ["a"]"#, false),
            (r#"format = "shards", header = true"#, false),
            (r#"columns = ["text"]"#, false),
        ] {
            let checked = config(&folder, &format!("train = [\"a.tsv\"]\nsource = {{ {source} }}")).check();
            assert_eq!(checked.is_ok(), fits, "{source}");
            if let Err(error) = checked {
                let error = error.to_string();
                let expected = "data: task t: source.columns, source.header: expected none, as only tsv files";
                assert!(error.starts_with(expected), "{error}");
            }
        }
    }

    #[test]
    fn a_task_that_is_evaluated_alone_has_no_part_in_a_vocabulary() {
        let folder = tempfile::tempdir().unwrap();
        let dev = "dev = [\"a.tsv\"]\nrate = 1.0\nsource = { format = \"tsv\", columns = [\"a\", \"b\"] }";
        let error = config(&folder, dev).train_vocabulary(&VocabularyConfig::default(), 1).unwrap_err().to_string();
        assert_eq!(error, "mixture: expected at least one task with a rate above 0, found none");
    }
}
