//! The training loop: batches -> gradients -> update, with logs, evaluations and checkpoints on the way.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sha2::{Digest, Sha256};
use t5_runtime::command;

use crate::batches::{Batch, BatchSource};
use crate::checkpoint::{self, Best, Checkpoints, Interval, Saved, Shared, State, Tensors, write_model};
use crate::config::{self, Config, Denominator};
use crate::distill::Teacher;
use crate::events::EventWriter;
use crate::files;
use crate::kernels::vectorised;
use crate::model::{LossOptions, Model};
use crate::ops::Sequences;
use crate::ops::cross_entropy::Statistics;
use crate::ops::dropout::Plan;
use crate::optimizer::Optimizer;
use crate::random::splitmix64;
use crate::ranks::Ranks;
use crate::record::{self, Entry, EvaluationReport, LogRecord, RanksRecord};
use crate::sums::{self, GradientSum, Sum};
use crate::{Error, Result, export};

/// The file in a run's folder that is locked while it is trained. A study's jobs have a `lock` of their own there.
const LOCK: &str = "run.lock";

/// Judges a model saved as a Hugging Face folder.
pub trait Evaluator {
    /// Runs it over the dev examples.
    ///
    /// # Errors
    /// Where the model cannot be run.
    fn evaluate(&mut self, model: &Path) -> Result<EvaluationReport>;
}

/// What a run is made of.
pub struct Parts {
    pub model: Model,
    pub source: Box<dyn BatchSource>,
    /// Dev batches, for the loss.
    pub dev: Vec<Batch>,
    /// A name for what was read for evaluation: scores of other dev files are not compared.
    pub dev_name: String,
    pub evaluator: Option<Box<dyn Evaluator>>,
    /// What the model learns from beside the targets.
    pub teacher: Option<Teacher>,
    /// Files that make a folder of weights a model: (name, contents).
    pub extra: Vec<(String, Vec<u8>)>,
    /// The processes that share the work. The model, the batches and the dev batches are the same for all.
    pub ranks: Ranks,
}

/// What a pass over one batch found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Found {
    loss: f64,
    statistics: Statistics,
    /// The largest size among the gradients, as [`GradientSum::add`] gives it.
    largest: f64,
}

impl Found {
    const PLACES: usize = 7;

    /// What was found as numbers, which ranks can exchange.
    fn numbers(self) -> [f64; Found::PLACES] {
        let Statistics { negative_log_likelihood, z_loss, correct, weight, divergence } = self.statistics;
        [self.loss, negative_log_likelihood, z_loss, correct, weight, divergence, self.largest]
    }

    /// The sums over batches, in their order.
    fn total(numbers: &[f64]) -> Found {
        let mut total = Found::default();
        for part in numbers.chunks_exact(Found::PLACES) {
            total.loss += part[0];
            let [negative_log_likelihood, z_loss, correct, weight, divergence] =
                [part[1], part[2], part[3], part[4], part[5]];
            total.statistics.add(&Statistics { negative_log_likelihood, z_loss, correct, weight, divergence });
            total.largest += part[6];
        }
        total
    }
}

/// A run.
pub struct Trainer {
    config: Config,
    parts: Parts,
    optimizer: Optimizer,
    average: Option<Vec<Vec<f32>>>,
    state: State,
    checkpoints: Checkpoints,
    gradients: GradientSum,
    /// What scores of evaluations depend on beside the model, in words.
    measure: String,
    /// Of the first rank, which alone writes.
    log: Option<File>,
    log_path: PathBuf,
    events: Option<EventWriter>,
    bar: ProgressBar,
    /// What stands before each line that is said.
    title: String,
    /// The first rank's hold on the folder.
    _lock: Option<File>,
}

