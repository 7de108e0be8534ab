//! A session's promises: nothing allocated per token, batches that change nothing, cancellation, stop strings, one
//! model shared by threads, and errors instead of panics.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use t5_runtime::generate::{GenerationDefaults, Settings, Task};
use t5_runtime::{
    AlignmentHeads, Choices, EarlyStopping, EncodeOptions, Finish, GenerateOptions, LengthPenalty, LengthPenaltyKind,
    Model, Overrides, Pooling, Session, SplitSentences, UnderWay,
};

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
    GenerateOptions::default().max_new_tokens(tokens).min_new_tokens(tokens)
}

#[test]
fn steady_state_allocates_nothing() {
    let model = model();
    let mut session = model.session();
    let variants = [
        forced(60),
        forced(60).temperature(0.8).top_k(20).top_p(0.9),
        forced(60).repetition_penalty(1.2).no_repeat_ngram(3),
        forced(60).beams(4),
        forced(60).beams(4).beam_groups(2).diversity_penalty(0.5).encoder_repetition_penalty(1.2),
        forced(60).temperature(0.8).typical_p(0.9).eta_cutoff(0.01).top_h(0.9).sequence_bias(vec![(vec![3, 4], 1.0)]),
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
        GenerateOptions::default().max_new_tokens(40),
        GenerateOptions::default().max_new_tokens(40).beams(3).n_best(3),
        GenerateOptions::default().max_new_tokens(40).beams(4).beam_groups(2).diversity_penalty(0.5).n_best(4),
        GenerateOptions::default().max_new_tokens(40).encoder_repetition_penalty(1.3).exponential_decay((4, 1.1)),
        GenerateOptions::default().max_new_tokens(40).temperature(1.0).n_best(2).seed(9),
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
            let options = GenerateOptions::default().max_new_tokens(30).beams(beams);
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
        let options = GenerateOptions::default().max_new_tokens(limit);
        model.session().generate(TEXT, &options).unwrap().finish()
    };
    assert_eq!(run(40)[0].finish, Finish::EndOfSequence);
    assert_eq!(run(1 << 20), run(40));
    // Past several growths, in a fresh session and in one that has grown.
    let mut session = model.session();
    for beams in [1, 3] {
        let long = forced(300).beams(beams);
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
        let options = GenerateOptions::default().max_new_tokens(8).prefix("boat").beams(beams);
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
    let options = options.stop(vec!["not there".to_owned(), stop]);
    let pieces: String = session.generate(TEXT, &options).unwrap().collect();
    assert_eq!(pieces, expected);
    let output = session.generate(TEXT, &options).unwrap().finish().remove(0);
    assert_eq!((output.text.as_str(), output.finish), (expected, Finish::Stop));
    assert!(output.ids.len() < 40);
    let batch = session.generate_batch(&[TEXT], &options).unwrap();
    assert_eq!(batch[0][0].text, expected);
}

/// What is given is not new: they are looked for behind it, in a text alone, in a batch and in draws.
#[test]
fn stop_strings_do_not_begin_in_a_forced_prefix() {
    let model = model();
    let mut session = model.session();
    let prefix = "the boat";
    let options = forced(40).prefix(prefix);
    let whole = session.generate(TEXT, &options).unwrap().finish().remove(0).text;
    let new = whole.strip_prefix(prefix).unwrap();
    let across: String = whole[prefix.len() - 1..].chars().take(2).collect();
    let inside: String = new.chars().skip(new.chars().count() / 2).take(3).collect();
    for stop in ["the", "boat", across.as_str(), inside.as_str()] {
        let end = new.find(stop);
        let expected = &whole[..end.map_or(whole.len(), |end| prefix.len() + end)];
        let finish = if end.is_some() { Finish::Stop } else { Finish::Length };
        let options = options.clone().stop(vec![stop.to_owned()]);
        let pieces: String = session.generate(TEXT, &options).unwrap().collect();
        assert_eq!(pieces, expected, "{stop:?}");
        let output = session.generate(TEXT, &options).unwrap().finish().remove(0);
        assert_eq!((output.text.as_str(), output.finish), (expected, finish), "{stop:?}");
        assert_eq!(session.generate_batch(&[TEXT], &options).unwrap()[0][0].text, expected);
        let draws = options.temperature(1.0).n_best(3);
        let outputs = session.generate(TEXT, &draws).unwrap().finish();
        assert!(outputs.iter().all(|output| output.text.starts_with(prefix)), "{outputs:?}");
    }
}

#[test]
fn cancelling_ends_between_tokens() {
    let model = model();
    let mut session = model.session();
    let cancel = Arc::new(AtomicBool::new(false));
    let options = forced(200).cancel(cancel.clone());
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
    let options = forced(20).cancel(cancel.clone()).prefix_ids(prefix_ids);
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

/// Runs what is under way to its end: how many pieces it took, its results, and the session.
fn in_pieces<T>(mut request: UnderWay<T>) -> (usize, T, Session) {
    let mut pieces = 1;
    while request.work().unwrap() {
        pieces += 1;
    }
    let (results, session) = request.finish().unwrap();
    (pieces, results, session)
}

/// What a checkpoint's settings say of the first token holds for texts that are given, too.
#[test]
fn given_texts_start_as_generated_ones() {
    for family in ["unigram", "prefix-lm"] {
        let from = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families").join(family);
        let folder = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
            std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
        let source = [7, 9, 11, 1];
        let mut sums = Vec::new();
        for start in [0, 5] {
            let settings = format!("{{\"decoder_start_token_id\": {start}}}");
            std::fs::write(folder.path().join("generation_config.json"), settings).unwrap();
            let model = Model::open(folder.path()).unwrap();
            let mut session = model.session();
            let output = session
                .generate_ids(&source, &GenerateOptions::default().max_new_tokens(6))
                .unwrap()
                .finish()
                .remove(0);
            let score = session.score_ids(&source, &output.ids).unwrap();
            assert_eq!((&score.ids, &score.logprobs), (&output.ids, &output.logprobs), "{family}, {start}");
            sums.push(session.score_ids(&source, &[7, 1]).unwrap().sum);
            if model.tokenizer().is_ok() {
                let choices = Choices::new(&model, &["the hill", "house"]).unwrap();
                for choice in session.choose_ids(&source, &choices).unwrap() {
                    let ids = model.tokenizer().unwrap().encode(&choice.text);
                    assert_eq!(choice.logprob, session.score_ids(&source, &ids).unwrap().sum, "{family}, {start}");
                }
            }
        }
        assert_ne!(sums[0], sums[1], "{family}");
    }
}

/// What is done a piece at a time has the bits of what is done at once, and whoever leaves it has a session that works.
#[test]
fn requests_are_done_in_pieces() {
    let model = model();
    let blocks = model.config().num_layers;
    // More than what passes all blocks as one piece.
    let (source, target) = (vec![7; 700], vec![9; 100]);
    let long = "The house on the hill. ".repeat(100);

    let expected = model.session().score_ids(&source, &target).unwrap();
    let (pieces, score, session) = in_pieces(model.session().into_scoring(&source, &target).unwrap());
    assert_eq!((pieces, &score), (blocks + 4, &expected));

    let mut left = session.into_scoring(&source, &target).unwrap();
    assert!((0..blocks + 2).all(|_| left.work().unwrap()));
    let (pieces, score, session) = in_pieces(left.into_session().into_scoring(&source, &target).unwrap());
    assert_eq!((pieces, score), (blocks + 4, expected));

    let expected = model.session().align(&long, TEXT).unwrap();
    let (pieces, words, session) = in_pieces(session.into_aligning(&long, TEXT).unwrap());
    assert!(pieces > blocks, "{pieces} pieces");
    assert_eq!(words, expected);

    // Two long ones alone, and the short ones together.
    let passages = [TEXT, &long, "A", &long].map(|text| model.passage(text, &EncodeOptions::default()).unwrap());
    for pooling in [None, Some(Pooling::None)] {
        let options = EncodeOptions { pooling, ..EncodeOptions::default() };
        let expected = model.session().encode_passages(&passages, &options).unwrap();
        let (pieces, encoded, _) = in_pieces(model.session().into_encoding(&passages, &options).unwrap());
        assert_eq!((pieces, encoded), (2 * blocks + 1, expected));
    }

    let texts = [TEXT, "A", long.as_str()];
    let options = forced(9).prefix_ids(vec![9; 40]).split_sentences(SplitSentences::Yes);
    let sources: Vec<_> = texts.iter().map(|text| options.source(&model, text).unwrap()).collect();
    let expected = model.session().generate_batch(&texts, &options).unwrap();
    let (pieces, results, _) = in_pieces(session.into_batch(sources, &options).unwrap());
    assert!(pieces > 18, "{pieces} pieces");
    assert_eq!(results, expected);
    for (text, results) in texts.iter().zip(&results) {
        assert_eq!(&model.session().generate(text, &options).unwrap().finish(), results, "{text:?}");
    }
}

/// In the encoder, which is quadratic: it is left after a block of a source, whatever there is still to do.
#[test]
fn a_batch_is_cancelled_from_another_thread() {
    let model = model();
    let cancel = Arc::new(AtomicBool::new(false));
    let options = forced(1).cancel(cancel.clone());
    let source = options.source_of_ids(&model, &[7; 1000]).unwrap();
    let mut request = model.session().into_batch(vec![source; 20], &options).unwrap();
    assert!((0..5).all(|_| request.work().unwrap()));
    std::thread::spawn(move || cancel.store(true, Ordering::Relaxed)).join().unwrap();
    assert!(!request.work().unwrap(), "the next piece is the last");
    let (results, _) = request.finish().unwrap();
    assert!(results.iter().all(|outputs| outputs[0].finish == Finish::Cancelled && outputs[0].ids.is_empty()));
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
        let options = forced(20).temperature(1.0).seed(seed);
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
fn scores_do_not_depend_on_what_is_beside_them() {
    let model = model();
    let mut session = model.session();
    let pairs: Vec<(Vec<u32>, Vec<u32>)> =
        (0..9).map(|i| ((0..3 + 7 * i).map(|id| 5 + id).collect(), vec![9 + i; 1 + (13 * i as usize) % 50])).collect();
    let pairs: Vec<(&[u32], &[u32])> = pairs.iter().map(|(source, target)| (&source[..], &target[..])).collect();
    let all = session.score_batch_ids(&pairs).unwrap();
    assert_eq!(all.len(), pairs.len());
    for ((source, target), score) in pairs.iter().zip(&all) {
        assert_eq!(&session.score_ids(source, target).unwrap(), score);
    }
    assert!(session.score_batch_ids(&[]).unwrap().is_empty());
    let error = session.score_batch_ids(&[pairs[0], (&[5], &[])]).unwrap_err().to_string();
    assert_eq!(error, "target: expected at least one token");
}

#[test]
fn heads_align_alone_and_in_either_step() {
    let model = model();
    let mut session = model.session();
    let source = model.tokenizer().unwrap().encode(TEXT);
    // Past one piece of teacher forcing.
    let target: Vec<u32> = (0..40).map(|place| 5 + place % 7).collect();
    let (blocks, count) = (model.config().num_decoder_layers, model.config().num_heads);
    let all: Vec<(usize, usize)> = (0..blocks).flat_map(|block| (0..count).map(move |head| (block, head))).collect();
    let mut align = |heads: Vec<(usize, usize)>, reading| {
        session.alignment_by(&AlignmentHeads { heads, reading }, &source, &target).unwrap().weights
    };
    let average = align(Vec::new(), false);
    assert_eq!(average, align(all.clone(), false));
    let mut mean = vec![0.0; average.len()];
    for &head in &all {
        let alone = align(vec![head], false);
        assert_ne!(alone, average);
        assert_eq!(alone, align(vec![head, head], false));
        mean.iter_mut().zip(alone).for_each(|(mean, weight)| *mean += weight / all.len() as f32);
    }
    // The same sums in another order.
    assert!(average.iter().zip(&mean).all(|(a, b)| (a - b).abs() < 1e-5));
    // The step that reads a token predicts the next one.
    let later = align(all, true);
    assert_eq!(later.len(), average.len());
    assert_eq!(later[..later.len() - source.len()], average[source.len()..]);
    let wrong = AlignmentHeads { heads: vec![(blocks, 0)], reading: false };
    let error = session.alignment_by(&wrong, &source, &target).unwrap_err().to_string();
    assert!(error.contains(&format!("found head 0 of block {blocks}")), "{error}");
}

#[test]
fn bad_requests_are_errors() {
    let model = model();
    let mut session = model.session();
    let base = GenerateOptions::default();
    let refused = [
        (base.clone().beams(0), "beams"),
        (base.clone().n_best(2), "n_best"),
        (base.clone().n_best(0), "n_best"),
        (base.clone().temperature(f32::NAN), "temperature"),
        (base.clone().temperature(-1.0), "temperature"),
        (base.clone().temperature(1.0).beams(2), "temperature"),
        (base.clone().top_p(0.0), "top_p"),
        (base.clone().top_p(1.5), "top_p"),
        (base.clone().min_p(-0.1), "min_p"),
        (base.clone().typical_p(0.0), "typical_p"),
        (base.clone().epsilon_cutoff(1.5), "epsilon_cutoff"),
        (base.clone().eta_cutoff(-0.5), "eta_cutoff"),
        (base.clone().top_h(f32::NAN), "top_h"),
        (base.clone().beams(4).beam_groups(0), "beam_groups"),
        (base.clone().beams(4).beam_groups(3), "beam_groups"),
        (base.clone().beams(4).beam_groups(2), "diversity_penalty"),
        (base.clone().beams(4).diversity_penalty(0.5), "diversity_penalty"),
        (base.clone().beams(4).beam_groups(2).diversity_penalty(f32::INFINITY), "diversity_penalty"),
        (base.clone().repetition_penalty(0.0), "repetition_penalty"),
        (base.clone().encoder_repetition_penalty(-1.0), "encoder_repetition_penalty"),
        (base.clone().exponential_decay((3, f32::NAN)), "exponential_decay"),
        (base.clone().forced_bos(256), "forced_bos"),
        (base.clone().forced_bos(9).suppress(vec![8, 9]), "forced_bos"),
        (base.clone().forced_eos(vec![9, 10]).suppress(vec![10, 9]), "forced_eos"),
        (base.clone().forced_eos(vec![256]), "forced_eos"),
        (base.clone().begin_suppress(vec![256]), "begin_suppress"),
        (base.clone().bad_words(vec![vec![]]), "bad_words"),
        (base.clone().bad_words(vec![vec![3, 256]]), "bad_words"),
        (base.clone().sequence_bias(vec![(vec![3], f32::NAN)]), "sequence_bias"),
        (base.clone().sequence_bias(vec![(vec![256], 1.0)]), "sequence_bias"),
        (base.clone().max_new_tokens(10).min_new_tokens(50), "min_new_tokens"),
        (base.clone().max_new_tokens(0), "max_new_tokens"),
        (base.clone().max_new_tokens(usize::MAX), "max_new_tokens"),
        (base.clone().suppress(vec![256]), "suppress"),
        (base.clone().allowed(vec![]), "allowed"),
        (base.clone().allowed(vec![1 << 20]), "allowed"),
        (base.clone().prefix_ids(vec![999]), "prefix"),
        (base.clone().stop(vec![String::new()]), "stop"),
        (base.clone().stop(vec!["x".to_owned()]).beams(2), "stop"),
        (base.clone().beams(2).length_penalty(LengthPenalty::T5 { alpha: f32::INFINITY }), "length_penalty"),
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

/// Where one option decides about others: what is asked for, by whom, and what comes of it.
#[test]
fn requests_and_checkpoints_meet_by_rule() {
    let asked = |overrides: Overrides, settings: Settings| {
        overrides.apply(&GenerationDefaults { settings, ..GenerationDefaults::default() })
    };
    let nothing = Settings::default();
    let beams = Settings { num_beams: Some(4), ..Settings::default() };
    let draws = Settings { do_sample: Some(true), temperature: Some(0.7), ..Settings::default() };
    let ask = Overrides::default;

    // Nothing asked for, nothing said: greedy search, and tasks are looked for in the text.
    let plain = asked(ask(), nothing.clone()).unwrap();
    let expected = GenerateOptions::default().split_sentences(SplitSentences::ByTask);
    assert_eq!(format!("{plain:?}"), format!("{expected:?}"));

    // Sampling.
    let filters = asked(Overrides { top_k: Some(5), ..ask() }, beams.clone()).unwrap();
    assert_eq!((filters.temperature, filters.top_k, filters.beams), (1.0, 5, 1));
    let limitless = asked(Overrides { top_k: Some(0), ..ask() }, draws.clone()).unwrap();
    assert_eq!((limitless.temperature, limitless.top_k), (0.7, 0));
    let library = asked(ask(), draws.clone()).unwrap();
    assert_eq!((library.temperature, library.top_k), (0.7, 50));
    let greedy = asked(Overrides { temperature: Some(0.0), top_k: Some(5), ..ask() }, draws.clone()).unwrap();
    assert!(!greedy.samples());
    let searched = asked(Overrides { beams: Some(3), ..ask() }, draws).unwrap();
    assert_eq!((searched.samples(), searched.beams), (false, 3));

    // The length penalty.
    let penalty = |overrides, settings: &Settings| asked(overrides, settings.clone()).unwrap().length_penalty;
    let kind = |kind| Overrides { length_penalty_kind: Some(kind), ..ask() };
    let hugging_face = |exponent| LengthPenalty::HuggingFace { exponent };
    let own = Settings { length_penalty: Some(2.0), ..beams.clone() };
    assert_eq!(penalty(ask(), &nothing), LengthPenalty::T5 { alpha: 0.6 });
    assert_eq!(penalty(ask(), &beams), hugging_face(1.0));
    assert_eq!(penalty(ask(), &own), hugging_face(2.0));
    assert_eq!(penalty(Overrides { length_penalty: Some(0.5), ..ask() }, &own), hugging_face(0.5));
    assert_eq!(penalty(Overrides { length_penalty: Some(0.5), ..ask() }, &nothing), LengthPenalty::T5 { alpha: 0.5 });
    assert_eq!(penalty(kind(LengthPenaltyKind::HuggingFace), &own), hugging_face(2.0));
    assert_eq!(penalty(kind(LengthPenaltyKind::HuggingFace), &nothing), hugging_face(1.0));
    assert_eq!(penalty(kind(LengthPenaltyKind::T5), &own), LengthPenalty::T5 { alpha: 0.6 });

    // When beam search ends, with Hugging Face's only.
    let stopping = |early, beams| Overrides { early_stopping: Some(early), beams: Some(beams), ..ask() };
    let refused = "early_stopping: expected Hugging Face's length penalty with it, found T5's";
    for early in [EarlyStopping::Yes, EarlyStopping::Never] {
        assert_eq!(asked(stopping(early, 4), nothing.clone()).unwrap_err().to_string(), refused);
        assert_eq!(asked(stopping(early, 4), beams.clone()).unwrap().early_stopping, early);
        assert_eq!(asked(stopping(early, 1), nothing.clone()).unwrap().early_stopping, early);
        // A checkpoint's is meant for that penalty, also beside beams that are asked for.
        let own = Settings { early_stopping: Some(early), ..nothing.clone() };
        let searched = asked(Overrides { beams: Some(4), ..ask() }, own).unwrap();
        assert_eq!((searched.early_stopping, searched.length_penalty), (early, hugging_face(1.0)));
    }
    assert_eq!(asked(stopping(EarlyStopping::No, 4), nothing.clone()).unwrap().beams, 4);

    // Groups belong to the checkpoint's beams.
    let groups = Settings { num_beam_groups: Some(2), diversity_penalty: Some(0.5), ..beams };
    let all = asked(ask(), groups.clone()).unwrap();
    assert_eq!((all.beams, all.beam_groups, all.diversity_penalty), (4, 2, 0.5));
    let five = asked(Overrides { beams: Some(5), ..ask() }, groups.clone()).unwrap();
    assert_eq!((five.beams, five.beam_groups, five.diversity_penalty), (5, 1, 0.0));
    let three = asked(Overrides { beams: Some(6), beam_groups: Some(3), ..ask() }, groups).unwrap();
    assert_eq!((three.beam_groups, three.diversity_penalty), (3, 0.5));

    // Lengths.
    let lengths = Settings { max_length: Some(21), min_length: Some(11), ..Settings::default() };
    let both = asked(ask(), lengths.clone()).unwrap();
    assert_eq!((both.min_new_tokens, both.max_new_tokens), (10, 20));
    let short = asked(Overrides { max_new_tokens: Some(4), ..ask() }, lengths.clone()).unwrap();
    assert_eq!((short.min_new_tokens, short.max_new_tokens), (4, 4));
    let long = asked(Overrides { min_new_tokens: Some(21), ..ask() }, lengths).unwrap_err().to_string();
    assert_eq!(long, "min_new_tokens: expected at most the limit of new tokens (20), found 21");

    // Results: at most as many as beams, unless they are drawn.
    let results = Settings { num_return_sequences: Some(3), num_beams: Some(3), ..Settings::default() };
    let count = |overrides| asked(overrides, results.clone()).unwrap().n_best;
    assert_eq!(count(ask()), 3);
    assert_eq!(count(Overrides { beams: Some(2), ..ask() }), 2);
    assert_eq!(count(Overrides { temperature: Some(1.0), ..ask() }), 3);
}

/// A task's settings go before the checkpoint's, and what is asked for before both.
#[test]
fn tasks_bring_prefix_and_settings() {
    let settings = Settings { num_beams: Some(2), no_repeat_ngram_size: Some(4), ..Settings::default() };
    let task = Task {
        name: "summarization".to_owned(),
        prefix: "summarize: ".to_owned(),
        settings: Settings {
            num_beams: Some(4),
            length_penalty: Some(2.0),
            early_stopping: Some(EarlyStopping::Yes),
            max_length: Some(200),
            min_length: Some(30),
            ..Settings::default()
        },
    };
    let defaults = GenerationDefaults { settings, tasks: vec![task], not_obeyed: Vec::new() };
    let ask = Overrides { task: Some("summarization".to_owned()), ..Overrides::default() };
    let options = ask.apply(&defaults).unwrap();
    assert_eq!((options.source_prefix.as_str(), options.beams, options.no_repeat_ngram), ("summarize: ", 4, 4));
    assert_eq!((options.min_new_tokens, options.max_new_tokens), (29, 199));
    assert_eq!(options.length_penalty, LengthPenalty::HuggingFace { exponent: 2.0 });
    assert_eq!(options.early_stopping, EarlyStopping::Yes);
    let options =
        Overrides { beams: Some(1), source_prefix: Some("tl;dr ".to_owned()), ..ask }.apply(&defaults).unwrap();
    assert_eq!((options.source_prefix.as_str(), options.beams), ("tl;dr ", 1));
    let unknown = Overrides { task: Some("poetry".to_owned()), ..Overrides::default() };
    assert_eq!(unknown.apply(&defaults).unwrap_err().to_string(), "task: expected one of summarization, found poetry");

    // The prefix is text before the source.
    let model = model();
    let mut session = model.session();
    let with = GenerateOptions::default().max_new_tokens(20).source_prefix("The house ");
    let expected = session.generate("The house on the hill", &GenerateOptions::default().max_new_tokens(20)).unwrap();
    let expected = expected.finish();
    assert_eq!(session.generate("on the hill", &with).unwrap().finish(), expected);
    assert_eq!(session.generate_batch(&["on the hill"], &with).unwrap()[0], expected);
}
