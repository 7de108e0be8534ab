//! What a tokenizer costs: time and memory to build it, time per byte of text, both beside the `tokenizers` crate's
//! own model, and whether long lines take linear time.
//!
//! `cargo bench -p t5-runtime --bench tokenizer [tokenizer.json]`; without a file the vocabularies are synthetic. Times
//! are those on the processor, the least of several runs. Ids are compared with the crate's before anything is timed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use t5_runtime::tokenizer::{
    AddedToken, Piece, PieceKind, PieceModel, Tokenizer, UnigramVocabulary, Vocabulary, Whitespace,
};
use tokenizers::Model;
use tokenizers::models::unigram::Unigram;

/// Counts what is allocated.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise about `pointer` and `layout` is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let file = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    if let Some(file) = file {
        let bytes = std::fs::read(&file).expect("the tokenizer.json can be read");
        let (read, _, _) = measure(|| Vocabulary::from_tokenizer_json(&file, &bytes).unwrap());
        println!("reading tokenizer.json: {:.1} ms", ms(read));
        report(&file, &Vocabulary::from_tokenizer_json(&file, &bytes).unwrap());
    }
    report("synthetic, 32,000 pieces", &synthetic(32_000));
    report("synthetic, 250,000 pieces", &synthetic(250_000));
}

fn report(name: &str, vocabulary: &Vocabulary) {
    println!("{name}");
    let (time, live, peak) = measure(|| Tokenizer::new(name, vocabulary).unwrap());
    println!("  building: {:.1} ms, {:.1} MB, at most {:.1} MB", ms(time), mb(live), mb(peak));
    let Vocabulary::Unigram(unigram) = vocabulary else { return };
    let scored = || unigram.pieces.iter().map(|piece| (piece.text.clone(), f64::from(piece.score))).collect();
    let (time, live, peak) = measure(|| Unigram::from(scored(), Some(unigram.unk_id as usize), false).unwrap());
    println!("  crate's model: {:.1} ms, {:.1} MB, at most {:.1} MB", ms(time), mb(live), mb(peak));

    let tokenizer = Tokenizer::new(name, vocabulary).unwrap();
    let model = Unigram::from(scored(), Some(unigram.unk_id as usize), false).unwrap();
    // Text made of pieces, so that it looks like the language of the vocabulary.
    let mut random = Random(1);
    let text: String = (0..40_000)
        .map(|_| &unigram.pieces[3 + random.below(unigram.pieces.len().min(8000) - 110)].text)
        .flat_map(|piece| piece.chars())
        .map(|c| if c == '▁' { ' ' } else { c })
        .collect();
    let word: String = text.chars().filter(|&c| c != ' ').take(2000).collect();
    let expected: Vec<u32> = model.tokenize(&format!("▁{word}")).unwrap().iter().map(|token| token.id).collect();
    assert_eq!(tokenizer.encode_prefix(&word), expected, "the crate's ids");
    let (time, ..) = measure(|| tokenizer.encode(&text));
    println!("  encoding: {:.1} ns per byte", time.as_secs_f64() * 1e9 / text.len() as f64);
    let (time, ..) = measure(|| model.tokenize(&format!("▁{word}")).unwrap());
    println!("  crate's model: {:.1} ns per byte", time.as_secs_f64() * 1e9 / word.len() as f64);
    let ids = tokenizer.encode(&text);
    let (time, ..) = measure(|| tokenizer.decode(&ids, true));
    println!("  decoding: {:.1} ns per id", time.as_secs_f64() * 1e9 / ids.len() as f64);
    for (name, unit) in
        [("one word", "a"), ("words", "and "), ("accents", "e\u{301}"), ("emoji", "👩\u{200d}"), ("flags", "🇩")]
    {
        let times: Vec<String> = [12_500, 100_000, 800_000]
            .iter()
            .map(|&len| {
                let text = unit.repeat(len / unit.len());
                let (time, ..) = measure(|| tokenizer.encode(&text));
                format!("{:.1}", time.as_secs_f64() * 1e9 / text.len() as f64)
            })
            .collect();
        println!("  {name}, 12.5 kB, 100 kB, 800 kB on one line: {} ns per byte", times.join(", "));
    }
}

/// The time of one run, the bytes that its result holds and the most that were held on the way.
fn measure<T>(mut run: impl FnMut() -> T) -> (Duration, usize, usize) {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = black_box(run());
    let (live, peak) = (LIVE.load(Relaxed) - before, PEAK.load(Relaxed) - before);
    drop(result);
    // The clock may tick every few ms only. What a result costs to drop counts for it.
    let time = (0..5).map(|_| {
        let start = now();
        let mut runs = 0;
        while now() - start < Duration::from_millis(40) {
            black_box(run());
            runs += 1;
        }
        (now() - start) / runs
    });
    (time.min().unwrap_or_default(), live, peak)
}

/// The time this thread has run, where Linux tells it: other programs then do not count. Else the time of day.
fn now() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let on_cpu = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let on_cpu = on_cpu.and_then(|line| line.split(' ').next()?.parse().ok()).map(Duration::from_nanos);
    on_cpu.unwrap_or_else(|| START.elapsed())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn mb(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

/// A vocabulary of `count` pieces and 100 sentinels: words of syllables, half of them with `▁`, some in CJK.
fn synthetic(count: usize) -> Vocabulary {
    let special = [("<pad>", PieceKind::Control), ("</s>", PieceKind::Control), ("<unk>", PieceKind::Unknown)];
    let piece = |text: String, score: f32, kind| Piece { text, score, kind };
    let mut pieces: Vec<Piece> = special.iter().map(|(text, kind)| piece(text.to_string(), 0.0, *kind)).collect();
    let mut seen = std::collections::HashSet::new();
    let mut random = Random(7);
    pieces.extend(std::iter::once('▁').chain('a'..='z').map(|c| piece(c.into(), -4.0, PieceKind::Normal)));
    while pieces.len() < count {
        let mut text = if random.below(2) == 0 { "▁".to_string() } else { String::new() };
        for _ in 0..=random.below(4) {
            if random.below(4) == 0 {
                text.push(char::from_u32(0x4E00 + random.below(3000) as u32).unwrap());
            } else {
                text.push(b"bcdfghjklmnprstvwz"[random.below(18)] as char);
                text.push(b"aeiouy"[random.below(6)] as char);
            }
        }
        if seen.insert(text.clone()) {
            pieces.push(piece(text, -5.0 - (pieces.len() as f32).ln(), PieceKind::Normal));
        }
    }
    let mut vocabulary = UnigramVocabulary {
        model: PieceModel::Unigram,
        pieces,
        unk_id: 2,
        eos_id: 1,
        pad_id: 0,
        charsmap: None,
        whitespace: Whitespace::Split,
        add_dummy_prefix: true,
        legacy: true,
        split_words: true,
        byte_fallback: false,
        added: (0..3).map(AddedToken::special).collect(),
    };
    vocabulary.append_sentinels(100);
    Vocabulary::Unigram(vocabulary)
}

/// xorshift64: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}
