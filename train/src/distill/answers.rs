//! Distillation text by text: what a teacher answers by beam search, as records of a JSON-lines file.
//!
//! A record has the fields `input`, `target` (the answer), `reference` (the task's own target), `score` (the answer's
//! log-probability over the length penalty) and `task`. A task trains on them with
//! `source = { format = "jsonl" }` and `examples = { kind = "template", input = "{input}", target = "{target}" }`.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::Digest;
use t5_runtime::generate::{Finish, GenerateOptions, LengthPenalty};
use t5_runtime::model::{Model, ModelOptions};
use t5_runtime::output::{OutputFile, target_of};

use crate::config::Config;
use crate::pipeline::{self, stream};
use crate::random::derive;
use crate::tasks::{self, TextExample};
use crate::vocabulary::Vocabulary;
use crate::{Error, Result, evaluate, files};

/// Examples between two writes.
const PART: usize = 256;

/// How the teacher answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search {
    pub beams: usize,
    /// The exponent of the length penalty.
    pub length_penalty: f32,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Answers that were written.
    pub answers: usize,
    /// Those that had no end within the longest target, and were left out.
    pub unfinished: usize,
    /// Inputs that a killed process had answered before.
    pub continued: usize,
}

/// An input of a task and its own target.
struct Question {
    task: String,
    example: TextExample,
}

/// Answers the training inputs of a run's tasks, each input once, and writes the answers as records. A process that was
/// killed is continued.
///
/// # Errors
/// Where the configuration names no teacher or one with another vocabulary, a task has no labelled examples, or the
/// file cannot be written.
pub fn write(config: &Config, search: Search, output: &Path, mut told: impl FnMut(usize, usize)) -> Result<Written> {
    let vocabulary = Vocabulary::read(&pipeline::vocabulary_path(config)?)?;
    let checkpoint = super::open(&config.distill, &vocabulary)?;
    let questions = questions(config)?;
    let mut digest = super::digest(&checkpoint);
    digest.update(format!("{search:?} {:?}", config.data.limits()));
    for Question { task, example } in &questions {
        digest.update(json!([task, example.inputs, example.targets]).to_string());
    }
    let head = json!({ "digest": format!("{:x}", digest.finalize()) }).to_string() + "\n";
    let model = Model::from_checkpoint(checkpoint, &ModelOptions::default())?;
    let options = GenerateOptions::default()
        .beams(search.beams)
        .length_penalty(LengthPenalty::T5 { alpha: search.length_penalty })
        .max_new_tokens(config.data.targets_length);

    let mut log = Log::open(output, &head)?;
    let mut written = Written { continued: log.done, ..Written::default() };
    let total = questions.len();
    while log.done < total {
        let part = &questions[log.done..total.min(log.done + PART)];
        let inputs: Vec<Vec<u32>> = part
            .iter()
            .map(|question| {
                let mut inputs = vocabulary.encode(&question.example.inputs);
                crate::objectives::append_eos_after_trim(&mut inputs, config.data.inputs_length);
                inputs
            })
            .collect();
        let answers = evaluate::best_answers(&model, &inputs, &options)?;
        let mut lines = String::new();
        for (Question { task, example }, answer) in part.iter().zip(answers) {
            let ended = answer.as_ref().is_some_and(|answer| answer.finish == Finish::EndOfSequence);
            let record = match answer.filter(|_| ended) {
                Some(answer) => json!({
                    "input": example.inputs,
                    "target": vocabulary.decode(&answer.ids),
                    "reference": example.targets,
                    "score": answer.score,
                    "task": task,
                }),
                None => serde_json::Value::Null,
            };
            lines += &format!("{record}\n");
        }
        log.append(&lines, part.len())?;
        told(log.done, total);
    }
    let (answers, unfinished) = log.finish(output, &head)?;
    written.answers = answers;
    written.unfinished = unfinished;
    Ok(written)
}

fn questions(config: &Config) -> Result<Vec<Question>> {
    config.data.check()?;
    let seed = derive(config.run.seed, &[stream::DATA]);
    let mut questions = Vec::new();
    for task in config.data.tasks.iter().filter(|task| !task.train.is_empty()) {
        let mut seen = HashSet::new();
        for example in tasks::training_examples(task, &config.data.dir, seed)?.0 {
            if seen.insert(crate::random::hash_bytes(example.inputs.as_bytes())) {
                questions.push(Question { task: task.name.clone(), example });
            }
        }
    }
    if questions.is_empty() {
        return Err(Error::Invalid("data: tasks: expected one with files to train on, found none".to_owned()));
    }
    Ok(questions)
}

/// The answers so far, beside the output: a head that says what they belong to, then a line for each question.
struct Log {
    path: PathBuf,
    file: File,
    /// Questions that have their line.
    done: usize,
}

impl Log {
    fn open(output: &Path, head: &str) -> Result<Log> {
        // What can be known to fail at the end fails now.
        target_of(output)?;
        let mut name = output.as_os_str().to_os_string();
        name.push(".unfinished");
        let path = PathBuf::from(name);
        let mut file = files::open_alone(&path, "is written by another process")?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(Error::io(&path))?;
        // What a kill left of the last line is written again.
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let lines = text[..whole].iter().filter(|&&byte| byte == b'\n').count();
        if whole > 0 && !text.starts_with(head.as_bytes()) {
            let what = "expected answers of this teacher to these inputs, found others; remove it to begin anew";
            return Err(Error::file(&path, what));
        }
        file.set_len(whole as u64).and_then(|()| file.seek(SeekFrom::End(0))).map_err(Error::io(&path))?;
        let mut log = Log { path, file, done: lines.saturating_sub(1) };
        if whole == 0 {
            log.append(head, 0)?;
        }
        Ok(log)
    }

    fn append(&mut self, lines: &str, questions: usize) -> Result<()> {
        self.file.write_all(lines.as_bytes()).map_err(Error::io(&self.path))?;
        self.done += questions;
        Ok(())
    }

    /// Writes the records of all answers and removes the log. Gives how many there were, and how many had no end.
    fn finish(mut self, output: &Path, head: &str) -> Result<(usize, usize)> {
        self.file.seek(SeekFrom::Start(head.len() as u64)).map_err(Error::io(&self.path))?;
        let mut target = std::io::BufWriter::new(OutputFile::create(output)?);
        let (mut answers, mut unfinished) = (0, 0);
        for line in BufReader::new(&self.file).lines() {
            let line = line.map_err(Error::io(&self.path))?;
            if line == "null" {
                unfinished += 1;
                continue;
            }
            answers += 1;
            writeln!(target, "{line}").map_err(Error::io(output))?;
        }
        files::commit(target, output)?;
        fs::remove_file(&self.path).map_err(Error::io(&self.path))?;
        Ok((answers, unfinished))
    }
}
