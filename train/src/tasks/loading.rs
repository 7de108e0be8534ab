//! From files to a task's data: reading, filtering, formatting and tokenising.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use serde::Serialize;

use super::{
    config::TaskConfig,
    data::{Data, Ragged, denoise, stream},
    example::{Example, Limits, TextExample, TooLong},
    formatters::{Examples, Template, no_field},
    joined::Joined,
    mapped::{self, MappedSegments, Segments},
    slips::{Slips, add_slips},
    text::split_sentences,
};
use crate::{
    Error, Result,
    objectives::{Mode, Objective, select_random_chunk},
    random::{Permutation, Random, derive, hash_bytes},
    source::{self, Columns, Record},
    vocabulary::Vocabulary,
};

/// Of a longer document of unlabelled text one chunk of so many tokens is taken, as in the reference.
pub(super) const CHUNK: usize = 65_536;

/// Documents that the reference lays end to end before it cuts segments.
pub(super) const GROUP: usize = 128;

/// What loading a task found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LoadReport {
    /// Records read from the training files.
    pub records: usize,
    /// Training examples per epoch.
    pub examples: usize,
    /// Examples cut to the limits, and segments of unlabelled text whose targets may be (counted, kept).
    pub truncated: usize,
    /// Records of unlabelled text that make several examples, as one would be too long.
    pub divided: usize,
    /// Documents of unlabelled text that are longer than 65,536 tokens: one chunk of that length is taken.
    pub chunked: usize,
    /// Examples left out for their length.
    pub dropped: usize,
    /// Records left out by the task's filters, its hold-out or as duplicates.
    pub filtered: usize,
    /// Records of which the task's formatter makes no example.
    pub unused: usize,
    /// Evaluation examples.
    pub dev_examples: usize,
}

/// The training and evaluation records of a task, after its filters and hold-out.
pub(super) fn split_records(
    config: &TaskConfig,
    data_dir: &Path,
    seed: u64,
    report: &mut LoadReport,
) -> Result<(Vec<Record>, Vec<Record>)> {
    let mut dev_records = Vec::new();
    // What is counted are records to train on.
    let _ = read_records(config, data_dir, &config.dev, |_, record| {
        dev_records.push(record);
        Ok(())
    })?;
    let mut seen: HashSet<u64> = HashSet::new();
    if let Some(field) = &config.source.unique {
        dev_records.retain(|r| r.text(field).is_none_or(|value| seen.insert(hash_bytes(value.as_bytes()))));
    }
    let mut records = Vec::new();
    let mut total = 0;
    let of_other_lengths = read_records(config, data_dir, &config.train, |path, record| {
        total += 1;
        let field =
            |name: &str| record.text(name).ok_or_else(|| Error::data(path, record.line, no_field(name, &record)));
        if let Some(name) = &config.source.unique
            && !seen.insert(hash_bytes(field(name)?.as_bytes()))
        {
            report.filtered += 1;
        } else if let Some(hold_out) = &config.hold_out
            && hold_out.holds(&field(&hold_out.field)?)
        {
            report.filtered += 1;
            dev_records.push(record);
        } else {
            records.push(record);
        }
        Ok(())
    })?;
    report.records = total + of_other_lengths;
    report.filtered += of_other_lengths;
    drop(seen);
    if let Some(most) = config.max_examples {
        report.filtered += choose(&mut records, most, derive(seed, &[stream::ORDER]));
    }
    Ok((records, dev_records))
}

/// Texts to train a vocabulary on: inputs and targets of at most `count` training examples, a seeded choice.
///
/// # Errors
/// If a source cannot be read, or a record lacks what the task names.
pub fn training_texts(config: &TaskConfig, data_dir: &Path, count: usize, seed: u64) -> Result<Vec<String>> {
    let seed = derive(seed, &[hash_bytes(config.name.as_bytes())]);
    config.examples.check(&config.name)?;
    let (mut records, _) = split_records(config, data_dir, seed, &mut LoadReport::default())?;
    choose(&mut records, count, derive(seed, &[stream::TEXTS]));
    let made: Result<Vec<Vec<String>>> = records
        .par_iter()
        .map(|record| {
            let in_record = |what| in_record(config, record, what);
            Ok(match &config.examples {
                Examples::Denoise { text, .. } => vec![Template::parse(text)?.fill(record).map_err(in_record)?],
                Examples::Slips { text, prefix, rate, clean, grammar } => {
                    let slips = Slips { rate: *rate, clean: *clean, grammar: *grammar };
                    let text = Template::parse(text)?.fill(record).map_err(in_record)?;
                    let slipped = add_slips(&text, &slips, derive(seed, &[record.line as u64]));
                    vec![format!("{prefix}{slipped}"), text]
                }
                examples => {
                    let texts = examples.training(record).map_err(in_record)?;
                    texts.into_iter().flat_map(|example| [example.inputs, example.targets]).collect()
                }
            })
        })
        .collect();
    Ok(made?.concat())
}

/// The labelled training examples of a task as texts, in the files' order, and how many records it is evaluated on.
///
/// # Errors
/// Where a source cannot be read, a record lacks what the task names, or the task makes its examples anew each epoch.
pub fn training_examples(config: &TaskConfig, data_dir: &Path, seed: u64) -> Result<(Vec<TextExample>, usize)> {
    if matches!(config.examples, Examples::Denoise { .. } | Examples::Slips { .. } | Examples::Joined { .. }) {
        let what = "expected examples that are the same in every epoch, found denoise, slips or joined";
        return Err(Error::Invalid(format!("task {}: examples: {what}", config.name)));
    }
    config.examples.check(&config.name)?;
    let seed = derive(seed, &[hash_bytes(config.name.as_bytes())]);
    let (records, dev) = split_records(config, data_dir, seed, &mut LoadReport::default())?;
    let made: Result<Vec<Vec<TextExample>>> = records
        .par_iter()
        .map(|record| config.examples.training(record).map_err(|what| in_record(config, record, what)))
        .collect();
    Ok((made?.concat(), dev.len()))
}