impl Trainer {
    /// Starts a run in its output folder, or continues the one that is there.
    ///
    /// # Errors
    /// Where the folder holds a run with another configuration or vocabulary, another process trains in it, or it
    /// cannot be written; where ranks do not begin alike.
    pub fn open(config: &Config, parts: Parts) -> Result<Trainer> {
        let (output, ranks) = (&config.run.output, parts.ranks);
        let (lock, newest) = ranks.is_first().then(|| prepare(config)).transpose()?.unzip();
        let newest = newest.flatten().map_or_else(String::new, |step| step.to_string());
        let newest = match ranks.first_says(newest.as_bytes()) {
            step if step.is_empty() => None,
            step => String::from_utf8_lossy(&step).parse().ok(),
        };
        if !output.join(config::KEPT).exists() {
            let what = "expected the run's folder on a file system that all ranks see, found none";
            return Err(Error::file(output, what));
        }
        let checkpoints = Checkpoints::open(&output.join("checkpoints"), config.checkpoint.keep_last)?;

        let optimizer = Optimizer::new(&config.optimizer, &parts.model.trained());
        let state = State {
            step: 0,
            tokens: 0,
            seconds: 0.0,
            data: parts.source.state(),
            best: None,
            interval: Interval::default(),
        };
        let average = (config.checkpoint.average_decay > 0.0)
            .then(|| (0..parts.model.vars().len()).map(|index| parts.model.values(index)).collect::<Result<_>>())
            .transpose()?;
        let has_events = config.log.tensorboard && ranks.is_first();
        let events = has_events.then(|| EventWriter::create(&output.join("events"))).transpose()?;
        let bar = if ranks.is_first() { ProgressBar::new(config.run.steps) } else { ProgressBar::hidden() };
        let measure = format!("{}, dev examples {}", config.measure(), parts.dev_name);
        let mut trainer = Trainer {
            config: config.clone(),
            parts,
            optimizer,
            average,
            state,
            checkpoints,
            gradients: GradientSum::new(config.run.sum),
            measure,
            log: None,
            log_path: output.join("log.jsonl"),
            events,
            bar: bar.with_style(progress_style()),
            title: String::new(),
            _lock: lock,
        };
        match newest {
            Some(step) => trainer.resume(step)?,
            None if config.optimizer.keep_slots => trainer.take_slots()?,
            None => {}
        }
        trainer.compare()?;
        if ranks.is_first() {
            trainer.open_log()?;
        }
        Ok(trainer)
    }

    /// Compares the parameters and the optimiser's state of all ranks.
    fn compare(&self) -> Result<()> {
        if self.parts.ranks.size() == 1 {
            return Ok(());
        }
        let mut digest = Sha256::new();
        let mut update = |values: &[f32]| {
            // A piece at a time: values have no bytes of their own here.
            let mut bytes = [0u8; 1 << 12];
            for values in values.chunks(bytes.len() / 4) {
                bytes
                    .chunks_exact_mut(4)
                    .zip(values)
                    .for_each(|(bytes, value)| bytes.copy_from_slice(&value.to_le_bytes()));
                digest.update(&bytes[..4 * values.len()]);
            }
        };
        for var in self.parts.model.vars() {
            update(&crate::ops::Values::new(var.as_tensor())?);
        }
        self.optimizer.state(&self.parts.model.trained()).iter().for_each(|(_, values)| update(values));
        self.parts.ranks.expect_same(&format!("parameters after step {}", self.state.step), &digest.finalize())
    }

    fn resume(&mut self, step: u64) -> Result<()> {
        let saved = Saved::open(&self.checkpoints.path(step))?;
        export::expect_vocabulary(saved.folder(), &self.parts.extra)?;
        let optimizer = saved.optimizer()?;
        self.parts.model.restore(&saved)?;
        let before = if self.config.optimizer.keep_slots { self.config.run.start_step } else { 0 };
        self.optimizer.restore(&self.parts.model.trained(), &optimizer, before + saved.state.step)?;
        if let (Some(average), Some(file)) = (&mut self.average, saved.average()?) {
            for (values, spec) in average.iter_mut().zip(self.parts.model.specs()) {
                *values = file.read(&spec.hf_name)?;
            }
        }
        self.parts.source.restore(&saved.state.data)?;
        self.state = saved.state;
        let measure = &self.measure;
        if let Some(best) = self.state.best.take_if(|best| !best.by.is_empty() && best.by != *measure) {
            let Best { step, by, .. } = best;
            self.say(&format!("step {step} was the best by {by}: forgotten, as the best is now that by {measure}"));
        }
        Ok(())
    }

