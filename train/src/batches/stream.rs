//! The endless stream of batches of a mixture of tasks.

use std::{sync::Arc, thread::JoinHandle};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::batch::{Batch, BatchSource};
use super::bucket::divide;
use super::pack::{Packing, pack_rows};
use crate::{
    Error, Result,
    mixture::{Draw, Mixing, Mixture, Size, probabilities},
    random::{Random, derive, hash_bytes},
    tasks::{Example, Task},
    vocabulary::Vocabulary,
};

/// How examples become rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Several examples share a row; every batch has the same shape.
    #[default]
    Pack,
    /// One example a row; examples of similar lengths share a batch of at most so many slots.
    Bucket,
}

/// The knobs of batching.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    pub layout: Layout,
    /// Pack: how rows are filled.
    pub packing: Packing,
    /// Pack: rows of a batch.
    pub rows: usize,
    /// Pack: slots of a row for inputs.
    pub encoder_length: usize,
    /// Pack: slots of a row for targets.
    pub decoder_length: usize,
    /// Bucket: slots of a batch at most, encoder and decoder together, padding counted.
    pub tokens: usize,
    /// Batches that are drawn together and then mixed: more fill slots better and take more memory.
    pub window: usize,
}

impl Default for BatchConfig {
    fn default() -> BatchConfig {
        BatchConfig {
            layout: Layout::Pack,
            packing: Packing::FirstFit,
            rows: 8,
            encoder_length: 128,
            decoder_length: 128,
            tokens: 2048,
            window: 64,
        }
    }
}

impl BatchConfig {
    /// Checks the knobs against the limits of an example.
    ///
    /// # Errors
    /// Where an example may be longer than a row, or a knob is 0.
    pub fn check(&self, inputs_length: usize, targets_length: usize) -> Result<()> {
        let bad = |what: String| Err(Error::Invalid(format!("batches: {what}")));
        if self.window == 0 {
            return bad("window: expected at least 1, found 0".into());
        }
        match self.layout {
            Layout::Pack => {
                if self.rows == 0 {
                    return bad("rows: expected at least 1, found 0".into());
                }
                if self.encoder_length < inputs_length || self.decoder_length < targets_length {
                    return bad(format!(
                        "encoder_length and decoder_length: expected at least the longest example's {inputs_length} \
                         and {targets_length}, found {} and {}",
                        self.encoder_length, self.decoder_length
                    ));
                }
            }
            Layout::Bucket => {
                if self.tokens < inputs_length + targets_length {
                    return bad(format!(
                        "tokens: expected at least the {} of one example, found {}",
                        inputs_length + targets_length,
                        self.tokens
                    ));
                }
            }
        }
        Ok(())
    }

    /// Slots of a batch.
    fn slots(&self) -> usize {
        match self.layout {
            Layout::Pack => self.rows * (self.encoder_length + self.decoder_length),
            Layout::Bucket => self.tokens,
        }
    }
}

/// Where a window starts: all that decides its batches, besides the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct WindowStart {
    /// Counts windows from 0.
    number: u64,
    /// Draws of each task before the window.
    drawn: Vec<u64>,
    /// Draws of earlier windows that found no room there.
    carried: Vec<Draw>,
}

/// What a checkpoint keeps of the data position.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Position {
    /// Of the tasks, their sizes and the batching: another one means other data.
    fingerprint: String,
    /// The digest of each task's training data; of older checkpoints none, and they are taken for the same.
    #[serde(default)]
    contents: Vec<String>,
    window: WindowStart,
    /// Batches of the window that were handed out.
    handed_out: usize,
}

struct Window {
    batches: Vec<Batch>,
    next: WindowStart,
}

/// What threads that build windows share.
struct WindowBuilder {
    tasks: Arc<Vec<Task>>,
    vocabulary: Arc<Vocabulary>,
    mixture: Mixture,
    config: BatchConfig,
    seed: u64,
    fingerprint: String,
    /// As [`Position::contents`].
    contents: Vec<String>,
}

/// Batches of a mixture of tasks, for ever. The next window is built on another thread while one is handed out.
pub struct TaskBatches {
    source: Arc<WindowBuilder>,
    start: WindowStart,
    window: Option<Window>,
    handed_out: usize,
    ahead: Option<JoinHandle<Result<Window>>>,
}