/// Keeps at most `most` records, a seeded choice in the file's order. Returns how many were left out.
fn choose(records: &mut Vec<Record>, most: usize, seed: u64) -> usize {
    let len = records.len();
    if len > most {
        let permutation = Permutation::new(len as u64, seed);
        let mut i = 0;
        records.retain(|_| {
            i += 1;
            permutation.at(i - 1) < most as u64
        });
    }
    len - records.len()
}

fn in_record(config: &TaskConfig, record: &Record, what: String) -> Error {
    Error::Invalid(format!("task {}: record of line {}: {what}", config.name, record.line))
}

/// Reads every file of a task, without the records of other lengths than `source.length` says, whose number is
/// returned. `f` gets the file and the record.
fn read_records(
    config: &TaskConfig,
    data_dir: &Path,
    files: &[PathBuf],
    mut f: impl FnMut(&Path, Record) -> Result<()>,
) -> Result<usize> {
    let columns = Columns { names: config.source.columns.clone(), header: config.source.header };
    let mut left_out = 0;
    for file in files {
        let path = data_dir.join(file);
        source::for_each_record(&path, config.source.format, &columns, |record| {
            let mut keep = |record: Record| -> Result<()> {
                if let Some(filter) = &config.source.length {
                    let value = record
                        .text(&filter.field)
                        .ok_or_else(|| Error::data(&path, record.line, no_field(&filter.field, &record)))?;
                    if !(filter.min_chars..=filter.max_chars).contains(&value.chars().count()) {
                        left_out += 1;
                        return Ok(());
                    }
                }
                f(&path, record)
            };
            if config.source.split_sentences {
                let text =
                    record.text("text").ok_or_else(|| Error::data(&path, record.line, no_field("text", &record)))?;
                for sentence in split_sentences(&text) {
                    let fields = vec![("text".to_string(), source::Value::Text(sentence.to_string()))];
                    keep(Record::new(record.line, fields))?;
                }
                Ok(())
            } else {
                keep(record)
            }
        })?;
    }
    Ok(left_out)
}

/// What turning records into data needs.
pub(super) struct Loader<'a> {
    pub config: &'a TaskConfig,
    pub vocabulary: &'a Vocabulary,
    pub limits: Limits,
    pub seed: u64,
    /// Of unlabelled text, the first tokens.
    pub limit_tokens: Option<u64>,
}

/// What tokenising one training text gave.
enum Fitted {
    Kept(Example),
    Truncated(Example),
    Dropped,
}

