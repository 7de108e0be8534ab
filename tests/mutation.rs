//! Damaged files of every kind, by the thousand and in one process: whatever the bytes, an error or a model that runs,
//! never a panic.
//!
//! Each execution is a seed: it chooses a file, damages it and reads, builds and runs what comes of it.
//! `POCKET_T5_MUTATIONS` is how many there are, `POCKET_T5_SEED` the first seed. A failure names its seed; that one
//! alone is run by `POCKET_T5_SEED=N POCKET_T5_MUTATIONS=1 cargo test -p t5-tests --test mutation`.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::storage::Bytes;
use t5_runtime::tensor::DType;
use t5_runtime::tokenizer::{Tokenizer, Vocabulary};
use t5_runtime::{Incoming, Model, ModelOptions, Overrides};
use t5_tests::{beside, convert, families, paths, wide};

/// Without the variable: some seconds.
const USUAL: u64 = 3000;

/// Numbers that have meant trouble elsewhere.
const NUMBERS: [u64; 12] =
    [0, 1, 2, 0x7f, 0xff, 0xffff, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 61, i64::MAX as u64, u64::MAX];

/// Pieces of JSON that stand where something else was expected.
const WORDS: [&str; 14] = [
    "null",
    "true",
    "-1",
    "0",
    "1e400",
    "1e-320",
    "0.5",
    "18446744073709551616",
    "4294967295",
    "[]",
    "{}",
    "\"\"",
    "[[[[",
    "\"\\ud800\"",
];

/// A sequence of numbers that a seed determines (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, or 0.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn choose<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// Damages a file in one to four places. `head` is how many bytes of it say what the others mean; three of four places
/// are among these.
fn damage(bytes: &mut Vec<u8>, head: usize, numbers: &mut Numbers) {
    for _ in 0..=numbers.below(4) {
        let within = if numbers.below(4) == 0 { bytes.len() } else { bytes.len().min(head) };
        let at = numbers.below(within);
        let len = bytes.len();
        let end = |width: usize| (at + width).min(len);
        match numbers.below(9) {
            0 if at < bytes.len() => bytes[at] = numbers.next() as u8,
            1 if at < bytes.len() => bytes[at] ^= 1 << numbers.below(8),
            2 => {
                let (range, number) = (at..end(4), numbers.choose(&NUMBERS).to_le_bytes());
                let width = range.len();
                bytes[range].copy_from_slice(&number[..width]);
            }
            3 => {
                let (range, number) = (at..end(8), numbers.choose(&NUMBERS).to_le_bytes());
                let width = range.len();
                bytes[range].copy_from_slice(&number[..width]);
            }
            4 => {
                let piece: Vec<u8> = (0..=numbers.below(24)).map(|_| numbers.next() as u8).collect();
                bytes.splice(at..at, piece);
            }
            5 => drop(bytes.drain(at..end(1 + numbers.below(24)))),
            6 => bytes.truncate(at),
            // A word for a word: up to the next mark of punctuation.
            7 => {
                let rest = &bytes[at..];
                let len = rest.iter().position(|byte| b",:}] \n".contains(byte)).unwrap_or(0);
                let word = numbers.choose(&WORDS).bytes();
                bytes.splice(at..at + len, word);
            }
            _ => {
                let piece = bytes[at..end(1 + numbers.below(64))].to_vec();
                let to = numbers.below(bytes.len());
                bytes.splice(to..to, piece);
            }
        }
    }
}

/// What is damaged, made once.
struct Sources {
    /// One GGUF file for each family and type of weights.
    gguf: Vec<Vec<u8>>,
    /// The folders of the families.
    folders: Vec<BTreeMap<String, Vec<u8>>>,
    tokenizer_json: Vec<u8>,
    /// Single files in the forms that image and video models have, and PyTorch's.
    forms: Vec<(String, Vec<u8>)>,
    /// SentencePiece models of other kinds than Unigram.
    pieces: Vec<Vec<u8>>,
    /// The folder of an encoder without a tokenizer, with rows for many pieces.
    encoder: BTreeMap<String, Vec<u8>>,
    /// Folders with tokenizers in parts, without weights.
    parts: Vec<BTreeMap<String, Vec<u8>>>,
    sentencepiece: Vec<u8>,
    /// A small vocabulary, and a real character map for it.
    vocabulary: Vocabulary,
    charsmap: Vec<u8>,
}