impl TaskBatches {
    /// A stream at its start.
    ///
    /// # Errors
    /// Where the mixture has no task, or the batching's knobs do not fit the examples.
    pub fn new(
        tasks: Arc<Vec<Task>>,
        vocabulary: Arc<Vocabulary>,
        mixing: &Mixing,
        config: BatchConfig,
        seed: u64,
    ) -> Result<TaskBatches> {
        let sizes: Vec<Size> = tasks.iter().map(Task::mixing_size).collect();
        let shares = probabilities(&sizes, mixing)?;
        for task in tasks.iter() {
            let limits = task.limits();
            config.check(limits.inputs_length, limits.targets_length)?;
        }
        let described: Vec<_> =
            tasks.iter().map(|t| (t.config.name.clone() + t.contents().unwrap_or_default(), t.len())).collect();
        let fingerprint = hash_bytes(format!("{described:?} {shares:?} {config:?} {seed}").as_bytes());
        let mixture = Mixture::new(&shares, derive(seed, &[1]));
        let start = WindowStart { number: 0, drawn: mixture.drawn().to_vec(), carried: Vec::new() };
        let fingerprint = format!("{fingerprint:016x}");
        let contents = tasks.par_iter().map(Task::digest).collect();
        let source = Arc::new(WindowBuilder { tasks, vocabulary, mixture, config, seed, fingerprint, contents });
        Ok(TaskBatches { source, start, window: None, handed_out: 0, ahead: None })
    }

    /// The tasks, in the order of the mixture.
    pub fn tasks(&self) -> &Arc<Vec<Task>> {
        &self.source.tasks
    }

    fn window(&mut self) -> Result<&Window> {
        if self.window.is_none() {
            let built = match self.ahead.take() {
                Some(thread) => thread
                    .join()
                    .map_err(|_| Error::Invalid("batches: the thread that builds them failed".into()))??,
                None => self.source.build(&self.start)?,
            };
            let (source, next) = (Arc::clone(&self.source), built.next.clone());
            self.ahead = Some(std::thread::spawn(move || source.build(&next)));
            self.window = Some(built);
        }
        self.window.as_ref().ok_or_else(|| Error::Invalid("batches: no window".into()))
    }
}

impl BatchSource for TaskBatches {
    fn next_batch(&mut self) -> Result<Batch> {
        loop {
            let place = self.handed_out;
            let window = self.window()?;
            if let Some(batch) = window.batches.get(place) {
                let batch = batch.clone();
                self.handed_out += 1;
                return Ok(batch);
            }
            self.start = window.next.clone();
            self.window = None;
            self.handed_out = 0;
        }
    }

    fn state(&self) -> serde_json::Value {
        serde_json::json!(Position {
            fingerprint: self.source.fingerprint.clone(),
            contents: self.source.contents.clone(),
            window: self.start.clone(),
            handed_out: self.handed_out,
        })
    }

    fn restore(&mut self, state: &serde_json::Value) -> Result<()> {
        let state: Position = serde_json::from_value(state.clone())
            .map_err(|e| Error::Invalid(format!("batches: the saved data position cannot be read: {e}")))?;
        if state.fingerprint != self.source.fingerprint || state.window.drawn.len() != self.start.drawn.len() {
            return Err(Error::Invalid(
                "batches: the saved data position belongs to other tasks, data files, batches or another seed".into(),
            ));
        }
        let others = self.source.contents.iter().zip(&state.contents).position(|(own, saved)| own != saved);
        if let Some(task) = others {
            return Err(Error::Invalid(format!(
                "batches: task {}: expected the training data of the saved data position, found other data: a file or \
                 the vocabulary was changed since",
                self.source.tasks[task].config.name
            )));
        }
        // Let a thread of the old position end before its window is forgotten.
        if let Some(thread) = self.ahead.take() {
            drop(thread.join());
        }
        self.start = state.window;
        self.handed_out = state.handed_out;
        self.window = None;
        Ok(())
    }
}