impl Loader<'_> {
    pub(super) fn training_data(&self, records: &[Record], report: &mut LoadReport) -> Result<Data> {
        match &self.config.examples {
            Examples::Denoise { text, prefix, objective, concatenate } => {
                self.segments(records, text, prefix, objective, *concatenate, report)
            }
            Examples::Joined { .. } => {
                let lengths: Result<Vec<Option<[usize; 2]>>> = records
                    .par_iter()
                    .map(|record| {
                        let texts = self.config.examples.training(record).map_err(|e| self.in_record(record, e))?;
                        Ok(match &texts[..] {
                            [text] => match self.fit(text) {
                                Fitted::Kept(example) => Some([example.inputs.len(), example.targets.len()]),
                                // A part of a text cannot be joined to another.
                                Fitted::Truncated(_) | Fitted::Dropped => None,
                            },
                            _ => return Err(self.in_record(record, "joined: expected texts, found a list".into())),
                        })
                    })
                    .collect();
                let separator = |text: &String| self.vocabulary.encode(text).len();
                let joined = Joined::new(&self.config.examples, records, lengths?, separator)?;
                report.dropped += records.len() - joined.len();
                Ok(Data::Joined(joined))
            }
            Examples::Slips { text, prefix, rate, clean, grammar } => {
                let slips = Slips { rate: *rate, clean: *clean, grammar: *grammar };
                let template = Template::parse(text)?;
                let texts: Result<Vec<Option<String>>> = records
                    .par_iter()
                    .map(|record| {
                        let text = template.fill(record).map_err(|e| self.in_record(record, e))?;
                        // Slips add tokens: a text is only used where it would fit at twice its length.
                        let prefix_len = self.vocabulary.encode(prefix).len();
                        let len = self.vocabulary.encode(&text).len() + 1;
                        let fits = len <= self.limits.targets_length
                            && prefix_len + len + len / 2 <= self.limits.inputs_length;
                        Ok(fits.then_some(text))
                    })
                    .collect();
                let texts: Vec<String> = texts?.into_iter().flatten().collect();
                report.dropped += records.len() - texts.len();
                Ok(Data::Slips { texts, prefix: prefix.clone(), slips })
            }
            examples => {
                let made: Result<Vec<Vec<Fitted>>> = records
                    .par_iter()
                    .map(|record| {
                        let texts = examples.training(record).map_err(|e| self.in_record(record, e))?;
                        Ok(texts.iter().map(|text| self.fit(text)).collect())
                    })
                    .collect();
                let (mut inputs, mut targets) = (Ragged::default(), Ragged::default());
                for fitted in made? {
                    report.unused += usize::from(fitted.is_empty());
                    for fitted in fitted {
                        let example = match fitted {
                            Fitted::Kept(example) => example,
                            Fitted::Truncated(example) => {
                                report.truncated += 1;
                                example
                            }
                            Fitted::Dropped => {
                                report.dropped += 1;
                                continue;
                            }
                        };
                        inputs.push(&example.inputs);
                        targets.push(&example.targets);
                    }
                }
                Ok(Data::Pairs { inputs, targets })
            }
        }
    }

    fn fit(&self, text: &TextExample) -> Fitted {
        let mut inputs = self.vocabulary.encode(&text.inputs);
        let mut targets = self.vocabulary.encode(&text.targets);
        let Limits { inputs_length, targets_length, too_long } = self.limits;
        let fits = inputs.len() < inputs_length && targets.len() < targets_length;
        if !fits && too_long == TooLong::Drop {
            return Fitted::Dropped;
        }
        inputs.truncate(inputs_length.saturating_sub(1));
        targets.truncate(targets_length.saturating_sub(1));
        let example = Example { inputs, targets };
        if fits { Fitted::Kept(example) } else { Fitted::Truncated(example) }
    }

    fn segments(
        &self,
        records: &[Record],
        text: &str,
        prefix: &str,
        objective: &Objective,
        concatenate: bool,
        report: &mut LoadReport,
    ) -> Result<Data> {
        let template = Template::parse(text)?;
        let (prefix, modes, length) = self.segmenting(prefix, objective)?;
        let mut segments = Ragged::default();
        let mut left = self.limit_tokens.unwrap_or(u64::MAX);
        // Parts bound the memory that ids of single records take before they are cut. Each holds whole groups.
        for (part, records) in records.chunks(128 * GROUP).enumerate() {
            let tokens: Result<Vec<Vec<u32>>> = records
                .par_iter()
                .map(|record| {
                    let text = template.fill(record).map_err(|e| self.in_record(record, e))?;
                    Ok(self.vocabulary.encode(&text))
                })
                .collect();
            let mut documents = tokens?;
            let mut used = documents.len();
            for (i, document) in documents.iter_mut().enumerate() {
                if document.len() > CHUNK {
                    let number = (part * 128 * GROUP + i) as u64;
                    let random = &mut Random::from_path(self.seed, &[stream::CHUNK, number]);
                    *document = select_random_chunk(document, CHUNK, random).to_vec();
                    report.chunked += 1;
                }
                document.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                left -= document.len() as u64;
                if left == 0 {
                    used = i + 1;
                    break;
                }
            }
            documents.truncate(used);
            if concatenate {
                for group in documents.chunks(GROUP) {
                    group.concat().chunks(length).for_each(|segment| segments.push(segment));
                }
            } else {
                for document in &documents {
                    report.divided += usize::from(document.len() > length);
                    document.chunks(length).for_each(|segment| segments.push(segment));
                }
            }
            if left == 0 {
                break;
            }
        }
        let cut = |i: usize| {
            let longest = objective.longest_target(segments.get(i).len());
            longest.is_some_and(|longest| longest >= self.limits.targets_length)
        };
        report.truncated += (0..segments.len()).filter(|&i| cut(i)).count();
        Ok(Data::Segments { segments: Segments::Held(segments), objective: objective.clone(), prefix, modes })
    }

    /// The ids of a prefix, those of the objective's modes, and the tokens of a segment that leave room for them.
    fn segmenting(&self, prefix: &str, objective: &Objective) -> Result<(Vec<u32>, [Vec<u32>; 3], usize)> {
        let prefix = self.vocabulary.encode(prefix);
        let modes: [Vec<u32>; 3] = match objective {
            Objective::Ul2 => Mode::TEXTS.map(|text| self.vocabulary.encode(text)),
            _ => Default::default(),
        };
        let mode_length = modes.iter().map(Vec::len).max().unwrap_or(0).saturating_sub(1);
        let room = self.limits.inputs_length.saturating_sub(prefix.len() + mode_length);
        if room < 2 {
            let what = format!("of {} input tokens its prefix leaves {room}, expected 2", self.limits.inputs_length);
            return Err(Error::Invalid(format!("task {}: {what}", self.config.name)));
        }
        Ok((prefix, modes, objective.segment_length(room, self.limits.targets_length)))
    }

    /// The training data of folders of shards: as [`Loader::training_data`] of the texts that they were made of.
    pub(super) fn mapped(&self, folders: &[PathBuf], report: &mut LoadReport) -> Result<Data> {
        let shards = mapped::open(self.config, folders, self.vocabulary)?;
        let Examples::Denoise { prefix, objective, concatenate, .. } = &self.config.examples else {
            return Err(Error::Invalid(format!("task {}: expected unlabelled text", self.config.name)));
        };
        let (prefix, modes, length) = self.segmenting(prefix, objective)?;
        let (how, targets_length) = ((length, *concatenate), self.limits.targets_length);
        let segments =
            MappedSegments::new(shards, how, self.seed, self.limit_tokens, objective, targets_length, report);
        Ok(Data::Segments {
            segments: Segments::Mapped(Box::new(segments)),
            objective: objective.clone(),
            prefix,
            modes,
        })
    }

    /// The evaluation examples of folders of shards.
    pub(super) fn mapped_dev_examples(&self, folders: &[PathBuf]) -> Result<(Vec<TextExample>, Option<Vec<Example>>)> {
        if folders.is_empty() {
            return Ok((Vec::new(), None));
        }
        let data = Loader { limit_tokens: None, ..*self }.mapped(folders, &mut LoadReport::default())?;
        self.dev_of(data)
    }

    /// The evaluation examples, and their ids where the texts do not give them back.
    pub(super) fn dev_examples(&self, records: &[Record]) -> Result<(Vec<TextExample>, Option<Vec<Example>>)> {
        let most = self.config.max_dev_examples.unwrap_or(usize::MAX);
        if self.config.merge_references && matches!(self.config.examples, Examples::Denoise { .. }) {
            let what = "merge_references: expected labelled examples, found unlabelled text";
            return Err(Error::Invalid(format!("task {}: {what}", self.config.name)));
        }
        let mut dev = DevExamples { most, merge: self.config.merge_references, ..DevExamples::default() };
        match &self.config.examples {
            Examples::Denoise { .. } | Examples::Slips { .. } | Examples::Joined { .. } => {}
            formatter => {
                for record in records {
                    let made = formatter.evaluation(record).map_err(|e| self.in_record(record, e))?;
                    made.into_iter().for_each(|example| dev.add(example));
                }
                return Ok((dev.examples, None));
            }
        }
        self.dev_of(Loader { limit_tokens: None, ..*self }.training_data(records, &mut LoadReport::default())?)
    }

    /// The first evaluation examples of data that training would make anew each epoch.
    fn dev_of(&self, data: Data) -> Result<(Vec<TextExample>, Option<Vec<Example>>)> {
        let most = self.config.max_dev_examples.unwrap_or(usize::MAX);
        let seed = |i: usize| derive(self.seed, &[stream::DEV, i as u64]);
        let mut dev = DevExamples { most, merge: self.config.merge_references, ..DevExamples::default() };
        match data {
            Data::Pairs { .. } => Ok((Vec::new(), None)),
            Data::Joined(joined) => {
                joined.groups().take(most).for_each(|example| dev.add(example));
                Ok((dev.examples, None))
            }
            Data::Slips { texts, prefix, slips } => {
                for (i, text) in texts.iter().enumerate().take(most) {
                    dev.add(TextExample::new(format!("{prefix}{}", add_slips(text, &slips, seed(i))), text.as_str()));
                }
                Ok((dev.examples, None))
            }
            Data::Segments { segments, objective, prefix, modes } => {
                let ids: Vec<Example> = (0..segments.len().min(most))
                    .map(|i| denoise(&segments.get(i), &objective, &prefix, &modes, self.vocabulary, seed(i)))
                    .collect();
                let text = |example: &Example| {
                    TextExample::new(self.vocabulary.decode(&example.inputs), self.vocabulary.decode(&example.targets))
                };
                Ok((ids.iter().map(text).collect(), Some(ids)))
            }
        }
    }

    fn in_record(&self, record: &Record, what: String) -> Error {
        in_record(self.config, record, what)
    }
}

