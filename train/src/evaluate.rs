//! Evaluation through the runtime: the model's own outputs on the tasks' dev examples, and the tasks' metrics.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;
use t5_runtime::generate::{GenerateOptions, LengthPenalty, Output};
use t5_runtime::model::Model;

use crate::config::Evaluation;
use crate::metrics::Metric;
use crate::ranks::Ranks;
use crate::record::{EvaluationReport, Sample};
use crate::tasks::{Task, TaskConfig};
use crate::trainer::Evaluator;
use crate::vocabulary::Vocabulary;
use crate::{Error, Result};

/// Documents decoded side by side.
const BATCH: usize = 16;
/// Samples of each task in a report.
const SAMPLES: usize = 5;

/// Runs models over dev examples.
pub struct RuntimeEvaluator {
    pub tasks: Arc<Vec<Task>>,
    pub vocabulary: Arc<Vocabulary>,
    pub options: Evaluation,
    /// Examples of each task; 0: all.
    pub examples: usize,
    /// Those that share the work, each of which judges the same model and gets the same report.
    pub ranks: Ranks,
}

impl RuntimeEvaluator {
    fn predictions(&self, model: &Model, inputs: &[Vec<u32>]) -> Result<Vec<String>> {
        let options = GenerateOptions::default()
            .beams(self.options.beam_size)
            .length_penalty(LengthPenalty::T5 { alpha: self.options.length_penalty })
            .max_new_tokens(self.options.max_tokens);
        // The training vocabulary's text keeps sentinels, as the targets do.
        let text = |answer: &Option<Output>| self.vocabulary.decode(answer.as_ref().map_or(&[][..], |best| &best.ids));
        let answer = |inputs: &[Vec<u32>]| -> Result<Vec<String>> {
            Ok(best_answers(model, inputs, &options)?.iter().map(text).collect())
        };
        if self.ranks.size() == 1 {
            return answer(inputs);
        }
        // Long and short ones for each.
        let mut order: Vec<usize> = (0..inputs.len()).collect();
        order.sort_by_key(|&index| inputs[index].len());
        let own: Vec<usize> = order
            .into_iter()
            .enumerate()
            .filter(|(place, _)| self.ranks.does(*place))
            .map(|(_, index)| index)
            .collect();
        let texts = answer(&own.iter().map(|&index| inputs[index].clone()).collect::<Vec<_>>())?;
        let unreadable = |error: serde_json::Error| Error::Invalid(format!("answers of a rank: {error}"));
        let said = serde_json::to_vec(&own.iter().zip(&texts).collect::<Vec<_>>()).map_err(unreadable)?;
        let mut all = vec![String::new(); inputs.len()];
        for said in self.ranks.gather(&said) {
            let said: Vec<(usize, String)> = serde_json::from_slice(&said).map_err(unreadable)?;
            said.into_iter().for_each(|(index, text)| all[index] = text);
        }
        Ok(all)
    }
}

/// The best answer to each input; `None` where there is none.
///
/// # Errors
/// Where the model cannot be run.
pub(crate) fn best_answers(
    model: &Model,
    inputs: &[Vec<u32>],
    options: &GenerateOptions,
) -> Result<Vec<Option<Output>>> {
    // Documents of one length finish together. Results do not depend on what runs beside them.
    let mut order: Vec<usize> = (0..inputs.len()).collect();
    order.sort_by_key(|&index| inputs[index].len());
    let outputs: Vec<Vec<Option<Output>>> = order
        .par_chunks(BATCH)
        .map(|indices| {
            let sources: Vec<&[u32]> = indices.iter().map(|&index| inputs[index].as_slice()).collect();
            let outputs = model.session().generate_batch_ids(&sources, options)?;
            Ok(outputs.into_iter().map(|results| results.into_iter().next()).collect())
        })
        .collect::<Result<_>>()?;
    let mut answers = vec![None; inputs.len()];
    order.into_iter().zip(outputs.into_iter().flatten()).for_each(|(index, answer)| answers[index] = answer);
    Ok(answers)
}

impl Evaluator for RuntimeEvaluator {
    fn evaluate(&mut self, folder: &Path) -> Result<EvaluationReport> {
        Ok(self.judge(&Model::open(folder)?)?.report)
    }
}

/// What an evaluation found, and what it took.
pub struct Judgement {
    pub report: EvaluationReport,
    /// Words written.
    pub words: usize,
    /// In how many seconds, the reading of the inputs among them.
    pub seconds: f64,
}