impl WindowBuilder {
    /// The batches of a window and the start of the next one. A pure function of the start and the data.
    fn build(&self, start: &WindowStart) -> Result<Window> {
        let mut mixture = self.mixture.clone();
        mixture.restore(&start.drawn)?;
        let mut draws = start.carried.clone();
        let mut examples = self.examples(&draws);
        let wanted = self.config.slots() * self.config.window;
        let slots = |examples: &[Example]| examples.iter().map(|e| e.inputs.len() + e.targets.len()).sum::<usize>();
        let mut have = slots(&examples);
        while have < wanted {
            // About as many draws as are missing, judged by the ones so far; at first by a guess.
            let mean = if examples.is_empty() { 64 } else { (have / examples.len()).max(1) };
            let more: Vec<Draw> = (0..((wanted - have) / mean).clamp(16, 1 << 16)).map(|_| mixture.draw()).collect();
            let made = self.examples(&more);
            have += slots(&made);
            draws.extend(more);
            examples.extend(made);
        }
        let random = &mut Random::new(derive(self.seed, &[2, start.number]));
        let (mut batches, carried) = match self.config.layout {
            Layout::Pack => self.packed(&examples, random),
            Layout::Bucket => (self.bucketed(&examples), Vec::new()),
        };
        random.shuffle(&mut batches);
        let next = WindowStart {
            number: start.number + 1,
            drawn: mixture.drawn().to_vec(),
            carried: carried.into_iter().map(|i| draws[i]).collect(),
        };
        Ok(Window { batches, next })
    }

    fn examples(&self, draws: &[Draw]) -> Vec<Example> {
        draws.par_iter().map(|draw| self.tasks[draw.task].draw(draw.nth, &self.vocabulary)).collect()
    }

    /// Whole batches, and the examples that are left for the next window.
    fn packed(&self, examples: &[Example], random: &mut Random) -> (Vec<Batch>, Vec<usize>) {
        let BatchConfig { rows: rows_per_batch, encoder_length, decoder_length, packing, .. } = self.config;
        let lengths: Vec<_> = examples.iter().map(|e| (e.inputs.len(), e.targets.len())).collect();
        let mut rows = pack_rows(&lengths, encoder_length, decoder_length, packing);
        // The last rows are the emptiest. Their examples come first in the next window, so that none waits for long.
        let whole = if rows.len() < rows_per_batch { rows.len() } else { rows.len() / rows_per_batch * rows_per_batch };
        let carried = rows.split_off(whole).concat();
        random.shuffle(&mut rows);
        let batches = rows
            .chunks(rows_per_batch)
            .map(|rows| {
                let rows: Vec<Vec<&Example>> =
                    rows.iter().map(|row| row.iter().map(|&i| &examples[i]).collect()).collect();
                Batch::of_rows(&rows, encoder_length, decoder_length)
            })
            .collect();
        (batches, carried)
    }