/// The evaluation examples of a task as they come.
#[derive(Default)]
struct DevExamples {
    examples: Vec<TextExample>,
    most: usize,
    /// One example for each input: other targets of it are further references.
    merge: bool,
    /// Where the example of an input and a group is, while merging.
    places: HashMap<[String; 2], usize>,
}

impl DevExamples {
    fn add(&mut self, example: TextExample) {
        if self.merge {
            let key = [example.inputs.clone(), example.group.clone()];
            if let Some(&place) = self.places.get(&key) {
                let known = &mut self.examples[place].references;
                for reference in example.references {
                    if !known.contains(&reference) {
                        known.push(reference);
                    }
                }
                return;
            }
            if self.examples.len() < self.most {
                self.places.insert(key, self.examples.len());
            }
        }
        if self.examples.len() < self.most {
            self.examples.push(example);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::Task;
    use crate::vocabulary::{self, VocabularyConfig};

    const LIMITS: Limits = Limits { inputs_length: 24, targets_length: 12, too_long: TooLong::Truncate };

    fn task(text: &str) -> TaskConfig {
        toml::from_str(text).unwrap_or_else(|e| panic!("{e}"))
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, text)| std::fs::write(dir.path().join(name), text).unwrap());
        dir
    }

    const PAIRS: &str = r#"
        name = "pairs"
        train = ["train.tsv"]
        dev = ["dev.tsv"]
        source = { format = "tsv", columns = ["en", "de"] }
        examples = { kind = "template", input = "{en}", target = "{de}" }
    "#;

    #[test]
    fn long_examples_are_truncated_or_dropped_and_counted() {
        let long = "x".repeat(30);
        let dir = folder(&[("train.tsv", &format!("a\tb\n{long}\tc\nd\t{long}\n")), ("dev.tsv", "a\tb\n")]);
        let vocabulary = Vocabulary::bytes(384).unwrap();
        let cut = Task::load(&task(PAIRS), dir.path(), &vocabulary, LIMITS, 1).unwrap();
        assert_eq!((cut.report.records, cut.report.examples, cut.report.truncated), (3, 3, 2));
        let example = cut.example(0, 1, &vocabulary);
        assert_eq!((example.inputs.len(), example.inputs.last()), (24, Some(&1)));
        let limits = Limits { too_long: TooLong::Drop, ..LIMITS };
        let dropped = Task::load(&task(PAIRS), dir.path(), &vocabulary, limits, 1).unwrap();
        assert_eq!((dropped.report.examples, dropped.report.dropped), (1, 2));
    }

