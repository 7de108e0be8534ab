//! A session's promises: nothing allocated per token, batches that change nothing, cancellation, stop strings, one
//! model shared by threads, and errors instead of panics.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use t5_runtime::{Finish, GenerateOptions, LengthPenalty, Model};

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn model() -> Model {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families/unigram");
    Model::open(folder).expect("the fixture opens")
}

const TEXT: &str = "The house on the hill";

fn forced(tokens: usize) -> GenerateOptions {
    GenerateOptions { max_new_tokens: Some(tokens), min_new_tokens: tokens, ..Default::default() }
}

#[test]
fn steady_state_allocates_nothing() {
    let model = model();
    let mut session = model.session();
    let variants = [
        forced(60),
        GenerateOptions { temperature: 0.8, top_k: 20, top_p: 0.9, ..forced(60) },
        GenerateOptions { repetition_penalty: 1.2, no_repeat_ngram: 3, ..forced(60) },
        GenerateOptions { beams: 4, ..forced(60) },
    ];
    for options in variants {
        // The first run grows the session's buffers.
        session.generate(TEXT, &options).unwrap().finish();
        let mut generation = session.generate(TEXT, &options).unwrap();
        let mut before = None;
        let mut pieces = 0;
        loop {
            let more = generation.step();
            if !more {
                break;
            }
            pieces += 1;
            // The first step grows what depends on the options.
            let now = ALLOCATIONS.with(Cell::get);
            if pieces == 2 {
                before = Some(now);
            }
            if pieces > 2 && pieces < 59 {
                assert_eq!(Some(now), before, "step {pieces} allocated with {options:?}");
            }
        }
        assert!(pieces >= 59, "{pieces} steps");
    }
}

#[test]
fn a_result_does_not_depend_on_its_batch() {
    let model = model();
    let mut session = model.session();
    let texts = ["Where is the green boat?", "A", TEXT, "  two   spaces  ", "mill mill mill mill mill mill"];
    for options in [
        GenerateOptions { max_new_tokens: Some(40), ..Default::default() },
        GenerateOptions { max_new_tokens: Some(40), beams: 3, n_best: 3, ..Default::default() },
        GenerateOptions { max_new_tokens: Some(40), temperature: 1.0, n_best: 2, seed: 9, ..Default::default() },
    ] {
        let together = session.generate_batch(&texts, &options).unwrap();
        for (text, together) in texts.iter().zip(&together) {
            let alone = session.generate(text, &options).unwrap().finish();
            // Equal to the bit: log-probabilities, too.
            assert_eq!(&alone, together, "{text:?}");
        }
    }
}

#[test]
fn pieces_are_the_text() {
    let model = model();
    let mut session = model.session();
    for text in [TEXT, "A", "Where is the green boat?"] {
        for beams in [1, 3] {
            let options = GenerateOptions { max_new_tokens: Some(30), beams, ..Default::default() };
            let pieces: String = session.generate(text, &options).unwrap().collect();
            let whole = session.generate(text, &options).unwrap().finish();
            assert_eq!(pieces, whole[0].text);
        }
    }
}

/// Memory follows what is generated, and caches that grow in the middle lose nothing.
#[test]
fn limits_cost_no_memory() {
    let model = model();
    let run = |limit| {
        let options = GenerateOptions { max_new_tokens: Some(limit), ..Default::default() };
        model.session().generate(TEXT, &options).unwrap().finish()
    };
    assert_eq!(run(40)[0].finish, Finish::EndOfSequence);
    assert_eq!(run(1 << 20), run(40));
    // Past several growths, in a fresh session and in one that has grown.
    let mut session = model.session();
    for beams in [1, 3] {
        let long = GenerateOptions { beams, ..forced(300) };
        let fresh = model.session().generate(TEXT, &long).unwrap().finish();
        assert_eq!(session.generate(TEXT, &long).unwrap().finish(), fresh);
        assert_eq!(session.generate(TEXT, &long).unwrap().finish(), fresh);
        let score = session.score_ids(&model.tokenizer().unwrap().encode(TEXT), &fresh[0].ids).unwrap();
        assert_eq!(score.ids.len(), 300);
    }
}