    /// Goes on with the optimiser's state of the checkpoint that the model comes from.
    fn take_slots(&mut self) -> Result<()> {
        let slots = checkpoint::optimizer_file(Path::new(&self.config.model.from))?;
        self.optimizer.restore(&self.parts.model.trained(), &slots, self.config.run.start_step)
    }

    /// Opens the log, and drops records of steps after the checkpoint: they will be written again.
    fn open_log(&mut self) -> Result<()> {
        let create = OpenOptions::new().create(true).append(true).open(&self.log_path);
        drop(create.map_err(Error::io(&self.log_path))?);
        let text = record::read_log(&self.log_path)?;
        let kept = |line: &&str| {
            serde_json::from_str::<serde_json::Value>(line)
                .ok()
                .and_then(|record| record["step"].as_u64())
                .is_some_and(|step| step <= self.state.step)
        };
        let lines: Vec<&str> = text.lines().filter(kept).collect();
        let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        files::replace(&self.log_path, text.as_bytes())?;
        self.log = Some(OpenOptions::new().append(true).open(&self.log_path).map_err(Error::io(&self.log_path))?);
        Ok(())
    }

    /// Says in lines that begin with a title how far it is, in the place of a bar: for one of many runs.
    pub fn set_title(&mut self, title: &str) {
        self.bar.set_draw_target(ProgressDrawTarget::hidden());
        self.title = format!("{title}: ");
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.state.step
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.parts.model
    }

    /// Where the checkpoints are.
    pub fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    /// Trains to the last step and saves a checkpoint of it.
    ///
    /// # Errors
    /// Where data, disk or numbers fail; checkpoints saved before are still there.
    pub fn run(&mut self) -> Result<()> {
        self.bar.set_position(self.state.step);
        if self.state.step > 0 {
            self.say(&format!("continuing after step {}", self.state.step));
        }
        while self.state.step < self.config.run.steps && !self.is_stale(self.state.step) {
            self.train_step()?;
            let compare = self.config.run.compare_steps;
            if compare > 0 && self.state.step.is_multiple_of(compare) {
                self.compare()?;
            }
            let step = self.state.step;
            let mut improved = false;
            if self.is_due(self.config.evaluation.every_steps, step) {
                improved = self.evaluate()?;
            }
            let save = self.is_due(self.config.checkpoint.every_steps, step) || improved || self.is_stale(step);
            if save && self.parts.ranks.is_first() {
                self.save()?;
            }
        }
        self.bar.finish_and_clear();
        if let Some(best) = self.state.best.as_ref().filter(|_| self.is_stale(self.state.step)) {
            self.say(&format!("stopped early: no evaluation was better than that of step {}", best.step));
        }
        Ok(())
    }

    /// Whether that is due after a step which is done every so many steps, and after the last.
    fn is_due(&self, every: u64, step: u64) -> bool {
        every > 0 && (step.is_multiple_of(every) || step == self.config.run.steps)
    }

    /// Whether the last evaluations before a step were no better than one before them, and the run is to end for that.
    fn is_stale(&self, step: u64) -> bool {
        let wait = self.config.evaluation.patience.saturating_mul(self.config.evaluation.every_steps);
        wait > 0 && self.state.best.as_ref().is_some_and(|best| step >= best.step.saturating_add(wait))
    }