    #[test]
    fn every_line_is_evaluated_unless_references_are_merged() {
        // As CoLA's dev set, where a sentence has both labels, and Tatoeba's, where one has several translations.
        let dir = folder(&[("train.tsv", "a\tb\n"), ("dev.tsv", "a\tb\na\tc\nx\ty\na\tb\n")]);
        let vocabulary = Vocabulary::bytes(384).unwrap();
        let load =
            |more: &str| Task::load(&task(&format!("{PAIRS}{more}")), dir.path(), &vocabulary, LIMITS, 1).unwrap();
        let lines = load("");
        let references: Vec<&[String]> = lines.dev.iter().map(|example| example.references.as_slice()).collect();
        assert_eq!(references, [["b"], ["c"], ["y"], ["b"]]);
        assert_eq!(lines.report.dev_examples, 4);
        let merged = load("merge_references = true");
        assert_eq!(merged.dev.len(), 2);
        // Each reference once; the loss is the first one's.
        assert_eq!(merged.dev[0].references, ["b", "c"]);
        assert_eq!(merged.dev[0].targets, "b");
        assert_eq!(load("merge_references = true\nmax_dev_examples = 1").dev[0].references, ["b", "c"]);
    }

    #[test]
    fn equal_answers_of_a_question_count_one_by_one_and_record_s_answers_together() {
        let multirc = concat!(
            r#"{"paragraph": "p", "question": "q", "answer": "a", "label": 1, "#,
            r#""idx": {"paragraph": 0, "question": 0, "answer": 0}}"#
        );
        let record = r#"{"passage": "p", "query": "q", "entities": ["A", "C"], "answers": ["A", "C"], "idx": "0-1"}"#;
        let dir = folder(&[("m.jsonl", &format!("{multirc}\n{multirc}\n")), ("r.jsonl", &format!("{record}\n"))]);
        let vocabulary = Vocabulary::bytes(384).unwrap();
        let dev = |kind: &str, file: &str| {
            let text = format!(
                "name = \"{kind}\"\ndev = [\"{file}\"]\nsource = {{ format = \"jsonl\" }}\n\
                 examples = {{ kind = \"{kind}\" }}"
            );
            Task::load(&task(&text), dir.path(), &vocabulary, LIMITS, 1).unwrap().dev
        };
        assert_eq!(dev("multirc", "m.jsonl").len(), 2);
        let record = dev("record", "r.jsonl");
        assert_eq!((record.len(), record[0].references.as_slice()), (1, ["A".to_string(), "C".to_string()].as_slice()));
    }

    /// The segments of a language-modelling task over a text: pieces of 71 tokens.
    fn segments(text: &str, concatenate: bool) -> (Task, Vec<Vec<u32>>) {
        let dir = folder(&[("text.txt", text)]);
        let config = task(&format!(
            "name = \"text\"\ntrain = [\"text.txt\"]\n\
             examples = {{ kind = \"denoise\", objective = {{ name = \"lm\" }}, concatenate = {concatenate} }}"
        ));
        let limits = Limits { inputs_length: 72, targets_length: 72, ..LIMITS };
        let task = Task::load(&config, dir.path(), &Vocabulary::bytes(384).unwrap(), limits, 1).unwrap();
        let crate::tasks::Data::Segments { segments, .. } = &task.data else { panic!("segments") };
        let segments = (0..segments.len()).map(|i| segments.get(i).to_vec()).collect();
        (task, segments)
    }

    #[test]
    fn segments_are_cut_from_128_documents_at_a_time() {
        // Documents of 5 tokens: 128 of them are 640 tokens, nine segments and a piece of one token, which is kept.
        let (_, segments) = segments(&"abcde\n".repeat(300), true);
        let lengths: Vec<usize> = segments.iter().map(Vec::len).collect();
        let group = [&[71; 9][..], &[1]].concat();
        assert_eq!(lengths, [&group[..], &group, &[71, 71, 71, 7]].concat());
        assert_eq!(self::segments(&format!("a\n{}\n", "b".repeat(72)), false).1.len(), 3);
    }

    #[test]
    fn of_a_very_long_document_one_chunk_is_taken() {
        // Three chunks: two of 65,536 tokens and one of ten.
        let text: String = (0..2 * 65_536 + 10).map(|i| char::from(b'a' + (i / 65_536) as u8)).collect();
        let mut found = std::collections::BTreeSet::new();
        for concatenate in [false, true] {
            let (task, segments) = segments(&format!("{text}\nx\n"), concatenate);
            assert_eq!(task.report.chunked, 1);
            let tokens = segments.concat();
            assert!([65_536 + 1, 10 + 1].contains(&tokens.len()), "{} tokens", tokens.len());
            assert!(tokens[..tokens.len() - 1].iter().all(|&id| id == tokens[0]), "one aligned chunk");
            found.insert(tokens[0]);
        }
        assert_eq!(found.len(), 1, "the choice is the document's and the seed's");
    }

