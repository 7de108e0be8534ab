//! Segments of documents that lie in mapped shards: where each begins is worked out when it is asked for.

use std::borrow::Cow;
use std::path::PathBuf;

use super::config::TaskConfig;
use super::data::{Digest, Ragged, stream};
use super::formatters::Examples;
use super::loading::{CHUNK, GROUP, LoadReport};
use crate::objectives::{Objective, random_chunk};
use crate::random::Random;
use crate::shards::Shards;
use crate::vocabulary::Vocabulary;
use crate::{Error, Result};

/// Segments of unlabelled text.
pub(super) enum Segments {
    /// Ids in memory.
    Held(Ragged),
    /// Ids on disk.
    Mapped(Box<MappedSegments>),
}

impl Segments {
    pub fn len(&self) -> usize {
        match self {
            Segments::Held(ids) => ids.len(),
            Segments::Mapped(segments) => segments.len(),
        }
    }

    /// Digests the ids, or the digest of their files.
    pub fn digest(&self, digest: &mut Digest) {
        match self {
            Segments::Held(ids) => ids.digest(digest),
            Segments::Mapped(segments) => digest.text(segments.fingerprint()),
        }
    }

    pub fn get(&self, i: usize) -> Cow<'_, [u32]> {
        match self {
            Segments::Held(ids) => ids.get(i).into(),
            Segments::Mapped(segments) => segments.get(i).into(),
        }
    }
}

/// The segments of a task over shards. What is held in memory are eight bytes for 128 documents.
pub(super) struct MappedSegments {
    shards: Shards,
    /// Tokens of a segment; the last of a document or group may have fewer.
    length: usize,
    concatenate: bool,
    /// The task's, which chooses the chunk of a long document.
    seed: u64,
    /// Documents that are used: all, or those up to a limit of tokens.
    documents: u64,
    /// Tokens of the last one that are used.
    last: usize,
    /// Segments before each group of documents, and of all.
    before: Vec<u64>,
}

impl MappedSegments {
    /// Counts the segments and what the report says of them.
    pub fn new(
        shards: Shards,
        (length, concatenate): (usize, bool),
        seed: u64,
        limit: Option<u64>,
        objective: &Objective,
        targets_length: usize,
        report: &mut LoadReport,
    ) -> MappedSegments {
        let (documents, last) = (shards.documents(), usize::MAX);
        let mut segments = MappedSegments { shards, length, concatenate, seed, documents, last, before: vec![0] };
        report.records = usize::try_from(documents).unwrap_or(usize::MAX);
        let mut left = limit.unwrap_or(u64::MAX);
        let cut = |len: usize| objective.longest_target(len).is_some_and(|longest| longest >= targets_length);
        let cuts_whole = cut(length);
        let mut count = |tokens: usize| -> u64 {
            report.truncated += tokens / length * usize::from(cuts_whole);
            report.truncated += usize::from(!tokens.is_multiple_of(length) && cut(tokens % length));
            tokens.div_ceil(length) as u64
        };
        let mut total = 0;
        let mut document = 0;
        while document < segments.documents {
            let mut group = 0;
            let end = (document + GROUP as u64).min(segments.documents);
            while document < end {
                report.chunked += usize::from(segments.shards.len_of(document) > CHUNK);
                let mut tokens = segments.tokens(document);
                document += 1;
                if tokens as u64 >= left {
                    tokens = left as usize;
                    (segments.documents, segments.last) = (document, tokens);
                }
                left -= tokens as u64;
                if concatenate {
                    group += tokens;
                } else {
                    report.divided += usize::from(tokens > length);
                    total += count(tokens);
                }
                if document == segments.documents {
                    break;
                }
            }
            if concatenate {
                total += count(group);
            }
            segments.before.push(total);
        }
        segments.shards.release();
        segments
    }