impl RuntimeEvaluator {
    /// Runs a model over the dev examples.
    ///
    /// # Errors
    /// Where it cannot be run.
    pub fn judge(&self, model: &Model) -> Result<Judgement> {
        let mut report = EvaluationReport::default();
        let (mut words, mut seconds) = (0, 0.0);
        for task in self.tasks.iter().filter(|task| !task.dev.is_empty() && !task.config.metrics.is_empty()) {
            let count = if self.examples == 0 { task.dev.len() } else { self.examples.min(task.dev.len()) };
            let mut inputs = task.dev_tokens(&self.vocabulary);
            inputs.truncate(count);
            let inputs: Vec<Vec<u32>> = inputs.into_iter().map(|example| example.inputs).collect();
            let started = Instant::now();
            let predictions = self.predictions(model, &inputs)?;
            seconds += started.elapsed().as_secs_f64();
            words += predictions.iter().map(|text| text.split_whitespace().count()).sum::<usize>();
            let examples = &task.dev[..count];
            let labels = task.config.examples.labels();
            for name in &task.config.metrics {
                for score in Metric::named(name)?.scores(&predictions, examples, &labels)? {
                    let name = format!("{}/{}", task.config.name, score.name);
                    if score.lower_is_better {
                        report.lower_is_better.insert(name.clone());
                    }
                    report.metrics.insert(name, score.value);
                }
            }
            let sample = |(example, output): (&crate::tasks::TextExample, &String)| Sample {
                task: task.config.name.clone(),
                input: example.inputs.clone(),
                target: example.references.first().cloned().unwrap_or_default(),
                output: output.clone(),
            };
            report.samples.extend(examples.iter().zip(&predictions).take(SAMPLES).map(sample));
        }
        Ok(Judgement { report, words, seconds })
    }
}

/// Metrics and samples for people.
pub fn table(metrics: &BTreeMap<String, f64>, samples: &[Sample]) -> String {
    let width = metrics.keys().map(String::len).max().unwrap_or(0);
    let mut text: String = metrics.iter().map(|(name, value)| format!("{name:width$}  {value:8.2}\n")).collect();
    for sample in samples {
        text += &format!(
            "\n{}\n  input   {}\n  target  {}\n  output  {}\n",
            sample.task, sample.input, sample.target, sample.output
        );
    }
    text
}

/// Checks the metrics before a run spends time.
///
/// # Errors
/// Where a task names a metric that there is not, or one of classes and has no class words.
pub fn check_metrics(tasks: &[TaskConfig]) -> Result<()> {
    for task in tasks {
        let bad = |what: String| Error::Invalid(format!("task {}: {what}", task.name));
        for name in &task.metrics {
            let metric = Metric::named(name).map_err(|error| bad(error.to_string()))?;
            if metric.needs_labels() && task.examples.labels().is_empty() {
                let what = "expected none of classes (exact-match is similar), as its examples have no labels";
                return Err(bad(format!("metric: {what}, found {name}")));
            }
        }
    }
    Ok(())
}

/// Checks what makes a checkpoint the best before a run spends time.
///
/// # Errors
/// Where the run is evaluated, and that is neither the loss nor a score of a task with dev examples.
pub fn check_best_by(options: &Evaluation, tasks: &[Task]) -> Result<()> {
    if options.every_steps == 0 {
        return Ok(());
    }
    let mut known = vec!["loss".to_owned()];
    for task in tasks.iter().filter(|task| !task.dev.is_empty()) {
        for name in &task.config.metrics {
            let scores = Metric::named(name)?.score_names();
            known.extend(scores.into_iter().map(|score| format!("{}/{score}", task.config.name)));
        }
    }
    match options.best_names().find(|name| !known.iter().any(|known| known == name)) {
        Some(name) => {
            let what = format!("expected one of {}, found {name}", known.join(", "));
            Err(Error::config("configuration", "evaluation.best_by", what))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_of_classes_need_class_words() {
        let check = |examples: &str, metric: &str| {
            let text = format!("name = \"t\"\nexamples = {{ {examples} }}\nmetrics = [\"exact-match\", \"{metric}\"]");
            let task: TaskConfig = toml::from_str(&text).unwrap();
            check_metrics(&[task]).map_err(|error| error.to_string())
        };
        let glue = "kind = \"glue\", benchmark = \"cola\", keys = [\"sentence\"], labels = [\"no\", \"yes\"]";
        let template = "kind = \"template\", input = \"{a}\", target = \"{b}\"";
        for metric in ["accuracy", "f1", "macro-f1", "matthews", "multirc"] {
            check(glue, metric).unwrap();
            check("kind = \"multirc\"", metric).unwrap();
            for examples in [template, "kind = \"slips\", rate = 0.1", "kind = \"squad\""] {
                let message = check(examples, metric).unwrap_err();
                assert!(message.starts_with("task t: metric: expected none of classes"), "{message}");
                assert!(message.ends_with(&format!("found {metric}")), "{message}");
            }
        }
        check(template, "bleu").unwrap();
        assert!(check(template, "blue").unwrap_err().starts_with("task t: metric: expected one of bleu"));
    }
}