    /// One update.
    fn train_step(&mut self) -> Result<()> {
        let started = Instant::now();
        let config = &self.config;
        let ranks = self.parts.ranks;
        let step = self.state.step;
        let mut batches = Vec::with_capacity(config.run.accumulate);
        let mut sequences = Vec::with_capacity(config.run.accumulate);
        for micro in 0..config.run.accumulate {
            let batch = self.parts.source.next_batch()?;
            let mut ragged = Sequences::for_model(&batch, self.parts.model.config(), config.loss.on_inputs)?;
            if let Some(teacher) = self.parts.teacher.as_mut().filter(|_| ranks.does(micro)) {
                teacher.teach(&mut ragged)?;
                if let Some(note) = teacher.note(&ragged) {
                    self.say(&note);
                }
            }
            sequences.push(ragged);
            batches.push(batch);
        }
        let tokens: usize = sequences.iter().map(Sequences::tokens).sum();
        let blocks = self.parts.model.config().num_layers.max(self.parts.model.config().num_decoder_layers);
        self.parts.model.train_top_blocks(config.tuning.blocks_at(step, config.run.steps, blocks));
        let options = LossOptions {
            label_smoothing: config.loss.label_smoothing,
            z_loss: config.loss.z_loss,
            denominator: match config.loss.denominator {
                Denominator::Tokens => sequences.iter().map(Sequences::weight).sum::<f64>().max(1.0),
                Denominator::Positions => sequences.iter().map(|s| s.decoder_positions).sum::<usize>() as f64,
                Denominator::None => 1.0,
            },
        };
        let mut found = vec![0.0; config.run.accumulate * Found::PLACES];
        let only = (0..config.run.accumulate).filter(|&micro| ranks.does(micro)).count() == 1;
        let passes = Instant::now();
        for (micro, sequences) in sequences.into_iter().enumerate().filter(|(micro, _)| ranks.does(*micro)) {
            let dropout = Plan {
                rate: config.model.dropout,
                seed: splitmix64(splitmix64(config.run.seed ^ splitmix64(step)) ^ micro as u64),
                shared_over_length: config.model.dropout_shared_over_length,
            };
            let (loss, statistics) = self.parts.model.backward(sequences, &options, dropout)?;
            self.parts.model.collect_gradients()?;
            let largest = self.gradients.add(&self.parts.model, only);
            let found = &mut found[micro * Found::PLACES..][..Found::PLACES];
            found.copy_from_slice(&Found { loss: loss.into(), statistics, largest: largest.into() }.numbers());
        }
        // Its seconds are the last number that a rank tells the others.
        let passes = passes.elapsed().as_secs_f64();
        found.push(passes);
        let exchange = Instant::now();
        ranks.merge(&mut found);
        let all_passes = found.pop().unwrap_or(passes);
        let Found { loss, statistics, largest } = Found::total(&found);
        // Every rank finds the same here, and none has to wait for another that stopped.
        if config.run.sum == Sum::Exact && largest.is_finite() && largest >= sums::LIMIT {
            let what = format!(
                "the largest gradients of its batches add up to {largest:e}, and exact sums are below {}; take run.sum \
                 = \"float\", or a loss.denominator",
                sums::LIMIT
            );
            return Err(self.diverged(step, &what, &batches));
        }
        let bytes = if largest.is_finite() { self.gradients.finish(&self.parts.model, ranks) } else { 0 };
        let exchange = exchange.elapsed().as_secs_f64();
        let gradient_norm = if largest.is_finite() { Optimizer::gradient_norm(&self.parts.model) } else { largest };
        if !loss.is_finite() || !gradient_norm.is_finite() {
            let what = format!("the loss is {loss} and the gradient norm {gradient_norm}");
            return Err(self.diverged(step, &what, &batches));
        }
        // Norms turn values whose squares overflow into zeros: such a model has finite losses and learns nothing.
        let mean = statistics.negative_log_likelihood / statistics.weight.max(1e-9);
        if gradient_norm == 0.0 && mean > 1e-3 {
            let what = format!("the loss is {mean} and all gradients are zero");
            return Err(self.diverged(step, &what, &batches));
        }
        // Schedule and Adafactor count on from the steps before this run.
        let global_step = config.run.start_step + step;
        let rate = config.schedule.rate(global_step, config.run.start_step + config.run.steps);
        self.optimizer.step(&self.parts.model, global_step, rate, gradient_norm)?;
        // Before an evaluation or a checkpoint takes the values; that of a best score comes behind an evaluation.
        let (evaluation, checkpoint) = (config.evaluation.every_steps, config.checkpoint.every_steps);
        if self.is_due(evaluation, step + 1) || self.is_due(checkpoint, step + 1) || self.is_stale(step + 1) {
            self.expect_finite(&batches)?;
        }
        self.update_average()?;

        self.state.step += 1;
        self.state.tokens += tokens as u64;
        self.state.data = self.parts.source.state();
        let seconds = started.elapsed().as_secs_f64();
        self.state.seconds += seconds;
        let interval = &mut self.state.interval;
        interval.negative_log_likelihood += statistics.negative_log_likelihood;
        interval.z_loss += statistics.z_loss;
        interval.correct += statistics.correct;
        interval.weight += statistics.weight;
        interval.divergence += statistics.divergence;
        interval.tokens += tokens as u64;
        interval.seconds += seconds;
        if ranks.size() > 1 {
            let shared = interval.shared.get_or_insert_default();
            shared.bytes += bytes;
            shared.exchange_seconds += exchange;
            shared.rank_seconds += seconds * ranks.size() as f64;
            shared.alone_seconds += all_passes + (seconds - passes - exchange);
        }
        self.bar.set_position(self.state.step);
        if self.state.step.is_multiple_of(self.config.log.every_steps) || self.state.step == self.config.run.steps {
            self.log_interval(rate, gradient_norm)?;
        }
        Ok(())
    }