    #[test]
    fn what_does_not_fit_unlabelled_text_is_refused() {
        let dir = folder(&[("text.txt", "some text\n")]);
        let load = |examples: &str, more: &str| {
            let text = format!(
                "name = \"text\"\ntrain = [\"text.txt\"]\nexamples = {{ kind = \"denoise\", {examples} }}\n{more}"
            );
            let vocabulary = Vocabulary::bytes(384).unwrap();
            Task::load(&task(&text), dir.path(), &vocabulary, LIMITS, 1).err().map(|e| e.to_string())
        };
        let prefix = format!("prefix = \"{}\"", "p".repeat(23));
        assert_eq!(load(&prefix, "").unwrap(), "task text: of 24 input tokens its prefix leaves 1, expected 2");
        let anywhere = "objective = { name = \"random-spans\", density = 0.15, mean_span = 3.0, anywhere = true }";
        assert_eq!(load(&format!("prefix = \"{}\", {anywhere}", "p".repeat(22)), ""), None);
        let message = load("concatenate = true", "merge_references = true").unwrap();
        assert!(message.contains("merge_references: expected labelled examples"), "{message}");
    }

    #[test]
    fn segments_whose_targets_are_cut_are_counted() {
        let dir = folder(&[("text.txt", &format!("{}\nshort\n", "a".repeat(30)))]);
        let config = task(
            "name = \"text\"\ntrain = [\"text.txt\"]\n\
             examples = { kind = \"denoise\", objective = { name = \"deshuffling\" } }",
        );
        let vocabulary = Vocabulary::bytes(384).unwrap();
        let task = Task::load(&config, dir.path(), &vocabulary, LIMITS, 1).unwrap();
        // Pieces of 23, 7 and 5 tokens; targets have 12 places.
        assert_eq!((task.len(), task.report.truncated), (3, 1));
        assert_eq!(task.example(0, 0, &vocabulary).inputs.len(), 24);
        assert_eq!(task.example(0, 0, &vocabulary).targets.len(), 12);
    }

