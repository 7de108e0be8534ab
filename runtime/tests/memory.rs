//! Requests larger than memory end in an error, or where they are; the session answers the next one as before.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::PathBuf;

use t5_runtime::{Batch, BatchEvent, Error, Finish, GenerateOptions, Model, SourceText};

thread_local! {
    static IN_USE: Cell<usize> = const { Cell::new(0) };
    static LIMIT: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Gives each thread no more than its limit, as a browser's tab does.
struct Limited;

// SAFETY: what is not refused is passed on to the system's allocator; the counters need no allocation.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let wanted = IN_USE.get().saturating_add(layout.size());
        if wanted > LIMIT.get() {
            return std::ptr::null_mut();
        }
        IN_USE.set(wanted);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.set(IN_USE.get().saturating_sub(layout.size()));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Limited = Limited;

/// What `run` gives with at most this much more memory than is in use.
fn within<R>(bytes: usize, run: impl FnOnce() -> R) -> R {
    LIMIT.set(IN_USE.get() + bytes);
    let result = run();
    LIMIT.set(usize::MAX);
    result
}

fn model() -> Model {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families/unigram");
    Model::open(folder).expect("the fixture opens")
}

const TEXT: &str = "The house on the hill";

fn forced(tokens: usize) -> GenerateOptions {
    GenerateOptions::default().max_new_tokens(tokens).min_new_tokens(tokens)
}

#[test]
fn a_source_too_long_for_memory_is_an_error() {
    let model = model();
    let mut session = model.session();
    let expected = session.generate(TEXT, &forced(20)).unwrap().finish();
    let source = vec![7; 2_000_000];
    let batch: Vec<&[u32]> = vec![&source[..100], &source];
    let target = vec![5; 100_000];
    let errors = within(64 << 20, || {
        [
            session.logits_ids(&source[..100], &target).err(),
            session.alignment_ids(&source[..1000], &target).err(),
            session.generate_ids(&source, &forced(20)).err(),
            session.generate_batch_ids(&batch, &forced(20)).err(),
            session.encode_ids(&source).err(),
            session.score_ids(&source, &[5, 1]).err(),
        ]
    });
    for error in errors {
        let error = error.expect("there is no memory for it");
        assert!(matches!(&error, Error::Memory { bytes, .. } if *bytes > 64 << 20), "{error:?}");
        assert!(error.to_string().starts_with("not enough memory for"), "{error}");
    }
    assert_eq!(session.generate(TEXT, &forced(20)).unwrap().finish(), expected);
}

#[test]
fn what_was_granted_is_there() {
    let model = model();
    let source = vec![7; 1500];
    // The smallest limit refuses it, the largest allows it, and none ends the process.
    let mut answers = Vec::new();
    for megabytes in 1..17 {
        let mut session = model.session();
        let options = forced(3).beams(4);
        answers.push(within(megabytes << 20, || session.generate_ids(&source, &options).map(|g| g.finish().len())));
    }
    assert!(matches!(answers[0], Err(Error::Memory { .. })), "{:?}", answers[0]);
    assert!(matches!(answers[15], Ok(1)), "{:?}", answers[15]);
}

#[test]
fn memory_does_not_grow_with_the_batch() {
    let model = model();
    let mut session = model.session();
    let ids = model.tokenizer().unwrap().encode(TEXT);
    let options = forced(2).beams(256);
    let alone = session.generate_ids(&ids, &options).unwrap().finish();
    let sources = vec![&ids[..]; 100];
    // Logits of all sequences at once would be 100 * 256 * 256 floats: 26 MB.
    let results = within(12 << 20, || session.generate_batch_ids(&sources, &options)).unwrap();
    assert_eq!(results.len(), 100);
    assert!(results.iter().all(|outputs| *outputs == alone));
}

#[test]
fn a_batch_names_its_faults_before_it_works() {
    let model = model();
    let mut session = model.session();
    let many = vec![&[5, 1][..]; 600];
    let sources: Vec<&[u32]> = many.iter().copied().chain([&[999][..]]).collect();
    let error = session.generate_batch_ids(&sources, &forced(1)).unwrap_err();
    assert_eq!(error.to_string(), "source: expected ids below 256, found 999");
}

#[test]
fn a_generation_that_outgrows_memory_ends_where_it_is() {
    let model = model();
    let mut session = model.session();
    let expected = model.session().generate(TEXT, &forced(400)).unwrap().finish().remove(0);
    let mut generation = session.generate(TEXT, &forced(400)).unwrap();
    assert!((0..10).all(|_| generation.step()));
    // Its caches have room for 64 positions.
    let (failure, output) = within(16 << 10, || {
        while generation.step() {}
        let failure = generation.failure().map(|error| matches!(error, Error::Memory { .. }));
        (failure, generation.finish().remove(0))
    });
    assert_eq!(failure, Some(true));
    assert_eq!(output.finish, Finish::Memory);
    assert_eq!(output.finish.name(), "memory");
    assert!(output.ids.len() >= 60 && output.ids.len() < 400, "{} tokens", output.ids.len());
    assert_eq!(output.ids, expected.ids[..output.ids.len()]);
    assert_eq!(session.generate(TEXT, &forced(400)).unwrap().finish().remove(0), expected);
}

/// The sentences that there was memory for are the text.
#[test]
fn a_sentence_too_long_for_memory_ends_the_text() {
    let model = model();
    let mut session = model.session();
    let long = "a mill ".repeat(20_000);
    let text = format!("{}{long}. The end.", "The mill.  ".repeat(20));
    let options = forced(5).split_sentences(true);
    let one = session.generate("The mill.", &options).unwrap().finish().remove(0);
    let mut generation = session.generate(&text, &options).unwrap();
    let (pieces, failure, output) = within(16 << 20, || {
        let pieces: String = generation.by_ref().collect();
        let failure = generation.failure().map(|error| matches!(error, Error::Memory { .. }));
        (pieces, failure, generation.finish().remove(0))
    });
    // Sixteen are decoded side by side, and the next sixteen are not begun.
    assert_eq!((failure, output.finish), (Some(true), Finish::Memory));
    assert_eq!((pieces, output.ids), (vec![one.text.as_str(); 16].join("  "), one.ids.repeat(16)));
    assert!(matches!(within(16 << 20, || session.generate_batch(&[&text], &options)), Err(Error::Memory { .. })));
    assert_eq!(session.generate("The mill.", &options).unwrap().finish(), [one]);
}

/// The list of end tokens is a file's, and beam search compares as many candidates more as there are end tokens.
#[test]
fn end_tokens_count_once_and_bound_beams() {
    let family = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families/unigram");
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(family).unwrap().map(|entry| entry.unwrap().path()) {
        std::fs::copy(&file, folder.path().join(file.file_name().unwrap())).unwrap();
    }
    let with_ends = |ends: Vec<u32>| {
        let json = serde_json::json!({ "eos_token_id": ends }).to_string();
        std::fs::write(folder.path().join("generation_config.json"), json).unwrap();
        Model::open(folder.path()).unwrap()
    };
    let options = GenerateOptions::default().max_new_tokens(2).beams(1000);
    let many_times = with_ends(vec![1; 100_000]);
    let once = with_ends(vec![1]).session().generate(TEXT, &options).unwrap().finish();
    let found =
        within(64 << 20, || many_times.session().generate(TEXT, &options).map(|generation| generation.finish()));
    assert_eq!(found.unwrap(), once);
    let error = with_ends((0..200).collect()).session().generate(TEXT, &options).err().unwrap();
    assert_eq!(error.to_string(), "beams: expected at most 326 with 200 end tokens, found 1000");
}

/// A request that there is no memory for waits for those that run, fails then, and those behind it are answered.
#[test]
fn a_request_too_long_for_memory_leaves_the_others_alone() {
    let model = model();
    let expected = model.session().generate(TEXT, &forced(30)).unwrap().finish();
    let mut session = model.session();
    let mut batch = Batch::new(&mut session, 3).unwrap();
    let source = vec![7; 2_000_000];
    let first = batch.add(TEXT, &forced(30)).unwrap();
    batch.step();
    let large = batch.add_source(SourceText::from(&source[..]), &forced(3)).unwrap();
    let behind = batch.add(TEXT, &forced(30)).unwrap();
    let mut ended = Vec::new();
    within(64 << 20, || {
        while !batch.is_empty() {
            for event in batch.step() {
                match event {
                    BatchEvent::Done { id, outputs } => {
                        assert_eq!(outputs, expected);
                        ended.push(id);
                    }
                    BatchEvent::Failed { id, error: Error::Memory { bytes, .. } } => {
                        assert!(id == large && bytes > 64 << 20);
                        ended.push(id);
                    }
                    _ => {}
                }
            }
        }
    });
    assert_eq!(ended, [first, large, behind]);
    assert!(matches!(within(64 << 10, || Batch::new(model.session(), 4096).err()), Some(Error::Memory { .. })));
}

#[test]
fn a_batch_that_outgrows_memory_ends_what_runs() {
    let model = model();
    let expected = model.session().generate(TEXT, &forced(400)).unwrap().finish().remove(0);
    let mut session = model.session();
    let mut batch = Batch::new(&mut session, 2).unwrap();
    (0..3).for_each(|_| assert!(batch.add(TEXT, &forced(400)).is_ok()));
    (0..10).for_each(|_| drop(batch.step()));
    // Its caches have room for 64 positions.
    let mut outputs = Vec::new();
    within(24 << 10, || {
        while outputs.len() < 2 {
            outputs.extend(batch.step().into_iter().filter_map(|event| match event {
                BatchEvent::Done { outputs, .. } => outputs.into_iter().next(),
                _ => None,
            }));
        }
    });
    for output in &outputs {
        assert_eq!(output.finish, Finish::Memory);
        assert!((60..400).contains(&output.ids.len()), "{} tokens", output.ids.len());
        assert_eq!(output.ids, expected.ids[..output.ids.len()]);
    }
    // The third begins when there is memory again.
    let mut last = None;
    while !batch.is_empty() {
        last = batch.step().pop().or(last);
    }
    assert!(matches!(last, Some(BatchEvent::Done { outputs, .. }) if outputs[0] == expected));
}