    fn update_average(&mut self) -> Result<()> {
        let Some(average) = &mut self.average else {
            return Ok(());
        };
        let decay = self.config.checkpoint.average_decay as f32;
        for (average, var) in average.iter_mut().zip(self.parts.model.vars()) {
            let values = crate::ops::Values::new(var.as_tensor())?;
            vectorised(|| {
                for (average, value) in average.iter_mut().zip(&*values) {
                    *average = decay * *average + (1.0 - decay) * value;
                }
            });
        }
        Ok(())
    }

    fn log_interval(&mut self, rate: f64, gradient_norm: f64) -> Result<()> {
        let interval = std::mem::take(&mut self.state.interval);
        let weight = interval.weight.max(1e-9);
        let (loss, accuracy) = (interval.negative_log_likelihood / weight, interval.correct / weight);
        let (z_loss, tokens_per_second) = (interval.z_loss / weight, interval.tokens as f64 / interval.seconds);
        let divergence = self.parts.teacher.as_ref().map(|_| interval.divergence / weight);
        let teacher = divergence.map_or(String::new(), |divergence| format!("  from teacher {divergence:.4}"));
        let size = self.parts.ranks.size();
        let ranks = interval.shared.filter(|_| size > 1).map(|shared| {
            let Shared { bytes, exchange_seconds: seconds, rank_seconds, alone_seconds } = shared;
            RanksRecord { size, bytes, seconds, efficiency: alone_seconds / rank_seconds }
        });
        let shared = ranks.map_or(String::new(), |ranks| {
            let RanksRecord { size, bytes, seconds, efficiency } = ranks;
            format!("  {size} ranks {:.0} % ({:.0} MB in {seconds:.2} s)", efficiency * 100.0, bytes as f64 / 1e6)
        });
        let line = format!(
            "loss {loss:.4}{teacher}  accuracy {accuracy:.4}  rate {rate:.2e}  norm {gradient_norm:.3}  \
             {tokens_per_second:.0} tok/s{shared}"
        );
        self.bar.set_message(line.clone());
        if self.bar.is_hidden() {
            self.say(&format!("step {}/{}  {line}", self.state.step, self.config.run.steps));
        }
        let peak_memory_mb = peak_memory_mb();
        self.record(Entry::Train {
            loss,
            divergence,
            z_loss,
            accuracy,
            rate,
            gradient_norm,
            tokens_per_second,
            peak_memory_mb,
            ranks,
        })?;
        if let Some(events) = &mut self.events {
            let mut scalars = vec![
                ("train/loss", loss),
                ("train/accuracy", accuracy),
                ("train/rate", rate),
                ("train/gradient_norm", gradient_norm),
                ("train/tokens_per_second", tokens_per_second),
            ];
            scalars.extend(divergence.map(|divergence| ("train/divergence", divergence)));
            events.scalars(self.state.step, &scalars)?;
        }
        Ok(())
    }