    #[test]
    fn bad_files_and_records_are_errors() {
        let vocabulary = Vocabulary::bytes(384).unwrap();
        let load = |files: &[(&str, &str)], text: &str| {
            let dir = folder(files);
            Task::load(&task(text), dir.path(), &vocabulary, LIMITS, 1).err().map(|e| e.to_string()).unwrap_or_default()
        };
        let error = load(&[("train.tsv", "a\tb\nno tab\n"), ("dev.tsv", "a\tb\n")], PAIRS);
        assert!(error.contains("train.tsv:2: expected 2 columns"), "{error}");
        let error = load(&[("train.tsv", "a\tb\n")], PAIRS);
        assert!(error.contains("dev.tsv: expected a data file"), "{error}");
        let files = [("train.tsv", "a\tb\n"), ("dev.tsv", "a\tb\n")];
        let error = load(&files, &PAIRS.replace("{en}", "{english}"));
        assert_eq!(error, r#"task pairs: record of line 1: expected a field "english", found ["en", "de"]"#);
        let error = load(&files, &PAIRS.replace("{en}", "{en"));
        assert!(error.contains("task pairs: examples:") && error.contains("expected a `}`"), "{error}");
        let filtered =
            PAIRS.replace("source = {", "source = { length = { field = \"en\", min_chars = 5, max_chars = 9 },");
        assert!(load(&files, &filtered).contains("expected training examples, found none"));
        assert!(toml::from_str::<TaskConfig>(&PAIRS.replace("train =", "trian =")).is_err());
    }

    #[test]
    fn held_out_records_are_never_trained_on() {
        let lines: String = (0..2000).map(|i| format!("word{i} W ER{i} D\nword{i}(2) W {i}\n")).collect();
        let dir = folder(&[("words.dict", &lines)]);
        let config = task(
            r#"
            name = "pronounce"
            train = ["words.dict"]
            source = { format = "cmudict" }
            hold_out = { field = "word", share = 0.05 }
            examples = { kind = "template", input = "{word}", target = "{pronunciations}" }
        "#,
        );
        let vocabulary = Vocabulary::bytes(384).unwrap();
        let limits = Limits { inputs_length: 40, targets_length: 40, ..LIMITS };
        let task = Task::load(&config, dir.path(), &vocabulary, limits, 1).unwrap();
        // Standard deviation 10 around 100 words.
        assert!(task.dev.len().abs_diff(100) < 50, "{}", task.dev.len());
        assert_eq!(task.len(), 2 * (2000 - task.dev.len()));
        assert!(task.dev.iter().all(|example| example.references.len() == 2));
        let trained: HashSet<String> =
            (0..task.len()).map(|i| vocabulary.decode(&task.example(0, i, &vocabulary).inputs)).collect();
        assert!(task.dev.iter().all(|example| !trained.contains(&example.inputs)));
        // Another run's seed does not move words across.
        let again = Task::load(&config, dir.path(), &vocabulary, limits, 2).unwrap();
        assert_eq!(again.dev, task.dev);
    }

    #[test]
    fn an_epoch_has_every_example_once_and_the_next_another_order() {
        let dir = folder(&[("train.tsv", &crate::testing::sentence_pairs(300)), ("dev.tsv", "a\tb\n")]);
        let vocabulary = Vocabulary::bytes(384).unwrap();
        let limits = Limits { inputs_length: 90, targets_length: 90, ..LIMITS };
        let task = Task::load(&task(PAIRS), dir.path(), &vocabulary, limits, 1).unwrap();
        let epoch =
            |from: u64| -> Vec<Vec<u32>> { (from..from + 300).map(|n| task.draw(n, &vocabulary).inputs).collect() };
        let (first, second) = (epoch(0), epoch(300));
        assert_eq!(first.iter().collect::<HashSet<_>>().len(), 300);
        assert_eq!(first.iter().collect::<HashSet<_>>(), second.iter().collect::<HashSet<_>>());
        assert_ne!(first, second);
        assert_eq!(first, epoch(0));
    }

    #[test]
    fn unlabelled_text_is_corrupted_anew_each_epoch() {
        let dir = folder(&[("text.txt", &crate::testing::sentence_pairs(50).replace('\t', "\n"))]);
        let vocabulary = Vocabulary::bytes(384).unwrap();
        let limits = Limits { inputs_length: 40, targets_length: 16, ..LIMITS };
        let text = r#"
            name = "text"
            train = ["text.txt"]
            hold_out = { field = "text", share = 0.1 }
            examples = { kind = "denoise", concatenate = true }
        "#;
        let joined = Task::load(&task(text), dir.path(), &vocabulary, limits, 1).unwrap();
        let segment = Objective::T5.segment_length(40, 16);
        for index in 0..joined.len() - 1 {
            let example = joined.example(0, index, &vocabulary);
            let spans = example.inputs.iter().filter(|&&id| id > 200).count();
            assert_eq!(example.inputs.len() + example.targets.len(), segment + 2 * spans + 2);
        }
        assert_ne!(joined.example(0, 3, &vocabulary), joined.example(1, 3, &vocabulary));
        let alone = Task::load(&task(&text.replace("true", "false")), dir.path(), &vocabulary, limits, 1).unwrap();
        assert!(alone.report.divided > 0 && alone.len() > joined.len());
        // The evaluation's ids are its own corruption, the same every time.
        assert_eq!(alone.dev_tokens(&vocabulary), alone.dev_tokens(&vocabulary));
        assert!(!alone.dev.is_empty() && alone.dev[0].inputs.contains("<extra_id_0>"));
    }

    #[test]
    fn neighbours_are_joined_alike_on_both_sides() {
        let lines: String = (0..20).map(|i| format!("e{i}\tg{i}\n")).collect();
        let dir = folder(&[("train.tsv", &format!("{lines}{}\tlong\n", "x".repeat(99))), ("dev.tsv", &lines)]);
        let text = r#"
            name = "joined"
            train = ["train.tsv"]
            dev = ["dev.tsv"]
            source = { format = "tsv", columns = ["en", "de"] }
            examples = { kind = "joined", input = "p: {en}", target = "{de}", separators = [" ", "\n"] }
        "#;
        let vocabulary = Vocabulary::bytes(384).unwrap();
        let load = |inputs_length: usize| {
            let limits = Limits { inputs_length, targets_length: 40, ..LIMITS };
            Task::load(&task(text), dir.path(), &vocabulary, limits, 1).unwrap()
        };
        let joined = load(90);
        // The long line fits nowhere.
        assert_eq!((joined.len(), joined.report.dropped), (20, 1));
        let mut seen = HashSet::new();
        for epoch in 0..40 {
            let example = joined.example(epoch, 3, &vocabulary);
            let [input, target] = [&example.inputs, &example.targets].map(|ids| vocabulary.decode(ids));
            let sides = input.strip_prefix("p: ").unwrap().replace('e', "g");
            assert_eq!(sides, target);
            seen.insert(target);
        }
        let expected = ["g3 g4", "g3\ng4", "g3 g4 g5", "g3\ng4\ng5", "g3 g4 g5 g6", "g3\ng4\ng5\ng6"];
        assert_eq!(seen, expected.map(String::from).into());
        // At the end of the file there are no more; where more would be too long, fewer are taken.
        assert_eq!(vocabulary.decode(&joined.example(0, 19, &vocabulary).targets), "g19");
        let short = load(12);
        for epoch in 0..40 {
            let inputs = short.example(epoch, 3, &vocabulary).inputs;
            assert!(matches!(&*vocabulary.decode(&inputs), "p: e3" | "p: e3 e4" | "p: e3\ne4"), "{inputs:?}");
        }
        // Three together, each once, one separator after the other.
        let dev: Vec<&str> = joined.dev.iter().map(|example| example.inputs.as_str()).collect();
        assert_eq!(dev[..2], ["p: e0 e1 e2", "p: e3\ne4\ne5"]);
        assert_eq!((dev.len(), dev[6]), (7, "p: e18 e19"));
        assert_eq!(joined.dev[1].references, ["g3\ng4\ng5"]);
        let load = |from: &str, to: &str| {
            let limits = Limits { inputs_length: 90, targets_length: 40, ..LIMITS };
            let task = Task::load(&task(&text.replace(from, to)), dir.path(), &vocabulary, limits, 1);
            task.err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert!(load("separators =", "least = 5, separators =").contains("least: expected 1 to 4, the most, found 5"));
        assert!(load("separators = [\" \", \"\\n\"]", "separators = []").contains("separators: expected one or more"));
        assert!(load("{en}", "{fr}").contains("expected a field \"fr\""));
    }

    #[test]
    fn records_of_other_lengths_are_counted() {
        let text = "a b c d e f g\ta\nabc\tb\nx\tc\nabcd\td\n";
        let dir = folder(&[("train.tsv", text), ("dev.tsv", "abc\tb\nx\tc\n")]);
        let length = r#", length = { field = "en", min_chars = 2, max_chars = 4 } }"#;
        let config = task(&PAIRS.replace(r#""de"] }"#, &format!(r#""de"]{length}"#)));
        let task = Task::load(&config, dir.path(), &Vocabulary::bytes(384).unwrap(), LIMITS, 1).unwrap();
        let LoadReport { records, examples, filtered, dev_examples, .. } = task.report;
        assert_eq!((records, examples, filtered, dev_examples), (4, 2, 2, 1));
    }

    #[test]
    fn objectives_that_cannot_be_are_refused() {
        let dir = folder(&[("text.txt", "one two three four five six\n")]);
        let load = |objective: &str, vocabulary: &Vocabulary| {
            let text = format!(
                "name = \"text\"\ntrain = [\"text.txt\"]\nexamples = {{ kind = \"denoise\", objective = {objective} }}"
            );
            Task::load(&task(&text), dir.path(), vocabulary, LIMITS, 1).map(drop).map_err(|error| error.to_string())
        };
        let bytes = Vocabulary::bytes(384).unwrap();
        let error = load(r#"{ name = "random-spans", density = 0.15, mean_span = 0.0 }"#, &bytes).unwrap_err();
        assert_eq!(error, "task text: examples: objective: mean_span: expected 1 token or more, found 0.0");
        let error = load(r#"{ name = "iid-drop", density = 15.0 }"#, &bytes).unwrap_err();
        assert!(error.ends_with("density: expected a share above 0 and below 1, found 15.0"), "{error}");

        // Without sentinels.
        let pairs = crate::testing::sentence_pairs(400);
        let few =
            VocabularyConfig { pieces: 50, sentinels: 0, required_characters: String::new(), ..Default::default() };
        let tokenizer = vocabulary::train(pairs.lines(), &few).unwrap();
        let without = vocabulary::save(&tokenizer, &dir.path().join("tokenizer.json")).unwrap();
        assert_eq!(without.sentinels().count, 0);
        for objective in [r#"{ name = "random-spans", density = 0.15, mean_span = 3.0 }"#, r#"{ name = "ul2" }"#] {
            load(objective, &bytes).unwrap();
            let error = load(objective, &without).unwrap_err();
            assert!(
                error.ends_with("expected a vocabulary with sentinels (<extra_id_0>), found one without"),
                "{error}"
            );
        }
        load(r#"{ name = "prefix-lm" }"#, &without).unwrap();
    }

    #[test]
    fn pieces_are_divided_anew_each_epoch_and_never_so_that_a_text_is_cut() {
        let dir = folder(&[("train.tsv", "Where is the station?\tWo ist der Bahnhof?\n"), ("dev.tsv", "a\tb\n")]);
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/model/pocket-t5.gguf");
        let vocabulary = Vocabulary::read(&model).unwrap();
        let config = |knobs: &str| task(&format!("{PAIRS}{knobs}"));
        let load = |knobs: &str, inputs_length| {
            let limits = Limits { inputs_length, targets_length: 40, ..LIMITS };
            Task::load(&config(knobs), dir.path(), &vocabulary, limits, 1).unwrap()
        };
        let plain = load("", 40).example(0, 0, &vocabulary);
        let spellings = |task: &Task| -> HashSet<Vec<u32>> {
            let examples = (0..50).map(|epoch| task.example(epoch, 0, &vocabulary));
            examples
                .map(|example| {
                    assert_eq!(example.targets, plain.targets);
                    assert_eq!(vocabulary.decode(&example.inputs), "Where is the station?");
                    assert_eq!(example.inputs.last(), plain.inputs.last());
                    example.inputs
                })
                .collect()
        };
        assert!(spellings(&load("divide_inputs = 0.3", 40)).len() > 10);
        // There is room for the shortest spelling alone.
        assert_eq!(spellings(&load("divide_inputs = 0.3", plain.inputs.len())), [plain.inputs.clone()].into());
        assert_eq!(load("divide_inputs = 0.3", 40).dev_tokens(&vocabulary), load("", 40).dev_tokens(&vocabulary));
        let both = load("divide_inputs = 0.1\ndivide_targets = 0.3", 40);
        let targets: HashSet<Vec<u32>> = (0..50).map(|epoch| both.example(epoch, 0, &vocabulary).targets).collect();
        assert!(targets.len() > 10, "{}", targets.len());
        let bytes = Vocabulary::bytes(384).unwrap();
        let error = Task::load(&config("divide_targets = 0.1"), dir.path(), &bytes, LIMITS, 1).err().unwrap();
        let expected = "task pairs: divide_inputs, divide_targets: expected a vocabulary of pieces, found bytes";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn slips_train_towards_the_clean_text() {
        let dir = folder(&[
            ("train.tsv", "They went home early.\tx\nThey went home early.\ty\nShe's not here yet.\tx\n"),
            ("dev.tsv", "She's not here yet.\tx\n"),
        ]);
        let config = task(
            r#"
            name = "fix"
            train = ["train.tsv"]
            dev = ["dev.tsv"]
            source = { format = "tsv", columns = ["en"], unique = "en" }
            examples = { kind = "slips", text = "{en}", prefix = "fix: ", rate = 0.1 }
        "#,
        );
        let vocabulary = Vocabulary::bytes(384).unwrap();
        let limits = Limits { inputs_length: 90, targets_length: 90, ..LIMITS };
        let task = Task::load(&config, dir.path(), &vocabulary, limits, 1).unwrap();
        // One sentence is a duplicate, one belongs to the evaluation.
        assert_eq!((task.len(), task.report.filtered, task.dev.len()), (1, 2, 1));
        let texts: HashSet<String> =
            (0..50).map(|epoch| vocabulary.decode(&task.example(epoch, 0, &vocabulary).inputs)).collect();
        assert!(texts.len() > 20 && texts.iter().all(|text| text.starts_with("fix: ")));
        assert_eq!(vocabulary.decode(&task.example(7, 0, &vocabulary).targets), "They went home early.");
        assert_eq!(task.dev[0].references, ["She's not here yet."]);
    }
}