impl Sources {
    fn new() -> Sources {
        let mut sources = Sources {
            gguf: Vec::new(),
            folders: Vec::new(),
            tokenizer_json: std::fs::read(families::folder("unigram").join("tokenizer.json")).unwrap(),
            sentencepiece: std::fs::read(families::folder("unigram").join("spiece.model")).unwrap(),
            vocabulary: Checkpoint::open(&families::folder("unigram")).unwrap().vocabulary.unwrap(),
            charsmap: Vec::new(),
            forms: Vec::new(),
            pieces: Vec::new(),
            parts: Vec::new(),
            encoder: BTreeMap::new(),
        };
        let files = |folder: std::path::PathBuf| {
            let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            let read = |path: std::path::PathBuf| {
                (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap())
            };
            entries.filter(|path| path.is_file()).map(read).collect::<BTreeMap<String, Vec<u8>>>()
        };
        let is_form = |name: &str| [".safetensors", ".pth", ".pt", ".bin"].iter().any(|end| name.ends_with(end));
        sources.forms = files(paths::golden("files")).into_iter().filter(|(name, _)| is_form(name)).collect();
        let tokenizers = files(paths::golden("tokenizers"));
        sources.pieces =
            tokenizers.into_iter().filter(|(name, _)| name.ends_with(".model")).map(|(_, bytes)| bytes).collect();
        // As many rows as the largest of these tokenizers has pieces, and some more.
        sources.encoder = files(wide::encoder(1024, |_| ()).path().to_owned());
        sources.parts = ["roberta", "gpt2", "bert"]
            .map(|name| {
                let mut parts = files(paths::golden("tokenizers").join(name));
                parts.remove("ids.bin");
                parts.remove("versions.json");
                parts
            })
            .to_vec();
        for name in families::names() {
            for dtype in [DType::F32, DType::Q8_0] {
                sources.gguf.push(convert::gguf(&families::folder(&name), dtype));
            }
            let files = std::fs::read_dir(families::folder(&name)).unwrap().map(|entry| entry.unwrap());
            let read = |entry: std::fs::DirEntry| {
                (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
            };
            sources.folders.push(files.map(read).filter(|(name, _)| name != "golden.jsonl").collect());
        }
        let models = beside::SENTENCE_MODELS.map(beside::sentence_model).into_iter();
        for folder in models.chain(beside::HEADS.map(beside::head)) {
            sources.gguf.push(convert::gguf(folder.path(), DType::F32));
            let mut files = BTreeMap::new();
            read_all(folder.path(), "", &mut files);
            sources.folders.push(files);
        }
        let Some(Vocabulary::Unigram(pocket)) = Checkpoint::pocket().unwrap().vocabulary else {
            unreachable!("the built-in model has a Unigram vocabulary")
        };
        sources.charsmap = pocket.charsmap.expect("a character map");
        sources
    }

    /// One execution.
    fn run(&self, seed: u64) {
        let numbers = &mut Numbers(seed);
        match numbers.below(13) {
            10.. => self.run_form(numbers),
            0..3 => {
                let mut bytes = numbers.choose(&self.gguf).clone();
                let head = bytes.len() - bytes.len() / 4;
                damage(&mut bytes, head, numbers);
                if numbers.below(8) == 0 {
                    receive(&bytes, numbers);
                } else if let Ok(checkpoint) = Checkpoint::from_gguf("x.gguf", Bytes::from_vec(bytes)) {
                    use_model(checkpoint);
                }
            }
            3..6 => {
                let mut files = numbers.choose(&self.folders).clone();
                let names: Vec<String> = files.keys().cloned().collect();
                let bytes = files.get_mut(numbers.choose(&names)).expect("a name of a file");
                damage(bytes, 4096, numbers);
                let files: HashMap<String, Bytes> =
                    files.into_iter().map(|(name, bytes)| (name, Bytes::from_vec(bytes))).collect();
                if let Ok(checkpoint) = Checkpoint::from_files("x", &files) {
                    use_model(checkpoint);
                }
            }
            6 => {
                let mut bytes = self.tokenizer_json.clone();
                let head = bytes.len();
                damage(&mut bytes, head, numbers);
                let _ = Vocabulary::ignored_in_tokenizer_json("x", &bytes);
                if let Ok(vocabulary) = Vocabulary::from_tokenizer_json("x", &bytes) {
                    use_vocabulary(&vocabulary);
                }
            }
            7 => {
                let mut bytes = self.sentencepiece.clone();
                let head = bytes.len();
                damage(&mut bytes, head, numbers);
                if let Ok(vocabulary) = Vocabulary::from_sentencepiece("x", &bytes, 100) {
                    use_vocabulary(&vocabulary);
                }
            }
            _ => {
                let Vocabulary::Unigram(mut unigram) = self.vocabulary.clone() else {
                    unreachable!("the family has a Unigram vocabulary")
                };
                let mut bytes = self.charsmap.clone();
                let head = bytes.len();
                damage(&mut bytes, head, numbers);
                unigram.charsmap = Some(bytes);
                use_vocabulary(&Vocabulary::Unigram(unigram));
            }
        }
    }

    /// One execution with a file in another form: single files, SentencePiece models of all kinds, tokenizers in parts.
    fn run_form(&self, numbers: &mut Numbers) {
        match numbers.below(3) {
            0 => {
                let (name, mut bytes) = numbers.choose(&self.forms).clone();
                // Of an archive what counts lies at the end, too.
                let head = if name.ends_with(".safetensors") { 2048 } else { bytes.len() };
                damage(&mut bytes, head, numbers);
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join(name);
                std::fs::write(&path, bytes).unwrap();
                if let Ok(checkpoint) = t5_quantize::pytorch::open(&path) {
                    use_model(checkpoint);
                }
            }
            1 => {
                let mut bytes = numbers.choose(&self.pieces).clone();
                let head = bytes.len();
                damage(&mut bytes, head, numbers);
                if let Ok(vocabulary) = Vocabulary::from_sentencepiece("x", &bytes, 100) {
                    use_vocabulary(&vocabulary);
                }
            }
            _ => {
                let mut files = numbers.choose(&self.parts).clone();
                let names: Vec<String> = files.keys().cloned().collect();
                let bytes = files.get_mut(numbers.choose(&names)).expect("a name of a file");
                let head = bytes.len();
                damage(bytes, head, numbers);
                files.extend(self.encoder.clone());
                let files: HashMap<String, Bytes> =
                    files.into_iter().map(|(name, bytes)| (name, Bytes::from_vec(bytes))).collect();
                if let Ok(Checkpoint { vocabulary: Some(vocabulary), .. }) = Checkpoint::from_files("x", &files) {
                    use_vocabulary(&vocabulary);
                }
            }
        }
    }
}

/// The files of a folder and of those in it, by their paths.
fn read_all(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            read_all(&entry.path(), &format!("{name}/"), files);
        } else {
            files.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
}

/// A file that arrives in pieces.
fn receive(bytes: &[u8], numbers: &mut Numbers) {
    let size = if numbers.below(8) == 0 { numbers.below(2 * bytes.len()) } else { bytes.len() };
    let Ok(mut incoming) = Incoming::new("x", size, &ModelOptions::default()) else { return };
    for piece in bytes.chunks(1 + numbers.below(bytes.len())) {
        if incoming.push(piece).is_err() {
            return;
        }
    }
    if let Ok(model) = incoming.finish() {
        run_model(&model);
    }
}

fn use_model(checkpoint: Checkpoint) {
    if let Ok(model) = Model::from_checkpoint(checkpoint, &ModelOptions::default()) {
        run_model(&model);
    }
}

/// Runs a model: encoder, greedy search and beams, by the file's own defaults as far as they are small.
fn run_model(model: &Model) {
    let mut session = model.session();
    session.set_threads(1);
    let _ = session.embed_ids(&[2, 5, 9, 1]);
    let _ = session.embed("a house");
    let _ = session.classify_ids(&[2, 5, 9, 1]);
    let _ = session.answer("a", "house", 3);
    for beams in [1, 3] {
        let asked = Overrides { max_new_tokens: Some(4), beams: Some(beams), ..Overrides::default() };
        let Ok(options) = model.options(&asked) else { continue };
        if let Ok(generation) = session.generate_ids(&[2, 5, 9, 1], &options) {
            drop(generation.finish());
        }
    }
    if let Ok(tokenizer) = model.tokenizer() {
        use_tokenizer(tokenizer);
    }
}

fn use_vocabulary(vocabulary: &Vocabulary) {
    if let Ok(tokenizer) = Tokenizer::new("x", vocabulary) {
        use_tokenizer(&tokenizer);
    }
}

fn use_tokenizer(tokenizer: &Tokenizer) {
    for text in ["", "a test", "  Ünïcode ﬁ ｆｕｌｌ 漢字 e\u{301}\u{200d}🤗\0\u{1}  x", "<extra_id_0>a</s> <unk>\t\n"]
    {
        let ids = tokenizer.encode(text);
        let _ = tokenizer.decode(&ids, true);
        let _ = tokenizer.decode(&ids, false);
    }
    let _ = tokenizer.decode(&[0, 1, 2, 258, 259, 383, 32099, u32::MAX], false);
    let _ = (tokenizer.sentinel_id(0), tokenizer.sentinel_id(u32::MAX), tokenizer.id_of("<extra_id_3>"));
}

fn variable(name: &str, usual: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}: expected a whole number, found {text}")),
        Err(_) => usual,
    }
}