    fn record(&mut self, entry: Entry) -> Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        let State { step, tokens, seconds, .. } = self.state;
        let record = LogRecord { step, tokens, seconds, entry };
        let mut line = serde_json::to_string(&record).map_err(|error| Error::Invalid(format!("log: {error}")))?;
        line.push('\n');
        log.write_all(line.as_bytes()).map_err(Error::io(&self.log_path))
    }

    /// Dev loss and task metrics; whether they are the best so far.
    fn evaluate(&mut self) -> Result<bool> {
        let options = LossOptions { label_smoothing: 0.0, z_loss: 0.0, denominator: 1.0 };
        let (folder, ranks) = (self.config.run.output.join("evaluated"), self.parts.ranks);
        if ranks.is_first() {
            files::create_folder(&folder)?;
            self.write_folder(&folder)?;
        }
        ranks.meet();
        let current = self.average.is_some().then(|| self.swap_average()).transpose()?;
        let mut found = vec![0.0; self.parts.dev.len() * Found::PLACES];
        let parts = self.parts.dev.iter().zip(found.chunks_exact_mut(Found::PLACES)).enumerate();
        for (_, (batch, found)) in parts.filter(|(place, _)| ranks.does(*place)) {
            let on_inputs = self.config.loss.on_inputs;
            let sequences = Sequences::for_model(batch, self.parts.model.config(), on_inputs)?;
            let (loss, statistics) = self.parts.model.evaluate(sequences, &options)?;
            found.copy_from_slice(&Found { loss: loss.into(), statistics, largest: 0.0 }.numbers());
        }
        ranks.merge(&mut found);
        let Found { statistics, .. } = Found::total(&found);
        if let Some(current) = current {
            self.set_values(&current)?;
        }
        let report = match &mut self.parts.evaluator {
            Some(evaluator) => evaluator.evaluate(&folder)?,
            None => EvaluationReport::default(),
        };
        let weight = statistics.weight.max(1e-9);
        let (loss, accuracy) = (statistics.negative_log_likelihood / weight, statistics.correct / weight);
        let metrics: String = report.metrics.iter().map(|(name, value)| format!("  {name} {value:.2}")).collect();
        self.say(&format!("step {}: dev loss {loss:.4}  accuracy {accuracy:.4}{metrics}", self.state.step));
        if let Some(events) = &mut self.events {
            let mut scalars = vec![("dev/loss", loss), ("dev/accuracy", accuracy)];
            scalars.extend(report.metrics.iter().map(|(name, value)| (name.as_str(), *value)));
            events.scalars(self.state.step, &scalars)?;
        }
        let names: Vec<&str> = self.config.evaluation.best_names().collect();
        let mut score = 0.0;
        for &name in &names {
            let value = match (name, report.metrics.get(name)) {
                ("loss", _) => -loss,
                (_, Some(value)) if report.lower_is_better.contains(name) => -value,
                (_, Some(value)) => *value,
                (_, None) => {
                    let known = report.metrics.keys().cloned().collect::<Vec<_>>().join(", ");
                    let what = format!("expected loss or one of {known}, found {name}");
                    // On every rank alike.
                    return Err(Error::Ranks(format!("configuration: evaluation.best_by: {what}")));
                }
            };
            score += value / names.len() as f64;
        }
        // A score that is no number is never the best, not even as the first.
        let improved = !score.is_nan() && self.state.best.as_ref().is_none_or(|best| score > best.score);
        if improved {
            self.state.best = Some(Best { step: self.state.step, score, by: self.measure.clone() });
        }
        self.record(Entry::Evaluation { loss, accuracy, report })?;
        Ok(improved)
    }

    /// Puts the averaged parameters into the model and gives the current ones.
    fn swap_average(&mut self) -> Result<Vec<Vec<f32>>> {
        let current =
            (0..self.parts.model.vars().len()).map(|index| self.parts.model.values(index)).collect::<Result<_>>()?;
        if let Some(average) = self.average.take() {
            let set = self.set_values(&average);
            self.average = Some(average);
            set?;
        }
        Ok(current)
    }

    fn set_values(&self, values: &[Vec<f32>]) -> Result<()> {
        let mut values = values.iter();
        self.parts.model.load(|_| Ok(values.next().cloned().unwrap_or_default()))
    }

    /// The current model (its average, where the run keeps one) as a Hugging Face folder.
    fn write_folder(&self, folder: &Path) -> Result<()> {
        write_model(&folder.join(checkpoint::MODEL), &self.parts.model, self.average.as_deref())?;
        for (name, contents) in &self.parts.extra {
            files::write_synced(&folder.join(name), contents)?;
        }
        Ok(())
    }

    /// Saves a checkpoint.
    ///
    /// # Errors
    /// Where the disk is full; earlier checkpoints are still there.
    pub fn save(&self) -> Result<PathBuf> {
        let (model, optimizer) = (&self.parts.model, &self.optimizer);
        let tensors = Tensors { model, optimizer, average: self.average.as_deref() };
        self.checkpoints.save(&self.state, &tensors, &self.parts.extra)
    }

    /// Refuses the values that an update has just made where not all are finite: no run could go on from them. Every
    /// rank finds the same.
    fn expect_finite(&self, batches: &[Batch]) -> Result<()> {
        let model = &self.parts.model;
        for (spec, var) in model.specs().iter().zip(model.vars()) {
            if !crate::ops::Values::new(var.as_tensor())?.iter().all(|value| value.is_finite()) {
                let what = format!("{}: expected finite values after the update, found others", spec.hf_name);
                return Err(self.diverged(self.state.step, &what, batches));
            }
        }
        Ok(())
    }

    fn diverged(&self, step: u64, what: &str, batches: &[Batch]) -> Error {
        if !self.parts.ranks.is_first() {
            return Error::Diverged(format!("step {step}: {what}"));
        }
        let path = self.config.run.output.join("diverged.json");
        let ids: Vec<_> = (batches.iter())
            .map(|batch| {
                serde_json::json!({
                    "rows": batch.rows,
                    "encoder_ids": batch.encoder_ids,
                    "decoder_target_ids": batch.decoder_target_ids,
                })
            })
            .collect();
        let contents = serde_json::json!({ "step": step, "data": self.state.data, "batches": ids }).to_string();
        let where_batch = match files::write_synced(&path, contents.as_bytes()) {
            Ok(()) => format!("its batch is in {}", path.display()),
            Err(error) => format!("its batch could not be written ({error})"),
        };
        let good = match self.checkpoints.steps().ok().and_then(|steps| steps.last().copied()) {
            Some(step) => format!("the last good checkpoint is {}", self.checkpoints.path(step).display()),
            None => "there is no checkpoint yet".to_owned(),
        };
        Error::Diverged(format!("step {step}: {what}; {where_batch}; {good}"))
    }

    fn say(&self, line: &str) {
        if !self.parts.ranks.is_first() {
            return;
        }
        self.bar.suspend(|| command::say(format_args!("{}{line}", self.title)));
    }
}