    fn bucketed(&self, examples: &[Example]) -> Vec<Batch> {
        let mut batches = Vec::new();
        let mut all: Vec<&Example> = examples.iter().collect();
        divide(&mut all, self.config.tokens, &mut |group| {
            let rows: Vec<Vec<&Example>> = group.iter().map(|&e| vec![e]).collect();
            batches.push(Batch::of_rows(&rows, 0, 0));
        });
        batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::data::DataConfig;

    /// Two tasks of self-made pairs.
    fn data(folder: &std::path::Path, batches: BatchConfig) -> DataConfig {
        std::fs::write(folder.join("pairs.tsv"), crate::testing::sentence_pairs(400)).unwrap();
        let mut config: DataConfig = toml::from_str(
            r#"
            inputs_length = 90
            targets_length = 90
            [[tasks]]
            name = "reverse"
            train = ["pairs.tsv"]
            source = { format = "tsv", columns = ["a", "b"] }
            examples = { kind = "template", input = "{a}", target = "{b}" }
            [[tasks]]
            name = "fill"
            train = ["pairs.tsv"]
            source = { format = "tsv", columns = ["a"] }
            examples = { kind = "denoise", text = "{a}" }
        "#,
        )
        .unwrap();
        config.dir = folder.to_path_buf();
        config.batches = batches;
        config
    }

    fn source(config: &DataConfig, seed: u64) -> TaskBatches {
        let vocabulary = Arc::new(Vocabulary::bytes(384).unwrap());
        let tasks = Arc::new(config.load(&vocabulary, seed).unwrap());
        config.batches(tasks, vocabulary, seed).unwrap()
    }

    fn layouts() -> [BatchConfig; 3] {
        let pack =
            BatchConfig { rows: 3, encoder_length: 160, decoder_length: 120, window: 4, ..BatchConfig::default() };
        let bucket = BatchConfig { layout: Layout::Bucket, tokens: 700, window: 4, ..BatchConfig::default() };
        [BatchConfig { packing: Packing::Sequential, ..pack.clone() }, pack, bucket]
    }

    #[test]
    fn batches_are_the_same_on_every_run_and_resume_anywhere() {
        let dir = tempfile::tempdir().unwrap();
        for layout in layouts() {
            let config = data(dir.path(), layout);
            let mut whole = source(&config, 5);
            let mut states = Vec::new();
            let mut batches = Vec::new();
            for _ in 0..40 {
                states.push(whole.state());
                batches.push(whole.next_batch().unwrap());
            }
            for at in [0, 1, 7, 23, 39] {
                let mut resumed = source(&config, 5);
                resumed.next_batch().unwrap();
                resumed.restore(&states[at]).unwrap();
                for batch in &batches[at..] {
                    assert_eq!(resumed.next_batch().unwrap(), *batch);
                }
            }
            assert_ne!(source(&config, 6).next_batch().unwrap(), batches[0]);
            // The position belongs to these data.
            let error = source(&config, 6).restore(&states[3]).unwrap_err().to_string();
            assert!(error.contains("belongs to other tasks"), "{error}");
            assert!(source(&config, 5).restore(&serde_json::json!({"window": 1})).is_err());
        }
    }

    #[test]
    fn no_example_is_lost_between_windows() {
        let dir = tempfile::tempdir().unwrap();
        for layout in layouts() {
            let mut config = data(dir.path(), layout);
            config.tasks.truncate(1);
            let mut source = source(&config, 9);
            // Whole examples in the order of their batches, over about four epochs of 400.
            let mut counts = std::collections::HashMap::new();
            let mut seen = 0;
            while seen < 1600 {
                let batch = source.next_batch().unwrap();
                for row in batch.encoder_ids.chunks(batch.enc_len) {
                    for example in row.split(|&id| id == 1).filter(|ids| ids.iter().any(|&id| id != 0)) {
                        let ids: Vec<u32> = example.iter().copied().filter(|&id| id != 0).collect();
                        *counts.entry(ids).or_insert(0) += 1;
                        seen += 1;
                    }
                }
            }
            assert_eq!(counts.len(), 400);
            // An epoch ends within a window: no example is more than a window ahead.
            assert!(counts.values().all(|n| (2..=6).contains(n)), "{:?}", counts.values().max());
        }
    }

    #[test]
    fn a_position_belongs_to_the_contents_of_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let config = data(dir.path(), BatchConfig { layout: Layout::Bucket, tokens: 700, ..BatchConfig::default() });
        let state = source(&config, 5).state();
        source(&config, 5).restore(&state).unwrap();
        // As many examples, of which one is another.
        let pairs = std::fs::read_to_string(dir.path().join("pairs.tsv")).unwrap();
        let (first, rest) = pairs.split_once('\n').unwrap();
        let (_, target) = first.split_once('\t').unwrap();
        std::fs::write(dir.path().join("pairs.tsv"), format!("another\t{target}\n{rest}")).unwrap();
        let error = source(&config, 5).restore(&state).unwrap_err().to_string();
        assert!(error.starts_with("batches: task reverse: expected the training data of the saved"), "{error}");
        // What an older version saved.
        let mut older = state;
        older.as_object_mut().unwrap().remove("contents").unwrap();
        source(&config, 5).restore(&older).unwrap();
    }