#[test]
fn no_damage_makes_a_panic() {
    let (count, first) = (variable("POCKET_T5_MUTATIONS", USUAL), variable("POCKET_T5_SEED", 1));
    let sources = Sources::new();
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let panicked = Mutex::new(Vec::new());
    let slowest = Mutex::new((Duration::ZERO, 0));
    // One line for each, not a backtrace: the seed is what helps.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (sources, panicked, slowest) = (&sources, &panicked, &slowest);
            scope.spawn(move || {
                for seed in (first..first.saturating_add(count)).skip(thread as usize).step_by(threads as usize) {
                    let start = Instant::now();
                    if catch_unwind(AssertUnwindSafe(|| sources.run(seed))).is_err() {
                        panicked.lock().unwrap().push(seed);
                    }
                    let mut slowest = slowest.lock().unwrap();
                    *slowest = (*slowest).max((start.elapsed(), seed));
                }
            });
        }
    });
    std::panic::set_hook(hook);
    let (time, seed) = slowest.into_inner().unwrap();
    println!("{count} executions from seed {first}; the slowest, seed {seed}, took {} ms", time.as_millis());
    let mut seeds = panicked.into_inner().unwrap();
    seeds.sort_unstable();
    assert!(seeds.is_empty(), "{} executions panicked; their seeds: {:?}", seeds.len(), &seeds[..seeds.len().min(20)]);
}