#[test]
fn a_forced_prefix_begins_every_result() {
    let model = model();
    let mut session = model.session();
    for beams in [1, 2] {
        let options =
            GenerateOptions { max_new_tokens: Some(8), prefix: "boat".to_owned(), beams, ..Default::default() };
        let pieces: String = session.generate(TEXT, &options).unwrap().collect();
        assert!(pieces.starts_with("boat"), "{pieces:?}");
    }
}

#[test]
fn stop_strings_end_the_text_before_them() {
    let model = model();
    let mut session = model.session();
    let options = forced(40);
    let whole = session.generate(TEXT, &options).unwrap().finish().remove(0).text;
    // Inside of the text, across pieces.
    let (at, _) = whole.char_indices().nth(whole.chars().count() / 2).unwrap();
    let stop: String = whole[at..].chars().take(3).collect();
    let expected = &whole[..whole.find(&stop).unwrap()];
    let options = GenerateOptions { stop: vec!["not there".to_owned(), stop], ..options };
    let pieces: String = session.generate(TEXT, &options).unwrap().collect();
    assert_eq!(pieces, expected);
    let output = session.generate(TEXT, &options).unwrap().finish().remove(0);
    assert_eq!((output.text.as_str(), output.finish), (expected, Finish::Stop));
    assert!(output.ids.len() < 40);
    let batch = session.generate_batch(&[TEXT], &options).unwrap();
    assert_eq!(batch[0][0].text, expected);
}

#[test]
fn cancelling_ends_between_tokens() {
    let model = model();
    let mut session = model.session();
    let cancel = Arc::new(AtomicBool::new(false));
    let options = GenerateOptions { cancel: Some(cancel.clone()), ..forced(200) };
    let mut generation = session.generate(TEXT, &options).unwrap();
    for _ in 0..5 {
        assert!(generation.step());
    }
    cancel.store(true, Ordering::Relaxed);
    let output = generation.finish().remove(0);
    assert_eq!(output.finish, Finish::Cancelled);
    assert_eq!(output.ids.len(), 5);
    // The session is as good as new.
    let again = session.generate(TEXT, &forced(20)).unwrap().finish().remove(0);
    assert_eq!(again.ids[..5], output.ids[..5]);
    assert_eq!(again.finish, Finish::Length);
}

/// The caller is heard before the first token, too: in the encoder, and while a forced prefix is read.
#[test]
fn cancelling_reaches_the_encoder_and_the_prefix() {
    let model = model();
    let mut session = model.session();
    let source = vec![7; 2000];
    let prefix_ids = vec![9; 500];
    let cancel = Arc::new(AtomicBool::new(false));
    let options = GenerateOptions { cancel: Some(cancel.clone()), prefix_ids, ..forced(20) };
    let whole = session.generate_ids(&source, &options).unwrap().finish();
    // Two blocks of the encoder and the start token with its 500 followers, 32 at once: the last piece gives a token.
    let pieces = model.config().num_layers + 501usize.div_ceil(32);
    for pieces in [0, 1, 2, 3, 10, pieces - 1] {
        cancel.store(false, Ordering::Relaxed);
        let mut generation = session.generate_ids(&source, &options).unwrap();
        assert!((0..pieces).all(|_| generation.work()));
        assert_eq!(generation.passes(), 0, "after {pieces} pieces");
        cancel.store(true, Ordering::Relaxed);
        assert!(!generation.work());
        let output = generation.finish().remove(0);
        assert_eq!((output.finish, output.ids.len()), (Finish::Cancelled, 0), "after {pieces} pieces");
    }
    // In pieces the result is the same.
    cancel.store(false, Ordering::Relaxed);
    let mut generation = session.generate_ids(&source, &options).unwrap();
    assert!((0..pieces).all(|_| generation.work()));
    assert_eq!(generation.passes(), 1);
    while generation.work() {}
    assert_eq!(generation.finish(), whole);
}

/// From another thread: the encoder is quadratic, and a source that takes seconds is left after a block.
#[test]
fn a_batch_is_cancelled_from_another_thread() {
    let model = model();
    let cancel = Arc::new(AtomicBool::new(false));
    let options = GenerateOptions { cancel: Some(cancel.clone()), ..forced(1) };
    let source = vec![7; 3000];
    let sources = vec![&source[..]; 200];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(30));
            cancel.store(true, Ordering::Relaxed);
        });
        let results = model.session().generate_batch_ids(&sources, &options).unwrap();
        assert!(results.iter().all(|outputs| outputs[0].finish == Finish::Cancelled && outputs[0].ids.is_empty()));
    });
}