    /// Checkpoints keep digests: another way to make them would refuse what was saved before. Made by Python's hashlib.
    #[test]
    fn digests_stay_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("pairs.tsv"), "one\teins\ntwo\tzwei\n").unwrap();
        let mut config: DataConfig = toml::from_str("inputs_length = 30\ntargets_length = 30").unwrap();
        config.dir = dir.path().to_path_buf();
        for (examples, digest) in [
            (r#"kind = "template", input = "{a}", target = "{b}""#, "c880e65cd5deb5f9"),
            (r#"kind = "denoise", text = "{a}", prefix = "p""#, "a8348bdac04dccee"),
            (r#"kind = "slips", text = "{a}", rate = 0.1"#, "acb964bd5ab8104b"),
            (r#"kind = "joined", input = "{a}", target = "{b}""#, "d98bffa17af1436b"),
        ] {
            let task = format!(
                "name = \"t\"\ntrain = [\"pairs.tsv\"]\nexamples = {{ {examples} }}\n\
                 source = {{ format = \"tsv\", columns = [\"a\", \"b\"] }}"
            );
            config.tasks = vec![toml::from_str(&task).unwrap()];
            let tasks = config.load(&Vocabulary::bytes(384).unwrap(), 1).unwrap();
            assert_eq!(tasks[0].digest()[..16], *digest, "{examples}");
        }
    }

    #[test]
    fn batches_keep_their_shape() {
        let dir = tempfile::tempdir().unwrap();
        let [sequential, first_fit, bucket] = layouts();
        for layout in [sequential, first_fit] {
            let mut source = source(&data(dir.path(), layout), 1);
            for _ in 0..20 {
                let batch = source.next_batch().unwrap();
                assert_eq!((batch.rows, batch.enc_len, batch.dec_len), (3, 160, 120));
            }
        }
        let mut source = source(&data(dir.path(), bucket), 1);
        for _ in 0..20 {
            let batch = source.next_batch().unwrap();
            assert!(batch.rows * (batch.enc_len + batch.dec_len) <= 700);
            assert!(batch.encoder_segments.iter().all(|&s| s <= 1));
        }
    }

    #[test]
    fn knobs_that_do_not_fit_are_errors() {
        let [_, pack, bucket] = layouts();
        assert!(pack.check(160, 120).is_ok() && bucket.check(90, 90).is_ok());
        let error = pack.check(161, 120).unwrap_err().to_string();
        assert!(error.contains("expected at least the longest example's 161 and 120, found 160 and 120"), "{error}");
        assert!(BatchConfig { tokens: 100, ..bucket.clone() }.check(90, 90).is_err());
        assert!(BatchConfig { rows: 0, ..pack }.check(9, 9).is_err());
        assert!(BatchConfig { window: 0, ..bucket }.check(9, 9).is_err());
    }

    #[test]
    fn default_data_fill_nine_tenths_of_the_slots() {
        let (Some(tatoeba), Some(tokenizer)) =
            (crate::testing::shared("data/tatoeba"), crate::testing::shared("models/t5-tokenizer"))
        else {
            return;
        };
        let text = include_str!("../../configs/default/finetune.toml");
        let table: toml::Table = text.parse().unwrap();
        let mut config: DataConfig = table["data"].clone().try_into().unwrap();
        config.dir = tatoeba.parent().unwrap().to_path_buf();
        // What lies there unpacked; the numbers of all tasks are in the model card.
        config.tasks.retain(|task| task.train.iter().all(|file| file.starts_with("tatoeba")));
        assert!(config.tasks.len() >= 3);
        config.tasks.iter_mut().for_each(|task| {
            task.max_examples = Some(8000);
            task.max_dev_examples = Some(10);
        });
        let vocabulary = Arc::new(Vocabulary::read(&tokenizer).unwrap());
        let tasks = Arc::new(config.load(&vocabulary, 1).unwrap());
        let pack = BatchConfig { rows: 16, encoder_length: 256, decoder_length: 192, ..config.batches.clone() };
        let layouts = [
            BatchConfig { layout: Layout::Pack, packing: Packing::FirstFit, ..pack.clone() },
            BatchConfig { layout: Layout::Bucket, tokens: 1100, ..pack.clone() },
            BatchConfig { layout: Layout::Bucket, tokens: 4096, ..pack },
        ];
        for layout in layouts {
            config.batches = layout;
            let mut source = config.batches(tasks.clone(), vocabulary.clone(), 1).unwrap();
            let (mut used, mut slots) = (0, 0);
            for _ in 0..64 {
                let batch = source.next_batch().unwrap();
                used += batch.tokens();
                slots += batch.encoder_ids.len() + batch.decoder_target_ids.len();
            }
            let fill = used as f64 / slots as f64;
            println!("{:?}, {} tokens a batch: {:.1} % filled", config.batches.layout, used / 64, 100.0 * fill);
            assert!(fill >= 0.9, "{fill}");
        }
    }
}