    pub fn len(&self) -> usize {
        self.before.last().map_or(0, |&count| usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// A hash of the ids on disk.
    pub fn fingerprint(&self) -> &str {
        self.shards.fingerprint()
    }

    /// Tokens of a document that are used.
    fn tokens(&self, document: u64) -> usize {
        let len = self.chunk(document).len();
        if document + 1 == self.documents { len.min(self.last) } else { len }
    }

    /// The part of a document that is used, before a limit of tokens.
    fn chunk(&self, document: u64) -> std::ops::Range<usize> {
        let random = &mut Random::from_path(self.seed, &[stream::CHUNK, document]);
        random_chunk(self.shards.len_of(document), CHUNK, random)
    }

    /// The ids of segment `i`.
    fn get(&self, i: usize) -> Vec<u32> {
        let group = self.before.partition_point(|&before| before <= i as u64) - 1;
        let mut number = i - self.before[group] as usize;
        let mut ids = Vec::with_capacity(self.length);
        // Of what is laid end to end, the tokens before the segment.
        let mut before = if self.concatenate { number * self.length } else { 0 };
        for document in (group * GROUP) as u64.. {
            if document == self.documents {
                break;
            }
            let tokens = self.tokens(document);
            if !self.concatenate {
                let count = tokens.div_ceil(self.length);
                if number >= count {
                    number -= count;
                    continue;
                }
                before = number * self.length;
            }
            if before < tokens {
                let start = self.chunk(document).start;
                let end = tokens.min(before + self.length - ids.len());
                self.shards.append(document, start + before..start + end, &mut ids);
            }
            before = before.saturating_sub(tokens);
            let group_ends = (document + 1).is_multiple_of(GROUP as u64);
            if !self.concatenate || ids.len() == self.length || group_ends {
                break;
            }
        }
        ids
    }
}

/// Opens the shards of a task.
///
/// # Errors
/// Where the task asks for what ids alone cannot give, or as [`Shards::open`].
pub(super) fn open(config: &TaskConfig, folders: &[PathBuf], vocabulary: &Vocabulary) -> Result<Shards> {
    let source = &config.source;
    let text = match &config.examples {
        Examples::Denoise { text, .. } => text.as_str(),
        _ => "",
    };
    let wrong = [
        (text != "{text}", "examples of unlabelled text (kind = \"denoise\") without a text of their own"),
        (config.hold_out.is_some(), "no hold_out (t5-train corpus has corpora divided)"),
        (config.max_examples.is_some(), "no max_examples (limit_tokens has a similar end)"),
        (source.unique.is_some() || source.length.is_some() || source.split_sentences, "no filters of records"),
    ];
    match wrong.iter().find(|(wrong, _)| *wrong) {
        Some((_, what)) => Err(Error::Invalid(format!(
            "task {}: expected {what}, as its source is shards, which hold ids",
            config.name
        ))),
        None => Shards::open(folders, vocabulary),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::batches::{BatchConfig, BatchSource};
    use crate::data::DataConfig;
    use crate::shards::{Index, ShardWriter};
    use crate::source::{Columns, Format, for_each_record};

    /// Documents of all lengths, one longer than a chunk, and some that end a group of 128.
    fn write_text(path: &Path) {
        let mut text = String::new();
        for i in 0..700usize {
            let len = match i {
                300 => 2 * CHUNK + 10,
                i if i % 50 == 0 => 400,
                i => 1 + i * 7 % 40,
            };
            text.extend((0..len).map(|k| char::from(b'a' + ((i + k / 100) % 26) as u8)));
            text.push('\n');
        }
        std::fs::write(path, text).unwrap();
    }

    /// The records of a text as shards of 250 documents.
    fn write_shards(text: &Path, folder: &Path, vocabulary: &Vocabulary) {
        std::fs::create_dir_all(folder).unwrap();
        let mut documents = Vec::new();
        for_each_record(text, Format::Text, &Columns::default(), |record| {
            documents.push(vocabulary.encode(&record.text("text").unwrap()));
            Ok(())
        })
        .unwrap();
        let infos = documents.chunks(250).enumerate().map(|(i, documents)| {
            let mut writer = ShardWriter::create(folder, &format!("{i:05}"), vocabulary).unwrap();
            documents.iter().for_each(|document| writer.push(document).unwrap());
            writer.finish().unwrap()
        });
        Index::new(vocabulary, infos.collect()).write(folder).unwrap();
    }

    fn config(dir: &Path, from_shards: bool, examples: &str, more: &str) -> DataConfig {
        let source = if from_shards {
            "source = { format = \"shards\" }\ntrain = [\"shards\"]\ndev = [\"shards\"]"
        } else {
            "train = [\"text.txt\"]\ndev = [\"text.txt\"]"
        };
        let text = format!(
            "inputs_length = 90\ntargets_length = 60\n[[tasks]]\nname = \"text\"\nmax_dev_examples = 9\n{source}\n\
             examples = {{ kind = \"denoise\", {examples} }}\n{more}"
        );
        let mut config: DataConfig = toml::from_str(&text).unwrap();
        config.dir = dir.to_owned();
        config.batches =
            BatchConfig { rows: 4, encoder_length: 180, decoder_length: 120, window: 3, ..Default::default() };
        config
    }

    #[test]
    fn shards_give_the_batches_of_their_text() {
        let dir = tempfile::tempdir().unwrap();
        write_text(&dir.path().join("text.txt"));
        let vocabulary = Arc::new(Vocabulary::bytes(384).unwrap());
        write_shards(&dir.path().join("text.txt"), &dir.path().join("shards"), &vocabulary);
        // 22,222 falls within a document; 400 is the end of the first, which is also the end of its last segment.
        for limit in [0, 400, 22_222, 10_000_000] {
            for examples in [
                "concatenate = true",
                "concatenate = false",
                "concatenate = true, objective = { name = \"lm\" }",
                "concatenate = false, prefix = \"p: \", objective = { name = \"deshuffling\" }",
                "concatenate = true, objective = { name = \"ul2\" }",
            ] {
                let load = |from_shards: bool| {
                    let mut config = config(dir.path(), from_shards, examples, "");
                    config.limit_tokens = limit;
                    let tasks = Arc::new(config.load(&vocabulary, 7).unwrap());
                    let batches = config.batches(tasks.clone(), vocabulary.clone(), 7).unwrap();
                    (tasks, batches)
                };
                let ((text, mut text_batches), (shards, mut shard_batches)) = (load(false), load(true));
                let (text, shards) = (&text[0], &shards[0]);
                assert_eq!(text.report, shards.report, "{examples} {limit}");
                assert_eq!((text.len(), &text.dev), (shards.len(), &shards.dev));
                assert_eq!(text.dev_tokens(&vocabulary), shards.dev_tokens(&vocabulary));
                assert!(limit > 0 && limit < 1000 || text.len() > 100, "{}", text.len());
                for i in 0..text.len() {
                    let [one, other] = [text, shards].map(|task| task.example(1, i, &vocabulary));
                    assert_eq!(one, other, "{examples} {limit}: example {i}");
                }
                for _ in 0..12 {
                    assert_eq!(text_batches.next_batch().unwrap(), shard_batches.next_batch().unwrap());
                }
                // Another text under the same name has no place in the run.
                assert!(shard_batches.restore(&text_batches.state()).is_err());
            }
        }
    }

    #[test]
    fn a_limit_of_tokens_takes_the_first_ones_and_repeats_them() {
        let dir = tempfile::tempdir().unwrap();
        write_text(&dir.path().join("text.txt"));
        let vocabulary = Vocabulary::bytes(384).unwrap();
        let tokens = |limit: u64, more: &str| {
            let lm = "concatenate = true, objective = { name = \"lm\" }";
            let mut config = config(dir.path(), false, lm, more);
            config.limit_tokens = limit;
            config.tasks[0].dev.clear();
            let task = config.load(&vocabulary, 7).unwrap().remove(0);
            // What the model is to say, without end marks.
            let said = (0..task.len()).flat_map(|i| {
                let targets = task.example(0, i, &vocabulary).targets;
                targets[..targets.len() - 1].to_vec()
            });
            (said.collect::<Vec<u32>>(), task)
        };
        let (all, _) = tokens(0, "");
        for limit in [1usize, 500, 22_222] {
            let (first, task) = tokens(limit as u64, "");
            assert_eq!(first, all[..limit], "{limit}");
            assert_eq!(tokens(limit as u64 + 5, &format!("limit_tokens = {limit}")).0, first);
            // The next epoch has the same tokens.
            let len = task.len() as u64;
            let mut epochs =
                [0, len].map(|from| (from..from + len).map(|n| task.draw(n, &vocabulary).targets).collect());
            epochs.iter_mut().for_each(|epoch: &mut Vec<Vec<u32>>| epoch.sort());
            assert_eq!(epochs[0], epochs[1]);
        }
        let mut wrong = config(dir.path(), false, "concatenate = true", "limit_tokens = 0");
        let error = wrong.load(&vocabulary, 7).err().unwrap().to_string();
        assert_eq!(error, "data: task text: limit_tokens: expected 1 or more, found 0");
        wrong.tasks[0].limit_tokens = Some(5);
        wrong.tasks[0].examples = toml::from_str("kind = \"template\"\ninput = \"{text}\"\ntarget = \"x\"").unwrap();
        let error = wrong.load(&vocabulary, 7).err().unwrap().to_string();
        assert!(error.contains("task text: limit_tokens: expected none"), "{error}");
    }

    #[test]
    fn what_ids_cannot_give_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        write_text(&dir.path().join("text.txt"));
        let vocabulary = Vocabulary::bytes(384).unwrap();
        write_shards(&dir.path().join("text.txt"), &dir.path().join("shards"), &vocabulary);
        let message = |examples: &str, more: &str| {
            let config = config(dir.path(), true, examples, more);
            config.load(&vocabulary, 7).err().expect("an error").to_string()
        };
        for (examples, more, expected) in [
            ("text = \"a {text}\"", "", "expected examples of unlabelled text"),
            ("concatenate = true", "hold_out = { field = \"text\", share = 0.1 }", "expected no hold_out"),
            ("concatenate = true", "max_examples = 7", "expected no max_examples"),
        ] {
            let error = message(examples, more);
            assert!(error.starts_with(&format!("task text: {expected}")), "{error}");
        }
        let texts = config(dir.path(), true, "concatenate = true", "");
        let error = texts.train_vocabulary(&Default::default(), 1).unwrap_err().to_string();
        assert!(error.contains("expected a format of texts, found shards"), "{error}");
    }
}