/// Makes the folder of a run and keeps its configuration there. Gives the hold on it and the newest step that the run
/// can go on from.
fn prepare(config: &Config) -> Result<(File, Option<u64>)> {
    let output = &config.run.output;
    files::create_folder(output)?;
    // Before anything is removed that may be another's.
    let taken = "expected a run's folder that no other process trains in, found one at work";
    let lock = files::open_alone(&output.join(LOCK), taken)?;
    let checkpoints = Checkpoints::open(&output.join("checkpoints"), config.checkpoint.keep_last)?;
    checkpoints.clean()?;
    let newest = checkpoints.steps()?.last().copied();
    let kept = output.join(config::KEPT);
    if newest.is_some() {
        let before = Config::load(&kept, &[])?;
        let differences = before.differences(config)?;
        if !differences.is_empty() {
            let what = format!(
                "holds a run with another configuration: {}; choose another run.output or undo the change",
                differences.join(", ")
            );
            return Err(Error::file(output, what));
        }
    }
    files::replace(&kept, config.to_toml()?.as_bytes())?;
    Ok((lock, newest))
}

/// A bar with the time that is left.
pub fn progress_style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:24} {pos}/{len}  {eta} left  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// The process's largest resident set in MB, which are 10^6 bytes.
pub fn peak_memory_mb() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? * 1024.0 / 1e6)
}