#[test]
fn threads_share_a_model() {
    let model = model();
    let expected = model.session().generate(TEXT, &forced(30)).unwrap().finish();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(model.session().generate(TEXT, &forced(30)).unwrap().finish(), expected));
        }
    });
}

#[test]
fn one_seed_one_text() {
    let model = model();
    let mut session = model.session();
    let draw = |session: &mut t5_runtime::Session, seed| {
        let options = GenerateOptions { temperature: 1.0, seed, ..forced(20) };
        session.generate(TEXT, &options).unwrap().finish().remove(0).ids
    };
    let first = draw(&mut session, 1);
    assert_eq!(draw(&mut session, 1), first);
    assert!((2..10).any(|seed| draw(&mut session, seed) != first));
}

#[test]
fn scores_are_those_of_generation() {
    let model = model();
    let mut session = model.session();
    let source = model.tokenizer().unwrap().encode(TEXT);
    // Past one piece of teacher forcing.
    let output = session.generate_ids(&source, &forced(70)).unwrap().finish().remove(0);
    let score = session.score_ids(&source, &output.ids).unwrap();
    for (step, (a, b)) in output.logprobs.iter().zip(&score.logprobs).enumerate() {
        // Equal but for the order in which several rows share a product, which must not matter at all.
        assert_eq!(a, b, "step {step}");
    }
    let alignment = session.alignment_ids(&source, &output.ids).unwrap();
    assert_eq!(alignment.weights.len(), source.len() * output.ids.len());
    for row in alignment.weights.chunks_exact(source.len()) {
        let sum: f32 = row.iter().sum();
        // A sum of at most a few dozen rounded values.
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
    }
}

#[test]
fn bad_requests_are_errors() {
    let model = model();
    let mut session = model.session();
    let base = GenerateOptions::default();
    let refused = [
        (GenerateOptions { beams: 0, ..base.clone() }, "beams"),
        (GenerateOptions { n_best: 2, ..base.clone() }, "n_best"),
        (GenerateOptions { n_best: 0, ..base.clone() }, "n_best"),
        (GenerateOptions { temperature: f32::NAN, ..base.clone() }, "temperature"),
        (GenerateOptions { temperature: -1.0, ..base.clone() }, "temperature"),
        (GenerateOptions { temperature: 1.0, beams: 2, ..base.clone() }, "temperature"),
        (GenerateOptions { top_p: 0.0, ..base.clone() }, "top_p"),
        (GenerateOptions { top_p: 1.5, ..base.clone() }, "top_p"),
        (GenerateOptions { min_p: -0.1, ..base.clone() }, "min_p"),
        (GenerateOptions { repetition_penalty: 0.0, ..base.clone() }, "repetition_penalty"),
        (GenerateOptions { max_new_tokens: Some(0), ..base.clone() }, "max_new_tokens"),
        (GenerateOptions { max_new_tokens: Some(usize::MAX), ..base.clone() }, "max_new_tokens"),
        (GenerateOptions { suppress: vec![256], ..base.clone() }, "suppress"),
        (GenerateOptions { allowed: Some(vec![]), ..base.clone() }, "allowed"),
        (GenerateOptions { allowed: Some(vec![1 << 20]), ..base.clone() }, "allowed"),
        (GenerateOptions { prefix_ids: vec![999], ..base.clone() }, "prefix"),
        (GenerateOptions { stop: vec![String::new()], ..base.clone() }, "stop"),
        (GenerateOptions { stop: vec!["x".to_owned()], beams: 2, ..base.clone() }, "stop"),
        (
            GenerateOptions { beams: 2, length_penalty: LengthPenalty::T5 { alpha: f32::INFINITY }, ..base.clone() },
            "length_penalty",
        ),
    ];
    for (options, word) in refused {
        let error = session.generate(TEXT, &options).err().unwrap_or_else(|| panic!("{options:?}")).to_string();
        assert!(error.starts_with(word), "{error}");
    }
    assert!(session.generate_ids(&[], &base).is_err());
    assert!(session.generate_ids(&[256], &base).is_err());
    assert!(session.score_ids(&[1], &[]).is_err());
    assert!(session.score_ids(&[1], &[300]).is_err());
    assert!(session.encode_ids(&[]).is_err());
    assert!(session.generate_batch_ids(&[], &base).unwrap().is_empty());
}
